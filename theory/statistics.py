"""Intervals: of means, of fitted slopes, of anything by bootstrap."""

from collections.abc import Callable

import numpy as np

NORMAL_95 = 1.959963984540054


def mean_interval(values) -> tuple[float, list[float]]:
    """Mean and its normal 95 % interval over independent values."""
    values = np.asarray(values, np.float64)
    half = NORMAL_95 * values.std(ddof=1) / np.sqrt(len(values))
    return float(values.mean()), [float(values.mean() - half), float(values.mean() + half)]


def share_interval(hits: int, n: int) -> tuple[float, list[float]]:
    """A share and its 95 % Wilson interval, which does not collapse at 0 or 1."""
    share, square = hits / n, NORMAL_95**2 / n
    centre = (share + square / 2) / (1 + square)
    half = np.sqrt(square * (share * (1 - share) + square / 4)) / (1 + square)
    return share, [float(max(0, centre - half)), float(min(1, centre + half))]


def bootstrap_interval(statistic: Callable, *samples: np.ndarray, rng: np.random.Generator, repeats: int = 1000):
    """Percentile 95 % bootstrap interval of `statistic(*samples)`.

    All samples are resampled with the same indices along their first axis, so that pairs stay together.
    """
    n = len(samples[0])
    draws = [statistic(*(s[index] for s in samples)) for index in rng.integers(0, n, (repeats, n))]
    return [float(q) for q in np.percentile(draws, [2.5, 97.5])]


def log_slope(x, y) -> float:
    """Least-squares slope of log y against log x."""
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])
