"""The table of docs/solve.md: published problems beside SARSOP."""

from collections.abc import Sequence

from tables import results_of, table


def brackets() -> str:
    """Brackets of the value at the start after some seconds, infinite horizon."""
    found = results_of("brackets", "benchmarks/results")
    before = found["before"]["problems"]
    rows = [
        [
            name,
            f"{now['seconds']:.1f}",
            _bracket(now["bracket"]),
            _bracket(before[name]["bracket"]),
            _bracket(now["sarsop"]),
        ]
        for name, now in found["now"]["problems"].items()
    ]
    return table(["problem", "seconds", "bracket", "before", "SARSOP"], rows)


def _bracket(bracket: Sequence[float] | None) -> str:
    if bracket is None:
        return "–"
    low, high = (f"{x:.4g}" if abs(x) > 100 else f"{x:.4f}" if abs(x) < 10 else f"{x:.2f}" for x in bracket)
    return low if low == high else f"[{low}, {high}]"
