"""Oracles for ambiguous problems: alpha-maxmin expected utility over an ambiguity set of M models.

There are two objectives, which differ in general.

Recursive (Saghafian, "Ambiguous partially observable Markov decision processes", J. Econ. Theory 178,
2018): nature chooses the model anew at every step,

    V_h(b) = max_a { alpha min_m g_m + (1 - alpha) max_m g_m },
    g_m = b . r_m,a + gamma sum_z Pr(z | b, a, m) V_{h-1}(filter of model m).

`shown_recursive` is exact if the state is fully observed. `solve_recursive` interpolates along tangents at belief
points if it is partially observed (`belief_tree.tree_values` is exact for small problems of this kind).

Committed: the decider chooses a policy pi once, and its value is alpha min_m V^pi_m + (1 - alpha) max_m V^pi_m;
`committed` is exact for small problems.

All numbers are float64. Axis letters as in docs/axes.md, and W paths. A joint is an unnormalised belief, or an array
of them with the states first, (S, ...).
"""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

from icdm.errors import UserError
from icdm.oracles.alpha_vectors import alpha_vectors, prune
from icdm.oracles.belief import BeliefModel, belief_model
from icdm.oracles.point_based import add_distant, solve
from icdm.problems.ambiguous import AmbiguousPOMDP
from icdm.problems.mdp import MDP, expected_reward
from icdm.problems.pomdp import POMDP

GENERATION = 16  # belief points in one generation


def blend(q_M: jax.Array, pessimism: jax.Array | float, axis: int) -> jax.Array:
    """alpha min_m + (1 - alpha) max_m along the axis of the models."""
    return pessimism * q_M.min(axis) + (1 - pessimism) * q_M.max(axis)


def shown_recursive(models: MDP, pessimism: jax.Array | float) -> jax.Array:
    """Q of the recursive objective of fully observed problems, (N, T, S, A); exact.

    Args:
      models: N ambiguity sets of M MDPs, leading axes N and M.
      pessimism: (N,) or () alpha.
    """
    with jax.enable_x64(True):
        models = jax.tree.map(jnp.asarray, models)
        return _shown(models, jnp.broadcast_to(jnp.asarray(pessimism, float), models.initial.shape[:1]))


@jax.jit
@jax.vmap
def _shown(models: MDP, pessimism: jax.Array) -> jax.Array:
    reward_MSA = expected_reward(models)
    alive_MS = ~models.terminal

    def step(v_S: jax.Array, _: None):
        future_MSA = jnp.einsum("mast,t,mt->msa", models.transition, v_S, alive_MS)
        future_MSA = jnp.where(alive_MS[..., None], future_MSA, 0)
        q_SA = blend(reward_MSA + models.discount[0] * future_MSA, pessimism, 0)
        return q_SA.max(-1), q_SA

    start = jnp.zeros_like(models.initial[0])
    return jax.lax.scan(step, start, length=models.horizon)[1][::-1]


@functools.partial(jax.tree_util.register_dataclass, data_fields=["points", "excess", "alpha"], meta_fields=[])
@dataclasses.dataclass(frozen=True)
class Interpolated:
    """V_h(b) = max_j b . alpha_h,j + b . excess_h,i(b), for one problem or N; i(b) is the point nearest to b.

    The alpha-vectors are a lower bound of the nominal model's value and contain the kinks of V. The difference between
    V and this bound is smooth, and is approximated by its tangent at the nearest of P beliefs.

    Attributes:
      points: (P, S), the corners first.
      excess: (U, P, S) tangents.
      alpha: (U, J, S).
    """

    points: jax.Array
    excess: jax.Array
    alpha: jax.Array

    def value(self, joint: jax.Array, stage: jax.Array | int) -> jax.Array:
        """V_h of joints (S, ...), times their mass, with h = `stage` decisions to go."""
        return _value(joint, nearest(joint, self.points), self.excess[stage], self.alpha[stage])

    def model_q_values(self, models: BeliefModel, belief: jax.Array, stage: jax.Array | int) -> jax.Array:
        """g_m of each action under each model with h = `stage` decisions to go, (M, A)."""
        joint = jnp.einsum("s,mazst->tmaz", belief, models.kernel)
        future = self.value(joint, stage - 1).sum(-1)
        return jnp.einsum("s,msa->ma", belief, models.reward) + models.discount[0] * future

    def q_values(
        self, models: BeliefModel, pessimism: jax.Array | float, belief: jax.Array, stage: jax.Array | int
    ) -> jax.Array:
        """Q_h(belief, a) with h = `stage` decisions to go, (A,)."""
        return blend(self.model_q_values(models, belief, stage), pessimism, 0)


