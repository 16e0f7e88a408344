"""Bounds of a POMDP's values that need no beliefs: blind policies, QMDP and the fast informed bound.

With h decisions to go, for every belief b,

    lower: max_a b . B_h(., a),   B_h(s, a) = r(s, a) + gamma sum_s' P(s'|s,a) B_{h-1}(s', a),   always the same action;
    upper: max_a b . F_h(., a),   F_h = r + gamma sum_z max_a' sum_s' P(s'|s,a) O(z|a,s') F_{h-1}(s', a')

(the fast informed bound, Hauskrecht 2000), or with the maximum inside the sum over s' (QMDP; Littman, Cassandra,
Kaelbling 1995), which is cheaper. Each backup adds the largest error of its float64 arithmetic, so the bounds hold for
real numbers.
"""

import functools
import math
import time
from collections.abc import Callable

import numpy as np

from icdm.errors import OutOfTime, TooLarge, UserError
from icdm.problems.sparse import LARGEST, SparsePOMDP

SETTLED = 1e-12  # an infinite recursion ends when a sweep changes all values alike, to this share of the largest
DENSE = 128  # most states with dense predictions
AT_ONCE = 2**21  # entries of an intermediate array of the fast informed bound
PRODUCTS = 128  # products by entry, at most, so that a deadline is kept


