"""Certified values of one POMDP, by trials that follow the bounds.

A trial walks from the start belief: it takes the action with the largest upper bound, goes on to the signal with the
largest share of the bracket's width, and stops where the bracket is narrow enough; then it backs up both bounds at the
beliefs of its path, last belief first (heuristic search value iteration; Smith and Simmons 2005; Kurniawati, Hsu and Lee
2008). With h decisions to go,

    lower: V_h(b) >= max_j b . alpha_j, beginning with the blind policies;
    upper: V_h(b) <= min(sawtooth(b), max_a b . F_h(., a)), values at visited beliefs interpolated by the sawtooth, and
           the fast informed bound F_h (Hauskrecht 2000).

Each backup is moved outwards by the largest error of its float64 arithmetic, so that brackets hold for real numbers. An
infinite horizon has one stage, which follows itself. Arrays are sparse where the problem's tables are. A joint is an
unnormalised belief; joints (S', Z) of an action have one column for each observation.
"""

import dataclasses
import math
import time

import numpy as np

from icdm.oracles.first_bounds import Model
from icdm.problems.sparse import SparsePOMDP

TARGET = 0.5  # a trial stops where the bracket is narrower than this share of the bracket at the start
FIRST_PRUNING = 64  # number of vectors or points at which a stage is pruned first
REMEMBERED = 2**25  # numbers of the beliefs whose bounds of Q are kept
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
    return _Search(model, horizon, *first).run(tolerance, deadline)


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
    """

    def __init__(self, blind: np.ndarray, informed: np.ndarray) -> None:
        none = np.zeros((blind.shape[0], 0))
        self.vectors, self.actions = Columns(blind), Columns(np.arange(blind.shape[1]))
        self.informed, self.corner = informed, informed.max(1)
        self.points, self.inverse = Columns(none), Columns(none)
        self.support, self.upper, self.drop = (Columns(none[0]) for _ in range(3))
        self.full_vectors = self.full_points = FIRST_PRUNING

    def lower_value(self, joint: np.ndarray, states: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Lower bounds of the value of joints, times their mass, and the indices of their best vectors, each (Z,)."""
        score = joint.T @ self.vectors.now[states]
        best = score.argmax(1)
        return score[np.arange(best.size), best], best

    def upper_value(self, joint: np.ndarray, states: np.ndarray) -> np.ndarray:
        """Upper bounds of the value of joints, times their mass, (Z,)."""
        informed = (joint.T @ self.informed[states]).max(1)
        if not self.points.n:
            return informed
        return np.minimum(
            informed, joint.T @ self.corner[states] + (self._shares(joint, states) * self.drop.now).min(1)
        )

    def _shares(self, joint: np.ndarray, states: np.ndarray) -> np.ndarray:
        """The largest c with c point <= joint in every state, (Z, P)."""
        inverse = self.inverse.now[states]
        share = np.full((joint.shape[1], self.points.n), np.inf)
        for mass, per_mass in zip(np.maximum(joint, TINY), inverse):
            np.minimum(share, np.multiply.outer(mass, per_mass), out=share)
        share[:, (inverse < NEVER).sum(0) < self.support.now] = 0
        return share

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
        if states.size == 1:
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
        ):
            columns.add(column)
        if self.points.n >= self.full_points:
            self._prune_points()

    def _prune_points(self) -> None:
        """Drops points whose bound follows from those of the others."""
        kept = np.ones(self.points.n, bool)
        drop = self.drop.now
        for i in np.argsort(drop):
            if not kept[i]:
                continue
            states = np.flatnonzero(self.points.now[:, i])
            share = self._shares(self.points.now[states, i, None], states)[0]
            share[i] = 0
            kept[i] = drop[i] < (share * drop)[kept].min()
        for columns in (self.points, self.inverse, self.support, self.upper, self.drop):
            columns.keep(np.flatnonzero(kept))
        self.full_points = max(FIRST_PRUNING, 2 * int(kept.sum()))


def _undominated(vectors: np.ndarray) -> np.ndarray:
    """Indices of the columns (S, J) that no other column exceeds or equals in every state; the first of equal ones."""
    kept = np.ones(vectors.shape[1], bool)
    for j in np.argsort(vectors.sum(0), kind="stable"):
        above = (vectors >= vectors[:, j, None]).all(0) & kept
        above[j] = False
        kept[j] = not above.any()
    return np.flatnonzero(kept)