def nearest(joint: jax.Array, points: jax.Array) -> jax.Array:
    """Index of the point with the least Euclidean distance to each joint (S, ...) after normalisation."""
    half_P = (points**2).sum(-1) / 2
    closeness = jnp.tensordot(points, joint, 1) - jnp.multiply.outer(half_P, joint.sum(0))
    return closeness.argmax(0)


def _value(joint: jax.Array, index: jax.Array, excess_PS: jax.Array, alpha_JS: jax.Array) -> jax.Array:
    """V of joints (S, ...), times their mass; `index` names the nearest point of each."""
    return jnp.tensordot(alpha_JS, joint, 1).max(0) + (joint * jnp.moveaxis(excess_PS[index], -1, 0)).sum(0)


@dataclasses.dataclass(frozen=True)
class RecursiveSolution:
    """The recursive objective of N problems.

    Attributes:
      interpolated: the value functions.
      value: (N,) values at the start.
      error: (N,) estimated errors of these values.
    """

    interpolated: Interpolated
    value: np.ndarray
    error: np.ndarray


def solve_recursive(
    problem: AmbiguousPOMDP, key: jax.Array, *, generations: int = 4, nominal_points: int = 112, paths: int = 128
) -> RecursiveSolution:
    """The recursive objective of N partially observed problems, on `generations` x 16 points and the corners.

    Each generation of points consists of the successors of the previous one, under any action, signal and model, with
    the largest distance x probability, the distance from all earlier points.

    Args:
      nominal_points: belief points of the nominal model's lower bound, in addition to the corners.
      paths: number of paths of `bellman_residual`; the error is nan if it is 0.

    Raises:
      UserError: fewer than 1 generation.
    """
    if generations < 1:
        raise UserError(f"{generations} generations of belief points: give at least 1")
    models = belief_model(problem.models)
    with jax.enable_x64(True):
        models = jax.tree.map(jnp.asarray, models)
        nominal = jax.tree.map(lambda leaf: leaf[:, problem.nominal_index], models)
        pessimism = jnp.broadcast_to(jnp.asarray(problem.pessimism, float), models.reward.shape[:1])
        points = spread_points(models, problem.nominal_index, generations)
        most = nominal_points + points.shape[-1]
        bounds = solve(nominal, key, tolerance=1e-12, time_limit=np.inf, most_points=most).bounds
        interpolated, value = recursive_at_points(models, problem.nominal_index, pessimism, points, bounds.alpha)
        error = np.full(value.size, np.nan)
        if paths:
            keys = jax.random.split(key, value.size * paths).reshape(value.size, paths)
            error = bellman_residual(models, problem.nominal_index, pessimism, interpolated, keys)
    return RecursiveSolution(jax.tree.map(np.asarray, interpolated), np.asarray(value), np.asarray(error))


@functools.partial(jax.jit, static_argnums=1)
def recursive_at_points(
    models: BeliefModel, nominal: int, pessimism: jax.Array, points: jax.Array, alpha: jax.Array
) -> tuple[Interpolated, jax.Array]:
    """The recursion of N problems on points (N, P, S) over alpha-vectors (N, U, J, S), and its start values (N,).

    V's tangent at a point is the alpha-blend of two vectors: those of the best action under its worst model and under
    its best model.
    """

    def one(arguments: tuple):
        models, pessimism, points, alpha = arguments
        joint = jnp.einsum("ps,mazst->tpmaz", points, models.kernel)
        index = nearest(joint, points)
        gain = jnp.einsum("ps,msa->pma", points, models.reward)
        discount = models.discount[0]

        def step(excess_PS: jax.Array, stage: tuple[jax.Array, jax.Array]):
            before, now = stage
            vector = before[jnp.tensordot(before, joint, 1).argmax(0)] + excess_PS[index]  # (P, M, A, Z, S)
            q_PMA = gain + discount * jnp.einsum("tpmaz,pmazt->pma", joint, vector)
            action_P = blend(q_PMA, pessimism, 1).argmax(-1)
            q_PM = jnp.take_along_axis(q_PMA, action_P[:, None, None], 2)[..., 0]

            def tangent(model_P: jax.Array) -> jax.Array:
                future = vector[jnp.arange(points.shape[0]), model_P, action_P]
                future_PS = jnp.einsum("pzst,pzt->ps", models.kernel[model_P, action_P], future)
                return models.reward[model_P, :, action_P] + discount * future_PS

            tangent_PS = pessimism * tangent(q_PM.argmin(1)) + (1 - pessimism) * tangent(q_PM.argmax(1))
            excess_PS = tangent_PS - now[(points @ now.T).argmax(1)]
            return excess_PS, excess_PS

        start = jnp.zeros_like(points)
        _, excess = jax.lax.scan(step, start, (alpha[:-1], alpha[1:]))
        interpolated = Interpolated(points, jnp.concatenate([start[None], excess]), alpha)
        return interpolated, interpolated.value(models.first[nominal].T, models.horizon).sum()

    return jax.lax.map(one, (models, pessimism, points, alpha))


