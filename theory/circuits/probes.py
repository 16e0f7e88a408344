"""Linear probes of a stream: ridge regressions that are fitted on one half of the tasks and scored on the other.

Axis letters: N tasks, D width, A actions, Q seeds.
"""

import numpy as np

from theory.circuits.trained import Rows


def squares(stream_ND, target_NA, ridges) -> np.ndarray:
    """Squared errors, of the second half's tasks, of the probe fitted on the first and of the first's mean, (N/2, 2).

    The ridge is the one whose probe of the first quarter predicts the second quarter best.
    """
    half = len(stream_ND) // 2
    x_ND, y_NA = np.asarray(stream_ND, np.float64), np.asarray(target_NA)

    def score(ridge):
        error, spread = errors(x_ND[:half], y_NA[:half], half // 2, ridge).sum(0)
        return error / spread

    return errors(x_ND, y_NA, half, min(ridges, key=score))


def errors(x_ND, y_NA, n: int, ridge: float) -> np.ndarray:
    """Squared errors, of the tasks after the first n, of the ridge regression on these and of their mean."""
    spread_D = x_ND[:n].std(0)
    x = (x_ND - x_ND[:n].mean(0)) / np.where(spread_D > 1e-6, spread_D, 1.0)
    y = y_NA - y_NA[:n].mean(0)
    weights_DA = np.linalg.solve(x[:n].T @ x[:n] + ridge * n * np.eye(x.shape[1]), x[:n].T @ y[:n])
    return np.stack([((y - x @ weights_DA) ** 2).sum(-1), (y**2).sum(-1)], axis=-1)[n:]


def r_squared(squares_NQ2) -> float:
    """1 - squared errors of the probe over those of the mean, mean over Q seeds."""
    error, spread = np.moveaxis(squares_NQ2.sum(0), -1, 0)
    return float((1 - error / spread).mean())


def difference(ours_NQ2, theirs_NQ2) -> float:
    """Selectivity: R2 less that of the control."""
    return r_squared(ours_NQ2) - r_squared(theirs_NQ2)


def of_another_task(rows: Rows, target_NA: np.ndarray) -> np.ndarray:
    """The target of the next row with the same query state, (N, A): what a probe finds of it owes nothing to the
    context."""
    other_NA = np.empty(target_NA.shape)
    for state in np.unique(rows.queries):
        here = np.flatnonzero(rows.queries == state)
        other_NA[here] = target_NA[np.roll(here, 1)]
    return other_NA
