"""Certified values of POMDPs: a lower and an upper bound on belief points, refined to a tolerance.

All stages use the same P beliefs, the S corners of the simplex first. With h decisions to go,

    lower: V_h(b) >= max_i b . alpha_i, one alpha-vector backed up at each point (Pineau, Gordon, Thrun 2003);
    upper: V_h(b) <= min(sawtooth(b), max_a b . F_h(., a)), values at the points interpolated by the
           sawtooth, and the fast informed bound F_h (both Hauskrecht 2000).

The recursions start from a bracket of the value with no decision to go (zero, if the horizon is finite), so every
stage is a valid bracket for any points; the points determine only its width. New points are beliefs on paths from the
start under the upper bound's greedy action; signals are drawn in proportion to their share of the bracket's width (as
in heuristic search value iteration, Smith and Simmons 2005). Float64. Axis letters as in docs/axes.md, and W paths.
A joint is an unnormalised belief, or an array of them with the states first, (S, ...).
"""

import dataclasses
import functools
import math
import time

import jax
import jax.numpy as jnp
import numpy as np

from icdm.errors import UserError
from icdm.oracles.belief import BeliefModel
from icdm.problems.mdp import draw

FIRST_POINTS = 16  # points that the first refinement adds; each further refinement adds twice as many
EXPLORED = 1024  # approximate number of beliefs on the paths of one refinement
LARGEST = 2**27  # most entries of a P x P x A x Z table
CACHED = 2**19  # most entries of the tables that are processed in parallel, so that they fit a CPU's cache
CONTRACTION = 1e-3  # factor by which one sweep of the infinite horizon contracts its first bracket

Stage = tuple[jax.Array, jax.Array, jax.Array]  # alpha (P, S), upper (P,), informed (S, A)


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["points", "alpha", "alpha_action", "upper", "informed"],
    meta_fields=[],
)
@dataclasses.dataclass(frozen=True)
class Bounds:
    """A bracket of V_h at every belief, for one problem; a single stage (U = 1) is valid for every h.

    Attributes:
      points: (P, S), the corners first.
      alpha: (U, P, S) vectors of the lower bound.
      alpha_action: (U, P) the first action of each vector's plan.
      upper: (U, P) the upper bound at the points.
      informed: (U, S, A) the fast informed bound.
    """

    points: jax.Array
    alpha: jax.Array
    alpha_action: jax.Array
    upper: jax.Array
    informed: jax.Array

    def lower_value(self, joint: jax.Array, stage: jax.Array | int) -> jax.Array:
        """Lower bound of the value of joints (S, ...), times their mass, with `stage` decisions to go."""
        return jnp.tensordot(self.alpha[self._at(stage)], joint, 1).max(0)

    def upper_value(self, joint: jax.Array, stage: jax.Array | int) -> jax.Array:
        """Upper bound of the value of joints (S, ...), times their mass, with `stage` decisions to go."""
        informed = jnp.tensordot(self.informed[self._at(stage)].T, joint, 1).max(0)
        share = jnp.moveaxis(shares(joint, self.points), 0, -1)
        return jnp.minimum(informed, _sawtooth(joint, share, self.points, self.upper[self._at(stage)]))

    def q_values(self, model: BeliefModel, belief: jax.Array, stage: jax.Array | int) -> tuple[jax.Array, jax.Array]:
        """Lower and upper bound of Q_h(belief, a) with h = `stage` >= 1 decisions to go, each (A,)."""
        joint = jnp.einsum("s,azst->taz", belief, model.kernel)
        gain = belief @ model.reward
        lower, upper = (value(joint, stage - 1).sum(-1) for value in (self.lower_value, self.upper_value))
        return gain + model.discount * lower, gain + model.discount * upper

    def bracket(self, model: BeliefModel) -> tuple[jax.Array, jax.Array]:
        """Bounds of the value before the first observation."""
        return self.lower_value(model.first.T, model.horizon).sum(), self.upper_value(
            model.first.T, model.horizon
        ).sum()

    def _at(self, stage: jax.Array | int) -> jax.Array:
        return jnp.minimum(stage, self.alpha.shape[0] - 1)


@dataclasses.dataclass(frozen=True)
class Solution:
    """The result of `solve`.

    Attributes:
      bounds: the bounds of N problems (leading axis N).
      lower, upper: (N,) brackets of the optimal values at the start.
      seconds: duration.
    """

    bounds: Bounds
    lower: np.ndarray
    upper: np.ndarray
    seconds: float

    @property
    def gap(self) -> np.ndarray:
        """Widths of the brackets, (N,)."""
        return self.upper - self.lower