@functools.partial(jax.jit, static_argnums=1)
def bellman_residual(
    models: BeliefModel, nominal: int, pessimism: jax.Array, interpolated: Interpolated, keys_NW: jax.Array
) -> jax.Array:
    """Estimated error of the values of N problems at the start, (N,): E sum_t gamma^t |(Bellman backup of V) - V|(b_t).

    The expectation is over paths (one per key) of the best action under the worst model with probability alpha, and
    else under the best model. The error of V at the start is this sum to first order.
    """

    def one(arguments: tuple):
        models, pessimism, interpolated, keys_W = arguments

        def successor(joint_SZ: jax.Array, key: jax.Array) -> jax.Array:
            signal = jax.random.categorical(key, jnp.log(joint_SZ.sum(0)))
            return joint_SZ[:, signal] / joint_SZ[:, signal].sum()

        def path(key: jax.Array) -> jax.Array:
            def step(belief_S: jax.Array, step: tuple[jax.Array, jax.Array]):
                t, key = step
                model_key, signal_key = jax.random.split(key)
                stage = models.horizon - t
                q_MA = interpolated.model_q_values(models, belief_S, stage)
                q_A = blend(q_MA, pessimism, 0)
                action = q_A.argmax()
                pessimistic = jax.random.uniform(model_key) < pessimism
                model = jnp.where(pessimistic, q_MA[:, action].argmin(), q_MA[:, action].argmax())
                residual = jnp.abs(q_A.max() - interpolated.value(belief_S, stage))
                joint_SZ = jnp.einsum("s,zst->tz", belief_S, models.kernel[model, action])
                alive = joint_SZ.sum() > 1e-12  # the path stops if the episode has ended
                next_S = jnp.where(alive, successor(joint_SZ, signal_key), belief_S)
                return next_S, (models.discount[0] ** t * residual, alive)

            first_key, key = jax.random.split(key)
            steps = jnp.arange(models.horizon), jax.random.split(key, models.horizon)
            _, (residual_T, alive_T) = jax.lax.scan(step, successor(models.first[nominal].T, first_key), steps)
            reached_T = jnp.concatenate([jnp.ones(1, bool), jnp.cumprod(alive_T)[:-1].astype(bool)])
            return jnp.where(reached_T, residual_T, 0).sum()

        return jax.vmap(path)(keys_W).mean()

    return jax.lax.map(one, (models, pessimism, interpolated, keys_NW))


@functools.partial(jax.jit, static_argnums=(1, 2))
def spread_points(models: BeliefModel, nominal: int, generations: int) -> jax.Array:
    """Belief points of N problems, (N, S + generations x 16, S), the corners first."""
    n_states = models.reward.shape[-2]

    def one(models: BeliefModel):
        def generation(points: jax.Array, index: jax.Array):
            frontier = jax.lax.dynamic_slice_in_dim(points, n_states + index * GENERATION, GENERATION)
            joint = jnp.einsum("ps,mazst->pmazt", frontier, models.kernel).reshape(-1, n_states)
            chance = joint.sum(-1)
            new = add_distant(points, _normalised(joint), jnp.where(chance > 1e-12, chance, 0), GENERATION)[
                -GENERATION:
            ]
            return jax.lax.dynamic_update_slice_in_dim(points, new, n_states + (index + 1) * GENERATION, 0), None

        first = models.first[nominal]
        seen = jnp.argsort(-first.sum(-1))[jnp.arange(GENERATION) % first.shape[0]]
        corners = jnp.eye(n_states)
        unfilled = jnp.broadcast_to(corners[0], ((generations - 1) * GENERATION, n_states))
        points = jnp.concatenate([corners, _normalised(first[seen]), unfilled])
        return jax.lax.scan(generation, points, jnp.arange(generations - 1))[0]

    return jax.lax.map(one, models)