class Model:
    """The arrays of a POMDP as the backups use them.

    Attributes:
      forward: A arrays (S', S), the transposed transitions: forward[a] @ b is a prediction; CSR above `DENSE` states.
      transition: A arrays (S, S') CSR.
      reward: (S, A).
    """

    def __init__(self, problem: SparsePOMDP) -> None:
        self.problem = problem
        self.reward, self.discount = problem.reward, problem.discount
        self.n_states, self.n_actions = self.reward.shape
        self.transition = problem.transition
        by_next = [table.T.tocsr() for table in problem.transition]
        self.forward = [table.toarray() for table in by_next] if self.n_states <= DENSE else by_next
        # rows may miss 1 a little, so that a backup of a constant is between these multiples of it
        masses = [
            [table @ np.ones(table.shape[1]) for table in tables] for tables in (self.transition, problem.emission)
        ]
        self.contraction, self.modulus = (
            self.discount * math.prod(float(extreme(mass)) for mass in masses) for extreme in (np.min, np.max)
        )

    @functools.cached_property
    def emission(self) -> np.ndarray:
        """Probabilities of the observations (A, S', O).

        Raises:
          TooLarge: there are more than `LARGEST`.
        """
        size = self.problem.n_actions * self.problem.n_states * self.problem.n_observations
        if size > LARGEST:
            raise TooLarge(size, LARGEST, "probabilities of an observation by action and state")
        return np.stack([table.toarray() for table in self.problem.emission])

    def value_range(self, horizon: int | None) -> tuple[float, float]:
        """Bounds of the value of any policy at any belief, from the largest and the smallest reward and 0."""
        if horizon is None:
            if self.modulus >= 1:
                raise UserError("an infinite horizon needs a discount below 1: give --discount")
            steps = 1 / (1 - self.modulus)
        elif self.modulus < 1:
            steps = -math.expm1(horizon * math.log(self.modulus)) / (1 - self.modulus)
        else:
            steps = horizon * self.modulus**horizon
        least, most = steps * float(min(self.reward.min(), 0)), steps * float(max(self.reward.max(), 0))
        if not math.isfinite(most - least):
            raise UserError("the rewards are too large: their sums are no finite numbers")
        return least, most

    def rounding(self, horizon: int | None) -> float:
        """Largest error of one backup: all sums have non-negative weights with a sum of 1."""
        terms = 2 * self.n_states + self.problem.n_observations + 16
        return 4 * np.finfo(float).eps * terms * max(map(abs, self.value_range(horizon)))

    def blind(self, value: np.ndarray) -> np.ndarray:
        """One backup of B, (S, A)."""
        return self.reward + self.discount * np.stack([t @ value[:, a] for a, t in enumerate(self.transition)], 1)

    def fully_observed(self, value: np.ndarray) -> np.ndarray:
        """One backup of QMDP, (S, A)."""
        best = value.max(1)
        return self.reward + self.discount * np.stack([table @ best for table in self.transition], 1)

    def informed(self, value: np.ndarray, deadline: float) -> np.ndarray:
        """One backup of F, (S, A).

        Raises:
          OutOfTime: the deadline, on the clock of `time.monotonic`, has passed.
        """
        after = np.zeros_like(value)
        for a, table in enumerate(self.transition):
            width = max(1, AT_ONCE // max(value.size, table.nnz * self.n_actions // PRODUCTS))
            for first in range(0, self.emission.shape[-1], width):
                if time.monotonic() > deadline:
                    raise OutOfTime
                chance = self.emission[a][:, first : first + width]
                joint = table @ (chance[:, :, None] * value[:, None, :]).reshape(self.n_states, -1)
                after[:, a] += joint.reshape(self.n_states, chance.shape[1], -1).max(2).sum(1)
        return self.reward + self.discount * after

    def observed_bounds(self, horizon: int | None, deadline: float) -> tuple[np.ndarray, np.ndarray]:
        """Lower and upper bounds of Q if the state is observed, with all decisions to go, each (S, A).

        Raises:
          OutOfTime: the deadline has passed before the sweeps of a finite horizon.
        """
        if horizon is None:
            return tuple(self._settled(self.fully_observed, sign, deadline) for sign in (-1, 1))
        value = np.zeros_like(self.reward)
        for _ in range(horizon):
            if time.monotonic() > deadline:
                raise OutOfTime
            value = self.fully_observed(value)
        return value, value

    def first_bounds(self, horizon: int | None, deadline: float) -> tuple[np.ndarray, np.ndarray]:
        """B and F with 0, 1, ..., horizon decisions to go, (H + 1, S, A); one stage, valid for ever, if it is None.

        The sweeps end before the deadline (on the clock of `time.monotonic`), those of an infinite horizon and the fast
        informed bound after half the time; what they have not reached is bounded by the largest and smallest reward.

        Raises:
          TooLarge: the stages have too many entries.
        """
        now = time.monotonic()
        blind_until, observed_until, informed_until = (
            now + share * (deadline - now) for share in (1 / 6, 1 / 3, 1 / 2)
        )
        slack = self.rounding(horizon)
        if horizon is None:
            blind = self._settled(self.blind, -1, blind_until)
            upper = self._settled(self.fully_observed, 1, observed_until)
            upper = self._settled(lambda value: self.informed(value, informed_until), 1, informed_until, upper)
            return blind[None], upper[None]
        size = (horizon + 1) * self.reward.size
        if size > LARGEST:
            raise TooLarge(size, LARGEST, "bounds by decisions to go, state and action (--infinite needs one stage)")
        blind, upper = np.zeros((2, horizon + 1, *self.reward.shape))
        for h in range(1, horizon + 1):
            if time.monotonic() > deadline:
                blind[h:], upper[h:] = self.value_range(horizon)
                break
            blind[h] = self.blind(blind[h - 1]) - slack
            try:
                upper[h] = self.informed(upper[h - 1], informed_until) + slack
            except OutOfTime:
                upper[h] = self.fully_observed(upper[h - 1]) + slack
        return blind, upper

    def _settled(
        self, backup: Callable[[np.ndarray], np.ndarray], sign: int, deadline: float, start: np.ndarray | None = None
    ) -> np.ndarray:
        """An upper (sign 1) or lower (sign -1) bound of the backup's fixed point, (S, A), narrow once it has settled.

        If a sweep changes a value by at most c, then value + c / (1 - gamma) bounds the fixed point (MacQueen 1966;
        Porteus 1971). `start`, an upper bound, is the result if the deadline has passed before a sweep.
        """
        slack = sign * self.rounding(None)
        value = np.zeros_like(self.reward) if start is None else start
        bound = value + self.value_range(None)[(sign + 1) // 2] if start is None else start
        while time.monotonic() < deadline:
            try:
                after = backup(value) + slack
            except OutOfTime:
                break
            change = sign * (sign * (after - value)).max()
            # a shift outwards has to hold under the largest multiple of a constant, one inwards under the least
            bound = value + change / (1 - (self.modulus if sign * change > 0 else self.contraction))
            settled = np.ptp(after - value) <= SETTLED * np.abs(after).max()
            value = after
            if settled:
                break
        return bound
