"""Intervals of measured numbers: by bootstrap, and in closed form for means and shares."""

from collections.abc import Callable

import numpy as np

RESAMPLES = 2000
DRAWN_AT_ONCE = 1_000_000  # entries, which bounds the memory
NORMAL_95 = 1.959963984540054


def interval(sample_N: np.ndarray) -> dict:
    """{"mean", "ci95", "n_tasks"}: the mean over N tasks with its 95 % percentile-bootstrap interval."""
    means = _resampled_means(sample_N[:, None])[:, 0]
    return {"mean": float(sample_N.mean()), "ci95": central(means), "n_tasks": int(sample_N.size)}


def ratio(above_N: np.ndarray, below_N: np.ndarray) -> dict:
    """mean(above) / mean(below) of paired tasks, with interval and standard error by bootstrap.

    The mean of `below` must be positive; resamples in which it is not are left out.
    """
    pair_N2 = np.stack([above_N, below_N], -1)
    draws = _resampled_means(pair_N2)
    draws = draws[draws[:, 1] > 0]
    ratios = draws[:, 0] / draws[:, 1]
    return {
        "mean": float(above_N.mean() / below_N.mean()),
        "ci95": central(ratios),
        "standard_error": float(ratios.std()),
        "n_tasks": int(len(pair_N2)),
    }


def bootstrap_interval(
    statistic: Callable[..., float], *samples: np.ndarray, rng: np.random.Generator, repeats: int = 1000
) -> list[float]:
    """Percentile 95 % bootstrap interval of `statistic(*samples)`.

    All samples are resampled with the same indices along their first axis, so that pairs stay together.
    """
    n = len(samples[0])
    return central([statistic(*(s[index] for s in samples)) for index in rng.integers(0, n, (repeats, n))])


def mean_interval(values: np.ndarray) -> tuple[float, list[float]]:
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


def central(draws: np.ndarray | list[float]) -> list[float]:
    """The ends between which the central 95 % of the draws lie."""
    return [float(x) for x in np.percentile(draws, [2.5, 97.5])]


def _resampled_means(sample_NW: np.ndarray) -> np.ndarray:
    """Means of RESAMPLES bootstrap samples, (RESAMPLES, W), of W columns; the same resamples for the same N."""
    rng = np.random.default_rng(0)
    n = len(sample_NW)
    block = max(1, DRAWN_AT_ONCE // n)
    sizes = [min(block, RESAMPLES - start) for start in range(0, RESAMPLES, block)]
    return np.concatenate([sample_NW[rng.integers(0, n, (size, n))].mean(1) for size in sizes])