def _normalised(joint: jax.Array) -> jax.Array:
    total = joint.sum(-1, keepdims=True)
    return jnp.where(total > 0, joint / jnp.where(total > 0, total, 1), 1 / joint.shape[-1])


@dataclasses.dataclass(frozen=True)
class Committed:
    """A policy that the decider chooses once for all models.

    Attributes:
      value: alpha min_m V_m + (1 - alpha) max_m V_m.
      model_values: (M,) V_m, the policy's value under each model.
      action: its first action, or the most probable one if the policy is a mixture of plans.
      n_plans: number of plans in the mixture; 1 for a deterministic policy.
    """

    value: float
    model_values: np.ndarray
    action: int
    n_plans: int


def committed(problem: AmbiguousPOMDP, *, most: int = 3000, deadline: float = math.inf) -> Committed:
    """The best committed policy of one ambiguous problem, exact.

    Every plan has one alpha-vector over the pairs (m, s) of model and state, which gives its value under each model.
    The policy may be a mixture of plans. For each candidate of the best model, a linear programme finds the mixture
    with the largest alpha min_m V_m + (1 - alpha) V_best.

    Raises:
      TooLarge: one pruning step has more than `most` candidate vectors per signal (see `alpha_vectors`).
      OutOfTime: the deadline, on the clock of `time.monotonic`, has passed.
    """
    joint = belief_model(_one_of(problem.models))
    n_models = problem.n_models
    plans = alpha_vectors(joint, most=most, deadline=deadline)[-1]
    by_observation = joint.first.reshape(joint.first.shape[0], n_models, -1)
    vectors = plans.vectors.reshape(len(plans.actions), n_models, -1)
    values_OJM = np.einsum("oms,jms->ojm", by_observation, vectors)
    seen = by_observation.any((1, 2))
    total = np.zeros((1, n_models))
    for values_JM in values_OJM[seen]:
        total = prune((total[:, None] + prune(values_JM, deadline)).reshape(-1, n_models), deadline)
    value, weight = max(
        (_best_mixture(total, float(problem.pessimism), m) for m in range(n_models)), key=lambda x: x[0]
    )
    model_values = weight @ total
    first = values_OJM[seen][0]
    likeliest = np.abs(first - total[weight.argmax()]).sum(1).argmin()
    return Committed(float(value), model_values, int(plans.actions[likeliest]), int((weight > 1e-9).sum()))


def _best_mixture(values_JM: np.ndarray, pessimism: float, best: int) -> tuple[float, np.ndarray]:
    """max over mixtures mu of alpha min_m mu . V_m + (1 - alpha) mu . V_best, and its mu (J,)."""
    from scipy.optimize import linprog  # slow to import, and seldom needed

    n_plans, n_models = values_JM.shape
    result = linprog(
        -np.r_[(1 - pessimism) * values_JM[:, best], pessimism],
        A_ub=np.c_[-values_JM.T, np.ones(n_models)],
        b_ub=np.zeros(n_models),
        A_eq=np.r_[np.ones(n_plans), 0.0][None],
        b_eq=[1.0],
        bounds=[(0, None)] * n_plans + [(None, None)],
        method="highs",
    )
    weight = np.maximum(result.x[:-1], 0)
    weight /= weight.sum()
    values_M = weight @ values_JM
    return pessimism * values_M.min() + (1 - pessimism) * values_M.max(), weight


def _one_of(models: POMDP) -> POMDP:
    """One POMDP over states (m, s) whose m never changes; its first distributions are those of the models."""
    n_models, n_actions, n_states, _ = models.mdp.transition.shape
    mdp = jax.tree.map(np.asarray, models.mdp)
    apart = np.eye(n_models)
    transition = np.einsum("mast,mn->amsnt", mdp.transition, apart).reshape(n_actions, n_models * n_states, -1)
    whole = dataclasses.replace(
        mdp,
        transition=transition,
        reward=mdp.reward.reshape(-1, n_actions),
        arrival_reward=mdp.arrival_reward.ravel(),
        initial=mdp.initial.ravel(),
        terminal=mdp.terminal.ravel(),
        discount=mdp.discount[0],
    )
    emission = np.asarray(models.emission).transpose(1, 0, 2, 3).reshape(n_actions, n_models * n_states, -1)
    first = np.asarray(models.first_emission).reshape(n_models * n_states, -1)
    return dataclasses.replace(models, mdp=whole, emission=emission, first_emission=first)
