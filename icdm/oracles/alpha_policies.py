"""Policies in pomdp-solve's `.alpha` format, and their values.

A file lists alpha-vectors: the number of an action on one line, one coefficient for each state on the next, and an
empty line. The policy takes the action of the vector with the largest b . alpha at its belief b.
"""

import heapq
import itertools
import math
import pathlib
import time

import numpy as np
from scipy import sparse

from icdm.errors import UserError
from icdm.files import write_text
from icdm.oracles.first_bounds import SETTLED, Model
from icdm.problems.sparse import SparsePOMDP

MERGED = 12  # beliefs are equal if they agree to so many digits
MOST_BELIEFS = 20_000
NEGLIGIBLE = 1e-6  # an episode ends when what follows is worth less than this share of its value
EPISODES = 4000  # simulated if the exact bracket stays open


def write_alpha(path: str | pathlib.Path, vectors: np.ndarray, actions: np.ndarray) -> None:
    """Writes vectors (J, S) with the first actions (J,) of their plans.

    Raises:
      UserError: the file cannot be written.
    """
    records = (f"{a}\n{' '.join(repr(float(x)) for x in vector)}\n\n" for a, vector in zip(actions, vectors))
    try:
        write_text(pathlib.Path(path), "".join(records))
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror})") from None


def read_alpha(path: str | pathlib.Path, n_states: int, n_actions: int) -> tuple[np.ndarray, np.ndarray]:
    """The vectors (J, S) and the actions (J,) of a file.

    Raises:
      UserError: the file cannot be read, or is not a list of vectors for so many states and actions.
    """
    try:
        numbers = np.array(pathlib.Path(path).read_text(encoding="utf-8").split(), float)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError:
        raise UserError(f"{path}: an .alpha file holds numbers only") from None
    if not numbers.size or numbers.size % (n_states + 1):
        raise UserError(
            f"{path}: holds {numbers.size:,} numbers; records of an action and {n_states:,} values were expected"
        )
    records = numbers.reshape(-1, n_states + 1)
    if not np.isfinite(records).all():
        raise UserError(f"{path}: holds a value that is not finite")
    for action in records[~np.isin(records[:, 0], np.arange(n_actions)), 0][:1]:
        raise UserError(f"{path}: {action:g} is not one of the actions 0 to {n_actions - 1}")
    return records[:, 1:], records[:, 0].astype(int)


class _Policy:
    """The policy of a list of vectors in one problem."""

    def __init__(self, problem: SparsePOMDP, vectors: np.ndarray, actions: np.ndarray, horizon: int | None) -> None:
        self.model = Model(problem)
        self.vectors, self.actions, self.horizon = vectors, actions, horizon

    def act(self, beliefs: np.ndarray) -> np.ndarray:
        """The actions at beliefs (N, S), (N,)."""
        return self.actions[(beliefs @ self.vectors.T).argmax(-1)]

    def exact(self, deadline: float) -> tuple[float, float]:
        """A bracket of the value at the start.

        The beliefs that the policy reaches are listed, the likeliest first, until there are no more, or
        `MOST_BELIEFS`; the values of those that are not listed lie in the range of all values. Beliefs that agree to
        `MERGED` digits are one.
        """
        model, start = self.model, self.model.problem.initial
        number = {np.round(start, MERGED).tobytes(): 0}
        beliefs, gains = [start], []
        rows, columns, chances = [], [], []
        waiting = [(-1.0, 0)]
        while waiting and len(beliefs) < MOST_BELIEFS and time.monotonic() < deadline:
            weight, i = heapq.heappop(waiting)
            a = int(self.act(beliefs[i]))
            gains.append((i, beliefs[i] @ model.reward[:, a]))
            joint = (model.forward[a] @ beliefs[i])[:, None] * model.emission[a]
            for column in joint.T[joint.any(0)]:
                chance = column.sum()
                belief = column / chance
                j = number.setdefault(np.round(belief, MERGED).tobytes(), len(beliefs))
                if j == len(beliefs):
                    beliefs.append(belief)
                    heapq.heappush(waiting, (weight * chance * model.discount, j))
                rows.append(i), columns.append(j), chances.append(chance)
        n = len(beliefs)
        follow = sparse.csr_array((chances, (rows, columns)), shape=(n, n))
        gain, listed = np.zeros((n, 1)), np.zeros((n, 1), bool)
        for i, value in gains:
            gain[i], listed[i] = value, True
        bounds = np.zeros((n, 2)) if self.horizon else np.tile(model.value_range(None), (n, 1))
        for decisions in itertools.count(1):
            rest = model.value_range(self.horizon and decisions)
            before, bounds = bounds, np.where(listed, gain + model.discount * (follow @ bounds), rest)
            change = np.abs(bounds - before)[0].max()
            if decisions == self.horizon or (not self.horizon and change <= SETTLED * np.abs(bounds).max()):
                break
            if time.monotonic() > deadline:
                return model.value_range(self.horizon) if self.horizon else tuple(map(float, bounds[0]))
        return tuple(map(float, bounds[0]))

    def simulated(self, deadline: float, n: int = EPISODES) -> tuple[float, float]:
        """A 95 % interval of the value at the start, from `n` episodes.

        Observations are drawn given the belief, and rewards are their means given the belief: the mean is that of
        episodes of states, with less variance. What follows the last step is bounded by the range of all values.
        """
        model, rng = self.model, np.random.default_rng(0)
        beliefs, total = np.tile(model.problem.initial, (n, 1)), np.zeros(n)
        weight, steps = 1.0, 0
        least, most = model.value_range(self.horizon)
        while steps != self.horizon and weight * (most - least) > NEGLIGIBLE * max(1, abs(total.mean())):
            if time.monotonic() > deadline:
                break
            action = self.act(beliefs)
            for a in np.unique(action):
                rows = np.flatnonzero(action == a)
                total[rows] += weight * (beliefs[rows] @ model.reward[:, a])
                prediction = (model.forward[a] @ beliefs[rows].T).T
                chance = np.cumsum(prediction @ model.emission[a], 1)
                drawn = (chance > rng.random((rows.size, 1)) * chance[:, -1:]).argmax(1)
                joint = prediction * model.emission[a][:, drawn].T
                beliefs[rows] = joint / joint.sum(1, keepdims=True)
            weight, steps = weight * model.discount, steps + 1
        rest = np.zeros(2) if steps == self.horizon else weight * np.array([least, most])
        half = 1.96 * total.std(ddof=1) / math.sqrt(n)
        return tuple(map(float, total.mean() + np.array([-half, half]) + rest))


def evaluate(
    problem: SparsePOMDP,
    vectors: np.ndarray,
    actions: np.ndarray,
    horizon: int | None,
    *,
    tolerance: float,
    deadline: float,
) -> tuple[float, float, int, str]:
    """Bounds of the value at the start of the policy of the vectors, its first action, and the method in words.

    The policy is the same at every step. The bounds are those of exact expectations if they are within the tolerance
    (as in `icdm.oracles.trials.bracket`), or else a 95 % interval from simulated episodes.
    """
    policy = _Policy(problem, vectors, actions, horizon)
    first = int(policy.act(problem.initial))
    lower, upper = policy.exact((time.monotonic() + deadline) / 2)
    if upper - lower <= tolerance * max(1, abs(lower)):
        return lower, upper, first, "value of the policy: exact expectation over its beliefs"
    lower, upper = policy.simulated(deadline)
    return lower, upper, first, f"value of the policy: 95 % interval from {EPISODES:,} simulated episodes"
