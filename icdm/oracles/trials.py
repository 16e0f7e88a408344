"""Certified values of one POMDP, by trials that follow the bounds.

A trial walks from the start belief: it takes the action with the largest upper bound, goes on to the signal with the
largest share of the bracket's width, and stops where the bracket is narrow enough; then it backs up both bounds at the
beliefs of its path, last belief first (heuristic search value iteration; Smith and Simmons 2005; Kurniawati, Hsu and
Lee 2008). With h decisions to go,

    lower: V_h(b) >= max_j b . alpha_j, beginning with the blind policies;
    upper: V_h(b) <= min(sawtooth(b), max_a b . F_h(., a)), values at visited beliefs interpolated by the sawtooth, and
           the fast informed bound F_h (Hauskrecht 2000).

Each backup is moved outwards by the largest error of its float64 arithmetic, so that brackets hold for real numbers. An
infinite horizon has one stage, which follows itself. Arrays are sparse where the problem's tables are. A joint is an
unnormalised belief; joints (S', Z) of an action have one column for each observation.
"""

import contextlib
import dataclasses
import time

import numpy as np

from icdm.errors import OutOfTime
from icdm.oracles.first_bounds import Model
from icdm.problems.sparse import SparsePOMDP

TARGET = 0.95  # a trial stops where the bracket is narrower than this share of the bracket at the start,
AHEAD = 5  # or than what discounting leaves of it after so many steps
COMPARED = 64  # states in which vectors are compared at a time
FIRST_PRUNING = 64  # number of vectors or points at which a stage is pruned first
REMEMBERED = 2**26  # numbers of the beliefs that are kept
GRACE = 2.0  # seconds
TINY, NEVER = 1e-290, 1e300  # a point's share of a joint is unbounded in states where the point is 0


@dataclasses.dataclass(frozen=True)
class Bracket:
    """The result of `bracket`.

    Attributes:
      lower, upper: bounds of the optimal value at the start.
      action: the first action with the largest lower bound.
      vectors: (J, S) alpha-vectors of the lower bound with all decisions to go.
      actions: (J,) the first action of each vector's plan.
      n_trials: number of trials.
    """

    lower: float
    upper: float
    action: int
    vectors: np.ndarray
    actions: np.ndarray
    n_trials: int


def bracket(problem: SparsePOMDP, horizon: int | None, *, tolerance: float, deadline: float) -> Bracket:
    """Brackets the optimal value at the start of a problem whose states are not observed.

    Trials go on until upper - lower <= tolerance x max(1, |lower|), or until the deadline; the bracket is valid but
    wider in the second case.

    Args:
      horizon: number of decisions, or None for an infinite horizon, which needs a discount below 1.
      deadline: on the clock of `time.monotonic`; the bounds that need no beliefs are computed even if it has passed,
        as far as they take `GRACE` seconds.

    Raises:
      TooLarge: a table or the bounds by decisions to go have too many entries.
    """
    model = Model(problem)
    first = model.first_bounds(horizon, max(deadline, time.monotonic() + GRACE))
    return _Search(model, horizon, *first, deadline).run(tolerance)


class Columns:
    """An array (S, n) that grows by columns."""

    def __init__(self, first: np.ndarray) -> None:
        self.store, self.n = first, first.shape[-1]

    @property
    def now(self) -> np.ndarray:
        return self.store[..., : self.n]

    def add(self, column: np.ndarray | float) -> None:
        if self.n == self.store.shape[-1]:
            more = np.zeros((*self.store.shape[:-1], max(8, self.n)), self.store.dtype)
            self.store = np.concatenate([self.store, more], -1)
        self.store[..., self.n] = column
        self.n += 1

    def keep(self, which: np.ndarray) -> None:
        self.store = np.ascontiguousarray(self.now[..., which])
        self.n = self.store.shape[-1]


