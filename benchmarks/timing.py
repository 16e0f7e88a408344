"""How long things take: interleaved, warmed up, the median of several runs."""

import statistics
import time
from collections.abc import Callable


def seconds(work: Callable[[], object], repeats: int = 5, warmups: int = 1) -> float:
    """Median wall time of `work`, which must wait for its own results."""
    return alternating({"": work}, repeats, warmups)[""]


def alternating(works: dict[str, Callable[[], object]], repeats: int = 5, warmups: int = 1) -> dict[str, float]:
    """Median wall time of each, run in turn, so that a busy machine is unfair to all alike."""
    for work in works.values():
        for _ in range(warmups):
            work()
    taken: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(repeats):
        for name, work in works.items():
            began = time.perf_counter()
            work()
            taken[name].append(time.perf_counter() - began)
    return {name: statistics.median(x) for name, x in taken.items()}
