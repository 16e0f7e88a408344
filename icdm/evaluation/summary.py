"""From the values of each task to the numbers of results.json, with 95 % intervals."""

import numpy as np

RESAMPLES = 2000
DRAWN_AT_ONCE = 1_000_000  # tasks, which bounds the memory
METRICS = ("value", "gap", "regret", "normalized_gap", "failure_rate")
MEMBER_METRICS = ("worst_value", "worst_gap", "best_value", "best_gap")


def summarize(value_N, optimal_N, random_N) -> dict:
    """The five metrics of a policy over N tasks (the tasks of all seeds together).

    value; regret = OPT - value; gap = (OPT - value) / OPT over the tasks whose OPT is positive;
    normalized_gap = (OPT - value) / (OPT - RANDOM); failure_rate, the share of tasks whose normalized
    gap exceeds 0.5. Tasks in which nothing can be won over random have no normalized gap.
    Where there is one task (OPT and RANDOM of length 1), N values are of its episodes: the intervals are
    then over episodes, `n_tasks` counts those, and the failure rate is that of their mean.

    Returns:
      {metric: {"mean", "ci95": [lo, hi], "n_tasks"}}, the interval by bootstrap over tasks. Metrics
      that no task admits are left out; `gap` tells with "n_left_out" how many tasks it omits.
    """
    value_N, optimal_N, random_N = (np.asarray(x, np.float64) for x in (value_N, optimal_N, random_N))
    one_task = optimal_N.size == 1
    optimal_N, random_N = (np.broadcast_to(x, value_N.shape) for x in (optimal_N, random_N))
    regret_N = optimal_N - value_N
    positive_N = optimal_N > 0
    room_N = optimal_N - random_N > 1e-9
    normalized_N = regret_N[room_N] / (optimal_N - random_N)[room_N]
    failed_N = (normalized_N.mean(keepdims=one_task) if one_task else normalized_N) > 0.5
    samples = {
        "value": value_N,
        "gap": regret_N[positive_N] / optimal_N[positive_N],
        "regret": regret_N,
        "normalized_gap": normalized_N,
        "failure_rate": failed_N.astype(np.float64),
    }
    summary = {name: interval(sample_N) for name, sample_N in samples.items() if sample_N.size}
    if "gap" in summary and not positive_N.all():
        summary["gap"]["n_left_out"] = int((~positive_N).sum())
    return summary


def mark_below_bracket(policies: dict[str, dict], bracket: float) -> None:
    """Adds "below_bracket": true to every mean gap that is smaller than the oracle's mean relative bracket."""
    for metrics in policies.values():
        if "gap" in metrics and metrics["gap"]["mean"] < bracket:
            metrics["gap"]["below_bracket"] = True


def summarize_members(value_NM: np.ndarray, oracle_NM: np.ndarray) -> dict:
    """A policy under the worst and the best member of each of N clouds of M models.

    worst_value = min_m V_m, best_value = max_m V_m; worst_gap and best_gap = 1 - (the policy's / the oracle's).
    """
    found = {}
    for name, extreme in (("worst", np.min), ("best", np.max)):
        value_N, oracle_N = extreme(value_NM, axis=1), extreme(oracle_NM, axis=1)
        found |= {f"{name}_value": interval(value_N), f"{name}_gap": interval((oracle_N - value_N) / np.abs(oracle_N))}
    return found


def interval(sample_N: np.ndarray) -> dict:
    """Mean and 95 % percentile-bootstrap interval over tasks."""
    means = _resampled_means(sample_N[:, None])[:, 0]
    return {"mean": float(sample_N.mean()), "ci95": _central(means), "n_tasks": int(sample_N.size)}


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
        "ci95": _central(ratios),
        "standard_error": float(ratios.std()),
        "n_tasks": int(len(pair_N2)),
    }


def _resampled_means(sample_NX: np.ndarray) -> np.ndarray:
    """Means of RESAMPLES bootstrap samples, (RESAMPLES, X); the same resamples for the same N."""
    rng = np.random.default_rng(0)
    n = len(sample_NX)
    block = max(1, DRAWN_AT_ONCE // n)
    sizes = [min(block, RESAMPLES - start) for start in range(0, RESAMPLES, block)]
    return np.concatenate([sample_NX[rng.integers(0, n, (size, n))].mean(1) for size in sizes])


def _central(sample_X: np.ndarray) -> list[float]:
    return [float(x) for x in np.percentile(sample_X, [2.5, 97.5])]
