"""The console table of policies x metrics."""

import sys

from rich import box
from rich.console import Console
from rich.table import Table

from icdm.evaluation.summary import MEMBER_METRICS, METRICS

WIDTH = 160  # where the output is not a terminal
PERCENT = {"gap", "normalized_gap", "failure_rate", "worst_gap", "best_gap"}


def cell(metric: str, number: dict | None) -> str:
    """A mean with its interval, gaps and rates in percent."""
    if number is None:
        return "-"
    scale, digits = (100, 1) if metric in PERCENT else (1, 3)
    low, high = number["ci95"]
    mark = "*" if number.get("below_bracket") else ""
    return f"{scale * number['mean']:.{digits}f}{mark} [{scale * low:.{digits}f}, {scale * high:.{digits}f}]"


def columns_of(policies: dict[str, dict]) -> list[str]:
    """The metrics that there are: the five of every problem, and those of ambiguous ones."""
    return [m for m in (*METRICS, *MEMBER_METRICS) if any(m in metrics for metrics in policies.values())]


def print_table(policies: dict[str, dict], published: dict[str, str], title: str, bracket: dict | None = None) -> None:
    """Prints every metric of every policy with 95 % intervals; those under the extreme models in a second table.

    Args:
      policies: {name: {metric: {"mean", "ci95", "n_tasks"}}} as in results.json.
      published: {name: gap as a paper reports it}; a column for it appears if there is any.
      bracket: mean of (upper - lower) / upper of the optimal value where it is not known exactly.
    """
    caption = "mean [95 % interval over tasks]; gaps and failures in %"
    if bracket:
        caption += f"; * below the bracket of the optimum, {100 * bracket['mean']:.2f} %"
    columns = columns_of(policies)
    console = Console(width=WIDTH if not sys.stdout.isatty() else None)
    console.print(_table(policies, [m for m in columns if m in METRICS], published, title, caption))
    members = [m for m in columns if m in MEMBER_METRICS]
    if members:
        console.print(_table(policies, members, {}, "under the worst and the best model of the ambiguity set", None))


def _table(
    policies: dict[str, dict], metrics: list[str], published: dict[str, str], title: str | None, caption: str | None
) -> Table:
    table = Table(title=title, title_justify="left", caption=caption, caption_justify="left", box=box.SIMPLE)
    table.add_column("policy", no_wrap=True)
    for metric in metrics:
        table.add_column(metric.replace("_", " "), justify="right")
    if published:
        table.add_column("paper's gap", justify="right")
    for name, numbers in policies.items():
        row = [name, *(cell(metric, numbers.get(metric)) for metric in metrics)]
        table.add_row(*row, *([published.get(name, "")] if published else []))
    return table
