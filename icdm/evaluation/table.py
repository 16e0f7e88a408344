"""The console table of policies x metrics."""

import sys

from rich import box
from rich.console import Console
from rich.table import Table

from icdm.evaluation.summary import METRICS

WIDTH = 160  # where the output is not a terminal
PERCENT = {"gap", "normalized_gap", "failure_rate"}


def cell(metric: str, number: dict | None) -> str:
    """A mean with its interval, gaps and rates in percent."""
    if number is None:
        return "-"
    scale, digits = (100, 1) if metric in PERCENT else (1, 3)
    low, high = number["ci95"]
    return f"{scale * number['mean']:.{digits}f} [{scale * low:.{digits}f}, {scale * high:.{digits}f}]"


def print_table(policies: dict[str, dict], published: dict[str, str], title: str) -> None:
    """Prints value, gap, regret, normalised gap and failure rate of every policy, with 95 % intervals.

    Args:
      policies: {name: {metric: {"mean", "ci95", "n_tasks"}}} as in results.json.
      published: {name: gap as a paper reports it}; a column for it appears if there is any.
    """
    caption = "mean [95 % interval over tasks]; gaps and failures in %"
    table = Table(title=title, title_justify="left", caption=caption, caption_justify="left", box=box.SIMPLE)
    table.add_column("policy", no_wrap=True)
    for metric in METRICS:
        table.add_column(metric.replace("_", " "), justify="right")
    if published:
        table.add_column("paper's gap", justify="right")
    for name, metrics in policies.items():
        row = [name, *(cell(metric, metrics.get(metric)) for metric in METRICS)]
        table.add_row(*row, *([published.get(name, "")] if published else []))
    Console(width=WIDTH if not sys.stdout.isatty() else None).print(table)