def solve(
    model: BeliefModel,
    key: jax.Array,
    *,
    tolerance: float,
    time_limit: float = 60.0,
    most_points: int | None = None,
    infinite: bool = False,
) -> Solution:
    """Brackets the optimal values of N problems (leading axis N).

    Each bracket is refined until upper - lower <= tolerance x max(1, |lower|), or until another refinement would
    exceed `time_limit` or `most_points`. The bracket is valid but wider in the second case.

    Args:
      tolerance: largest width of a bracket, as a share of max(1, |lower|).
      time_limit: seconds.
      most_points: most belief points, corners included; as many as fit in memory if it is None.
      infinite: the horizon is infinite instead of `model.horizon`.

    Raises:
      UserError: the horizon is infinite and a discount is 1, or the tolerance is not positive.
    """
    if not tolerance > 0:
        raise UserError(f"tolerance {tolerance}: give a positive number")
    started = time.perf_counter()
    with jax.enable_x64(True):
        model = jax.tree.map(jnp.asarray, model)
        if infinite:
            model = dataclasses.replace(model, horizon=_sweep_length(model))
        n_problems, n_states = model.reward.shape[:2]
        points = jnp.broadcast_to(jnp.eye(n_states), (n_problems, n_states, n_states))
        bounds, lower, upper = _solve_all(model, points, _nothing_left(model, infinite), infinite)
        if most_points is None:
            most_points = math.isqrt(LARGEST // math.prod(model.kernel.shape[1:3]))
        n_new, round_seconds = FIRST_POINTS, 0.0
        while (wide := np.flatnonzero(upper - lower > tolerance * np.maximum(1, np.abs(lower)))).size:
            now = time.perf_counter()
            n_points = bounds.points.shape[1] + n_new
            # The cost grows with the square of the number of points.
            if now - started + 4 * round_seconds > time_limit or n_points > most_points:
                break
            rows = np.resize(wide, min(n_problems, -(-wide.size // 16) * 16))
            some, old = (jax.tree.map(lambda leaf: leaf[rows], tree) for tree in (model, bounds))
            key, round_key = jax.random.split(key)
            points = _explore_all(some, old, jax.random.split(round_key, rows.size), n_new)
            start = _last_stage(old, points) if infinite else _nothing_left(some, infinite, n_points)
            refined, *bracket = _solve_all(some, points, start, infinite)
            bounds = jax.tree.map(lambda leaf, new: leaf.at[rows].set(new), _padded(bounds, n_points), refined)
            lower[rows], upper[rows] = (
                np.maximum(lower[rows], bracket[0]),
                np.minimum(upper[rows], bracket[1]),
            )
            n_new, round_seconds = 2 * n_new, time.perf_counter() - now
        bounds = jax.tree.map(np.asarray, bounds)
    return Solution(bounds, lower, upper, time.perf_counter() - started)


def solve_at_points(model: BeliefModel, points: jax.Array, start: Stage) -> Bounds:
    """Both bounds of one problem at points (P, S), by one backward sweep from the bracket `start` of stage 0."""
    joint = jnp.einsum("ps,azst->tpaz", points, model.kernel)
    share = jnp.moveaxis(shares(joint, points), 0, -1)
    gain = points @ model.reward
    signal = jnp.arange(model.kernel.shape[1])[None]

    def sweep(stage: Stage, _: None):
        alpha, upper, informed = stage
        q_lower = gain + model.discount * jnp.tensordot(alpha, joint, 1).max(0).sum(-1)
        action = q_lower.argmax(-1)
        taken = jnp.take_along_axis(joint, action[None, :, None, None], 2)[:, :, 0]
        choice = _first_largest(jnp.tensordot(alpha, taken, 1))
        backed_up = jnp.einsum(
            "azst,pt->azps", model.kernel, alpha
        )  # for every vector, which is cheaper than P kernels
        future = backed_up[action[:, None], signal, choice].sum(1)
        bound = jnp.minimum(jnp.tensordot(informed.T, joint, 1).max(0), _sawtooth(joint, share, points, upper))
        q_informed = jnp.einsum("azst,tb->basz", model.kernel, informed).max(0).sum(-1).T
        stage = (
            model.reward.T[action] + model.discount * future,
            (gain + model.discount * bound.sum(-1)).max(-1),
            model.reward + model.discount * q_informed,
        )
        return stage, (*stage, action)

    _, (*stages, action) = jax.lax.scan(sweep, start, length=model.horizon)
    alpha, upper, informed = (jnp.concatenate([first[None], rest]) for first, rest in zip(start, stages))
    return Bounds(points, alpha, jnp.pad(action, ((1, 0), (0, 0))), upper, informed)


def explore(model: BeliefModel, bounds: Bounds, key: jax.Array, n_new: int) -> jax.Array:
    """The points of one problem and `n_new` further points where the bracket is wide, (P + n_new, S)."""
    n_paths = max(4, EXPLORED // model.horizon)
    uniform_TW = jax.random.uniform(key, (model.horizon, n_paths))

    def step(belief_SW: jax.Array, step: tuple[jax.Array, jax.Array]):
        t, uniform_W = step
        stage = model.horizon - t
        joint = jnp.einsum("sw,azst->twaz", belief_SW, model.kernel)
        q_upper = belief_SW.T @ model.reward + model.discount * bounds.upper_value(joint, stage).sum(-1)
        taken = jnp.take_along_axis(joint, q_upper.argmax(-1)[None, :, None, None], 2)[:, :, 0]
        next_SW, gap_W = _draw_signal(bounds, taken, stage, uniform_W)
        return next_SW, (next_SW, gap_W * model.discount**t)

    first = jnp.broadcast_to(model.first.T[:, None], (model.first.shape[1], n_paths, model.first.shape[0]))
    first_SW, first_gap_W = _draw_signal(bounds, first, model.horizon, uniform_TW[0])
    _, (later_TSW, gap_TW) = jax.lax.scan(step, first_SW, (jnp.arange(1, model.horizon), uniform_TW[1:]))
    candidates = jnp.concatenate([first_SW[None], later_TSW]).transpose(0, 2, 1).reshape(-1, first_SW.shape[0])
    return add_distant(bounds.points, candidates, jnp.concatenate([first_gap_W[None], gap_TW]).ravel(), n_new)


def _draw_signal(
    bounds: Bounds, joint: jax.Array, stage: jax.Array | int, uniform_W: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Successors (S, W) of W beliefs, drawn from joints (S, W, Z) in proportion to mass x gap; and their gaps (W,)."""
    mass = joint.sum(0)
    gap = jnp.where(mass > 1e-12, bounds.upper_value(joint, stage) - bounds.lower_value(joint, stage), 0)
    signal = draw(jnp.maximum(gap, 0) + 1e-12 * mass, uniform_W)
    taken = jnp.take_along_axis(joint, signal[None, :, None], 2)[:, :, 0]
    total = taken.sum(0)
    return taken / total[None], jnp.take_along_axis(gap, signal[:, None], 1)[:, 0] / total


def add_distant(points: jax.Array, candidates: jax.Array, gap: jax.Array, n_new: int) -> jax.Array:
    """The points and `n_new` candidates, each with the largest gap x L1 distance from the earlier points."""

    def add(distance: jax.Array, _: None):
        chosen = candidates[(distance * gap).argmax()]
        return jnp.minimum(distance, jnp.abs(candidates - chosen[None]).sum(1)), chosen

    per_state = [jnp.abs(points[:, s, None] - candidates[None, :, s]) for s in range(points.shape[1])]
    distance = functools.reduce(jnp.add, per_state).min(0)
    _, chosen = jax.lax.scan(add, distance, length=n_new)
    return jnp.concatenate([points, chosen])


def shares(joint: jax.Array, points: jax.Array) -> jax.Array:
    """The largest c with c points[i] <= joint in every state, (P, ...) for joints (S, ...)."""
    flat = joint.reshape(joint.shape[0], -1)

    def one_state(share: jax.Array, state: tuple[jax.Array, jax.Array]):
        mass, point = state
        ratio = mass[None] / jnp.where(point > 0, point, 1)[:, None]
        return jnp.where(point[:, None] > 0, jnp.minimum(share, ratio), share), None

    share, _ = jax.lax.scan(one_state, jnp.full((points.shape[0], flat.shape[1]), jnp.inf), (flat, points.T))
    return share.reshape(-1, *joint.shape[1:])


def _sawtooth(joint: jax.Array, share: jax.Array, points: jax.Array, upper: jax.Array) -> jax.Array:
    """sum_s joint(s) U(e_s) + min_i share_i (U(b_i) - sum_s b_i(s) U(e_s)), with shares (..., P)."""
    corner = upper[: points.shape[1]]
    drop = jnp.minimum(upper - points @ corner, 0)
    return jnp.tensordot(corner, joint, 1) + (share * jnp.expand_dims(drop, range(share.ndim - 1))).min(-1)


def _first_largest(score: jax.Array) -> jax.Array:
    """score.argmax(0), by a comparison with the maximum, which XLA vectorises on CPU (it does not vectorise argmax)."""
    index = jnp.expand_dims(jnp.arange(len(score), dtype=jnp.int32), range(1, score.ndim))
    return jnp.where(score == score.max(0)[None], index, len(score)).min(0)


def _nothing_left(model: BeliefModel, infinite: bool, n_points: int | None = None) -> Stage:
    """The bracket of stage 0 for N problems: 0, or the extreme rewards for ever if the horizon is infinite."""
    n, n_states, n_actions = model.reward.shape
    scale = 1 / (1 - model.discount) if infinite else jnp.zeros(n)
    least = scale * jnp.minimum(model.reward.min((1, 2)), 0)
    most = scale * jnp.maximum(model.reward.max((1, 2)), 0)
    n_points = n_states if n_points is None else n_points
    return (
        jnp.broadcast_to(least[:, None, None], (n, n_points, n_states)),
        jnp.broadcast_to(most[:, None], (n, n_points)),
        jnp.broadcast_to(most[:, None, None], (n, n_states, n_actions)),
    )


@jax.jit
def _last_stage(bounds: Bounds, points: jax.Array) -> Stage:
    """The last stage of the bounds of N problems, at more points."""
    upper = jax.vmap(lambda bounds, points: bounds.upper_value(points.T, 0))(bounds, points)
    return _padded(bounds, points.shape[1]).alpha[:, -1], upper, bounds.informed[:, -1]


def _sweep_length(model: BeliefModel) -> int:
    discount = float(model.discount.max())
    if discount >= 1:
        raise UserError("an infinite horizon needs a discount below 1")
    return max(2, math.ceil(math.log(CONTRACTION) / math.log(discount)))


def _padded(bounds: Bounds, n_points: int) -> Bounds:
    """The same bounds of N problems with points and vectors repeated up to `n_points`."""
    more = n_points - bounds.points.shape[1]

    def pad(leaf: jax.Array, axis: int) -> jax.Array:
        return jnp.pad(leaf, [(0, more if i == axis else 0) for i in range(leaf.ndim)], mode="edge")

    axes = {"points": 1, "alpha": 2, "alpha_action": 2, "upper": 2}
    return dataclasses.replace(bounds, **{name: pad(getattr(bounds, name), axis) for name, axis in axes.items()})


def _solve_all(
    model: BeliefModel, points: jax.Array, start: Stage, infinite: bool
) -> tuple[Bounds, np.ndarray, np.ndarray]:
    """Bounds of N problems and NumPy brackets; only the last stage is kept if the horizon is infinite."""
    bounds, lower, upper = _solved(model, points, start)
    if infinite:
        last = {name: getattr(bounds, name)[:, -1:] for name in ("alpha", "alpha_action", "upper", "informed")}
        bounds = dataclasses.replace(bounds, **last)
    return bounds, np.array(lower), np.array(upper)


@jax.jit
def _solved(model: BeliefModel, points: jax.Array, start: Stage) -> tuple[Bounds, jax.Array, jax.Array]:
    def one(arguments: tuple):
        bounds = solve_at_points(*arguments)
        return bounds, *bounds.bracket(arguments[0])

    return jax.lax.map(one, (model, points, start), batch_size=_side_by_side(model, points.shape[1]))


@functools.partial(jax.jit, static_argnames="n_new")
def _explore_all(model: BeliefModel, bounds: Bounds, keys: jax.Array, n_new: int) -> jax.Array:
    def one(arguments: tuple):
        return explore(*arguments, n_new)

    return jax.lax.map(one, (model, bounds, keys), batch_size=_side_by_side(model, bounds.points.shape[1]))


def _side_by_side(model: BeliefModel, n_points: int) -> int:
    """Number of problems that are solved in parallel, such that their tables fit `CACHED`."""
    n, n_actions, n_signals = model.kernel.shape[:3]
    return max(1, min(n, CACHED // (n_points**2 * n_actions * n_signals)))
