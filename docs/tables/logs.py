"""The tables of docs/logs.md: off-policy estimates beside the truth, ways to read features, two made-up hospitals."""

from typing import Any

from tables import number, results_of, table, with_interval

ESTIMATES = {"pdwis": "per-decision WIS", "dr": "doubly robust", "wdr": "weighted doubly robust", "fqe": "fitted-Q"}


def off_policy() -> str:
    """How near off-policy estimates come to the truth."""

    def cell(found: dict[str, Any]) -> str:
        if found["absolute_error"] is None:
            return "–"
        share, (low, high) = found["coverage"]
        inside = f"{100 * share:.0f} [{100 * low:.0f}, {100 * high:.0f}]"
        return f"{number(found['absolute_error'], 3)}, {inside}, {number(found['rank_correlation'], 2)}"

    rows = []
    for title, sizes in results_of("off_policy", "benchmarks/results")["tables"].items():
        name = title.removesuffix(" behaviour probabilities")
        for n, found in sizes.items():
            unwarned = found["pdwis"]["absolute_error_unwarned"]
            beside = "–" if unwarned is None else number(unwarned, 3)
            counts = [str(found["logs"]), f"{100 * found['refused']:.0f}", f"{100 * found['warned']:.0f}"]
            cells = [cell(found[estimate]) for estimate in ESTIMATES]
            rows.append([name, f"{int(n):,}", *counts, cells[0], beside, *cells[1:]])
    head = ["log", "episodes", "logs", "refused, %", "warned, %", ESTIMATES["pdwis"], "its error, not warned"]
    return table([*head, *list(ESTIMATES.values())[1:]], rows)




NAMES = {"pieces": "24 quantiles", "linear": "linear", "states": "states", "tokens": "a token each"}