class Stage:
    """Both bounds with one number of decisions to go; the bounds of joints (S', Z) concern some states, (S',).

    Attributes:
      vectors: columns (S, J), of the plans with first `actions` (J,).
      informed: (S, A) the fast informed bound.
      corner: (S,) the upper bound at the corners.
      inverse: columns (S, P), 1 / point, or NEVER where the point is 0; each has `support` (P,) other entries.
      points, upper: the points (S, P) and the upper bounds there (P,).
      drop: (P,) what a point's bound is below that of the corners.
      added: (P,) the change that added a point; `n_changes` have been made, the last one of a corner at `cornered`.
    """

    def __init__(self, blind: np.ndarray, informed: np.ndarray) -> None:
        none = np.zeros((blind.shape[0], 0))
        self.vectors, self.actions = Columns(blind), Columns(np.arange(blind.shape[1]))
        self.informed, self.corner = informed, informed.max(1)
        self.points, self.inverse = Columns(none), Columns(none)
        self.support, self.upper, self.drop, self.added = (Columns(none[0]) for _ in range(4))
        self.n_changes = self.cornered = 0
        self.full_vectors = self.full_points = FIRST_PRUNING

    def lower_value(self, joint: np.ndarray, states: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Lower bounds of the value of joints, times their mass, and the indices of their best vectors, each (Z,)."""
        score = joint.T @ self.vectors.now[states]
        best = score.argmax(1)
        return score[np.arange(best.size), best], best

    def upper_value(self, joint: np.ndarray, states: np.ndarray, since: int = 0) -> np.ndarray:
        """Upper bounds of the value of joints, times their mass, (Z,), from what has changed after `since` changes."""
        informed = (joint.T @ self.informed[states]).max(1)
        first = np.searchsorted(self.added.now, since, "right") if self.cornered <= since > 0 else 0
        inverse = self.inverse.now[:, first:][states]
        inside = np.flatnonzero((inverse < NEVER).sum(0) == self.support.now[first:])
        tooth = (_shares(joint, inverse[:, inside]) * self.drop.now[first:][inside]).min(1, initial=0)
        return np.minimum(informed, joint.T @ self.corner[states] + tooth)

    def add_vector(self, vector: np.ndarray, action: int) -> None:
        self.vectors.add(vector)
        self.actions.add(action)
        if self.vectors.n >= self.full_vectors:
            kept = _undominated(self.vectors.now)
            for columns in (self.vectors, self.actions):
                columns.keep(kept)
            self.full_vectors = max(FIRST_PRUNING, 2 * kept.size)

    def add_point(self, point: np.ndarray, upper: float) -> None:
        states = np.flatnonzero(point)
        self.n_changes += 1
        if states.size == 1:
            self.cornered = self.n_changes
            self.corner[states] = np.minimum(self.corner[states], upper / point[states])
            self.drop.now[:] = np.minimum(self.upper.now - self.corner @ self.points.now, 0)
            return
        inverse = np.full(point.shape, NEVER)
        inverse[states] = 1 / point[states]
        for columns, column in (
            (self.points, point),
            (self.inverse, inverse),
            (self.support, states.size),
            (self.upper, upper),
            (self.drop, min(upper - self.corner @ point, 0)),
            (self.added, self.n_changes),
        ):
            columns.add(column)
        if self.points.n >= self.full_points:
            self._prune_points()

    def _prune_points(self) -> None:
        """Drops points whose bound follows from those of the others."""
        kept = np.ones(self.points.n, bool)
        drop = self.drop.now
        for i in np.argsort(drop):
            point = self.points.now[:, i]
            states = np.flatnonzero(point)
            inverse = self.inverse.now[states]
            kept[i] = False
            inside = np.flatnonzero(kept & ((inverse < NEVER).sum(0) == self.support.now))
            tooth = (_shares(point[states, None], inverse[:, inside]) * drop[inside]).min(initial=0)
            kept[i] = drop[i] < tooth
        for columns in (self.points, self.inverse, self.support, self.upper, self.drop, self.added):
            columns.keep(np.flatnonzero(kept))
        self.full_points = max(FIRST_PRUNING, 2 * int(kept.sum()))


def _shares(joint: np.ndarray, inverse: np.ndarray) -> np.ndarray:
    """The largest c with c point <= joint in every state, (Z, P), for joints (S', Z) and inverse points (S', P)."""
    return np.stack([(mass[:, None] * inverse).min(0) for mass in np.maximum(joint, TINY).T])


def _undominated(vectors: np.ndarray) -> np.ndarray:
    """Indices of the columns (S, J) that no other column exceeds or equals in every state; the first of equal ones."""
    kept = np.ones(vectors.shape[1], bool)
    strongest = (vectors - vectors.mean(1, keepdims=True)).argmax(0)  # a state in which few others are above
    for j in np.argsort(vectors.sum(0), kind="stable"):
        kept[j] = False
        above = np.flatnonzero(kept & (vectors[strongest[j]] >= vectors[strongest[j], j]))
        for first in range(0, len(vectors) if above.size else 0, COMPARED):
            some = vectors[first : first + COMPARED]
            above = above[(some[:, above] >= some[:, j, None]).all(0)]
        kept[j] = not above.size
    return np.flatnonzero(kept)


class _Node:
    """A belief (S,) with `stage` to follow, bounds of Q that only fall (A,), and what follows each action so far."""

    def __init__(self, belief: np.ndarray, h: int, q_upper: np.ndarray) -> None:
        self.belief, self.h, self.q_upper = belief, h, q_upper
        self.states = np.flatnonzero(belief)
        self.joint = belief[self.states, None]
        self.successors, self.known, self.children = {}, {}, {}


class _Search:
    """The bounds of one problem while they are refined."""

    def __init__(
        self, model: Model, horizon: int | None, blind: np.ndarray, informed: np.ndarray, deadline: float
    ) -> None:
        self.model, self.infinite, self.deadline = model, horizon is None, deadline
        self.blind, self.informed = blind, informed
        self.stages = {}
        self.slack = model.rounding(horizon)
        self.forget()

    def forget(self) -> None:
        """Keeps the bounds but not the beliefs."""
        self.n_numbers = 0
        self.root = self.node(self.model.problem.initial, len(self.blind) - 1)

    def stage(self, h: int) -> Stage:
        if h not in self.stages:
            self.stages[h] = Stage(self.blind[h].copy(), self.informed[h])
        return self.stages[h]

    def after(self, h: int) -> int:
        """The stage after a decision in stage h."""
        return h if self.infinite else h - 1

    def run(self, tolerance: float) -> Bracket:
        n_trials, share = 0, min(TARGET, self.model.discount**AHEAD)
        with contextlib.suppress(OutOfTime):
            while True:
                lower, upper = self.at_start()
                wanted = tolerance * max(1, abs(lower))
                if upper - lower <= wanted:
                    break
                for node in reversed(self.trial(max(wanted, share * (upper - lower)))):
                    self.back_up(node)
                n_trials += 1
                if self.n_numbers > REMEMBERED:
                    self.forget()
        lower, upper = self.at_start()
        action = np.argmax([self.q_lower(self.root, a)[0] for a in range(self.model.n_actions)])
        stage = self.stage(self.root.h)
        return Bracket(lower, upper, int(action), stage.vectors.now.T.copy(), stage.actions.now.copy(), n_trials)

    def at_start(self) -> tuple[float, float]:
        stage, joint, states = self.stage(self.root.h), self.root.joint, self.root.states
        lower, upper = stage.lower_value(joint, states)[0][0], stage.upper_value(joint, states)[0]
        return float(lower - self.slack), float(upper + self.slack)

    def trial(self, target: float) -> list[_Node]:
        """The path of a trial."""
        node, path = self.root, []
        while True:
            path.append(node)
            target /= self.model.discount
            a, upper = self.best_action(node)
            states, joint, _ = self.successors(node, a)
            lower, _ = self.stage(self.after(node.h)).lower_value(joint, states)
            mass = joint.sum(0)
            excess = upper - lower - target * mass
            z = int(excess.argmax())
            if excess[z] <= 0:
                return path
            if (a, z) not in node.children:
                belief = np.zeros_like(node.belief)
                belief[states] = joint[:, z] / mass[z]
                node.children[a, z] = self.node(belief, self.after(node.h))
            node = node.children[a, z]

    def node(self, belief: np.ndarray, h: int) -> _Node:
        self.n_numbers += belief.size
        return _Node(belief, h, belief @ self.informed[h])

    def successors(self, node: _Node, action: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The possible next states, the joints (S', Z) with the possible observations, and these observations."""
        if action not in node.successors:
            prediction = self.model.forward[action] @ node.belief
            states = np.flatnonzero(prediction)
            joint = prediction[states, None] * self.model.emission[action][states]
            seen = np.flatnonzero(joint.any(0))
            node.successors[action] = states, np.ascontiguousarray(joint[:, seen]), seen
            self.n_numbers += joint.size
        return node.successors[action]

    def best_action(self, node: _Node) -> tuple[int, np.ndarray]:
        """The action with the largest upper bound of Q, after its backup, and the upper bounds of its joints (Z,).

        Raises:
          OutOfTime: the deadline has passed.
        """
        fresh = {}
        while (a := int(node.q_upper.argmax())) not in fresh:
            if time.monotonic() > self.deadline:
                raise OutOfTime
            fresh[a] = self.upper_after(node, a)
            q = node.belief @ self.model.reward[:, a] + self.model.discount * fresh[a].sum() + self.slack
            node.q_upper[a] = min(node.q_upper[a], q)
        return a, fresh[a]

    def upper_after(self, node: _Node, action: int) -> np.ndarray:
        """Upper bounds of the joints with the possible observations, (Z,); only what is new is looked at."""
        states, joint, _ = self.successors(node, action)
        stage = self.stage(self.after(node.h))
        known, since = node.known.get(action, (np.inf, 0))
        if since < stage.n_changes or since == 0:
            known = np.minimum(known, stage.upper_value(joint, states, since))
            node.known[action] = known, stage.n_changes
        return known

    def q_lower(self, node: _Node, action: int) -> tuple[float, np.ndarray, np.ndarray]:
        """Lower bound of Q of an action, the possible observations, and the best vector after each."""
        states, joint, seen = self.successors(node, action)
        lower, choice = self.stage(self.after(node.h)).lower_value(joint, states)
        return node.belief @ self.model.reward[:, action] + self.model.discount * lower.sum(), seen, choice

    def back_up(self, node: _Node) -> None:
        stage = self.stage(node.h)
        self.best_action(node)
        upper = node.q_upper.max()
        if upper < stage.upper_value(node.joint, node.states)[0] - self.slack:
            stage.add_point(node.belief, upper)
        best, plan = stage.lower_value(node.joint, node.states)[0][0] + self.slack, None
        for a in np.argsort(-node.q_upper):
            if node.q_upper[a] <= best:
                break
            value, seen, choice = self.q_lower(node, a)
            if value > best:
                best, plan = value, (a, seen, choice)
        if plan:
            a, seen, choice = plan
            choices = np.full(self.model.emission.shape[-1], np.bincount(choice).argmax())  # any plan is valid
            choices[seen] = choice
            after = self.stage(self.after(node.h)).vectors.now[:, choices]
            future = self.model.transition[a] @ (self.model.emission[a] * after).sum(1)
            stage.add_vector(self.model.reward[:, a] + self.model.discount * future - self.slack, a)