class _Search:
    """The bounds of one problem while they are refined."""

    def __init__(self, model: Model, horizon: int | None, blind: np.ndarray, informed: np.ndarray) -> None:
        self.model, self.infinite = model, horizon is None
        self.blind, self.informed = blind, informed
        self.stages = {}
        self.slack = model.rounding(horizon)
        self.q_upper = {}  # upper bounds of Q at visited beliefs; they only fall
        self.start = model.problem.initial

    def stage(self, h: int) -> Stage:
        if h not in self.stages:
            self.stages[h] = Stage(self.blind[h].copy(), self.informed[h])
        return self.stages[h]

    def after(self, h: int) -> int:
        """The stage after a decision in stage h."""
        return h if self.infinite else h - 1

    def run(self, tolerance: float, deadline: float) -> Bracket:
        h = len(self.blind) - 1
        n_trials = 0
        while True:
            lower, upper = self.at_start()
            wanted = tolerance * max(1, abs(lower))
            if upper - lower <= wanted or time.monotonic() > deadline:
                break
            path = self.trial(h, max(wanted, TARGET * (upper - lower)), deadline)
            for belief, stage in reversed(path):
                self.back_up(belief, stage)
            n_trials += 1
        stage = self.stage(h)
        q_lower = [self.q_lower(self.start, h, a)[0] for a in range(self.model.n_actions)]
        vectors, actions = stage.vectors.now.T.copy(), stage.actions.now.copy()
        return Bracket(lower, upper, int(np.argmax(q_lower)), vectors, actions, n_trials)

    def at_start(self) -> tuple[float, float]:
        states = np.flatnonzero(self.start)
        joint = self.start[states, None]
        lower, _ = self.stage(len(self.blind) - 1).lower_value(joint, states)
        return float(lower[0] - self.slack), float(
            self.stage(len(self.blind) - 1).upper_value(joint, states)[0] + self.slack
        )

    def trial(self, h: int, target: float, deadline: float) -> list[tuple[np.ndarray, int]]:
        """The beliefs and stages on the path of a trial."""
        belief, path = self.start, []
        while time.monotonic() < deadline:
            path.append((belief, h))
            target /= self.model.discount
            _, states, joint, upper = self.best_action(belief, h)
            h = self.after(h)
            lower, _ = self.stage(h).lower_value(joint, states)
            mass = joint.sum(0)
            excess = upper - lower - target * mass
            z = excess.argmax()
            if excess[z] <= 0:
                break
            belief = np.zeros_like(belief)
            belief[states] = joint[:, z] / mass[z]
        return path

    def joints(self, belief: np.ndarray, action: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The possible next states, the joints (S', Z) with the possible observations, and these observations."""
        n_states = self.model.n_states
        prediction = self.model.forward[action] @ belief
        states = np.flatnonzero(prediction)
        joint = prediction[states, None] * self.model.emission[action][states]
        seen = np.flatnonzero(joint.any(0))
        return states, joint[:, seen], seen

    def best_action(self, belief: np.ndarray, h: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Upper bounds of Q (A,), and possible states, joints and the upper bounds of these for its best action."""
        key = h, belief.tobytes()
        q = self.q_upper.get(key)
        if q is None:
            if len(self.q_upper) * belief.size > REMEMBERED:
                self.q_upper.clear()
            q = self.q_upper[key] = belief @ self.stage(h).informed
        fresh = np.zeros(q.size, bool)
        known = {}
        while not fresh[a := int(q.argmax())]:
            states, joint, _ = self.joints(belief, a)
            upper = self.stage(self.after(h)).upper_value(joint, states)
            q[a] = min(q[a], belief @ self.model.reward[:, a] + self.model.discount * upper.sum() + self.slack)
            fresh[a] = True
            known[a] = states, joint, upper
        return q, *known[a]

    def q_lower(self, belief: np.ndarray, h: int, action: int) -> tuple[float, np.ndarray, np.ndarray]:
        """Lower bound of Q of an action, the possible observations, and the best vector after each."""
        states, joint, seen = self.joints(belief, action)
        lower, choice = self.stage(self.after(h)).lower_value(joint, states)
        return belief @ self.model.reward[:, action] + self.model.discount * lower.sum(), seen, choice

    def back_up(self, belief: np.ndarray, h: int) -> None:
        stage = self.stage(h)
        states = np.flatnonzero(belief)
        joint = belief[states, None]
        q, *_ = self.best_action(belief, h)
        if q.max() < stage.upper_value(joint, states)[0] - self.slack:
            stage.add_point(belief, q.max())
        best, plan = stage.lower_value(joint, states)[0][0] + self.slack, None
        for a in np.argsort(-q):
            if q[a] <= best:
                break
            value, seen, choice = self.q_lower(belief, h, a)
            if value > best:
                best, plan = value, (a, seen, choice)
        if plan:
            a, seen, choice = plan
            whatever = np.bincount(choice).argmax()  # after observations that this belief rules out
            choices = np.full(self.model.emission.shape[-1], whatever)
            choices[seen] = choice
            after = self.stage(self.after(h)).vectors.now[:, choices]
            future = self.model.transition[a] @ (self.model.emission[a] * after).sum(1)
            stage.add_vector(self.model.reward[:, a] + self.model.discount * future - self.slack, a)
