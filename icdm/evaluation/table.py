"""The console table of policies x metrics."""

import sys

from rich import box
from rich.console import Console
from rich.table import Table

from icdm.evaluation.summary import MEMBER_METRICS, METRICS

WIDTH, WIDE = 80, 1000  # where the output is not a terminal; room for any table
PERCENT = {"gap", "normalized_gap", "failure_rate", "worst_gap", "best_gap", "optimal", "tried", "suffix_failure"}
EXPLORED = {  # measures of deciders that explore from nothing (`icdm.evaluation.exploration.explore`)
    "regret": "sum of regrets, in reward",
    "optimal": "share of optimal decisions",
    "suffix_failure": "share of runs without the best action in the second half",
    "least_pulled": "share of the action taken least often times the number of actions",
    "tried": "share of the pairs of state and action that were tried",
}


def cell(metric: str, number: dict | None) -> str:
    """A mean with its interval, gaps and rates in percent."""
    if number is None:
        return "-"
    scale, digits = (100, 1) if metric in PERCENT else (1, 3)
    low, high = number["ci95"]
    mark = "*" if number.get("below_bracket") else ""
    return f"{scale * number['mean']:.{digits}f}{mark} [{scale * low:.{digits}f}, {scale * high:.{digits}f}]"


def columns_of(policies: dict[str, dict]) -> list[str]:
    """The metrics that mean something: of the five of every problem, and of those of ambiguous ones."""
    shown = [m for m in (*METRICS, *MEMBER_METRICS) if any(m in metrics for metrics in policies.values())]
    return [m for m in shown if m != "gap" or gap_is_clear(policies)]


def gap_is_clear(policies: dict[str, dict]) -> bool:
    """Whether the optimal value of every task is clearly positive, so that a share of it means something."""
    gaps = [metrics["gap"] for metrics in policies.values() if "gap" in metrics]
    return bool(gaps) and not any({"n_left_out", "n_unclear"} & gap.keys() for gap in gaps)


def print_results(results: dict, published: dict[str, str], title: str, wide: bool = False) -> None:
    """Prints the tables of results.json; the arguments are those of `print_table`."""
    print_table(results["policies"], published, title, results.get("bracket"), wide)
    if "exploration" in results:
        print_exploration(results["exploration"], wide)


def print_table(
    policies: dict[str, dict], published: dict[str, str], title: str, bracket: dict | None = None, wide: bool = False
) -> None:
    """Prints the metrics of every policy with 95 % intervals; those under the extreme models in a second table.

    Args:
      policies: {name: {metric: {"mean", "ci95", "n_tasks"}}} as in results.json.
      published: {name: gap as a paper reports it}; a column for it appears if there is any.
      bracket: mean of (upper - lower) / upper of the optimal value where it is not known exactly.
      wide: prints every metric, else as many as fit the terminal, or WIDTH columns where there is none.
    """
    caption = "mean [95 % interval over tasks]; gaps and failures in %"
    if bracket:
        caption += f"; * below the bracket of the optimum, {100 * bracket['mean']:.2f} %"
    columns = columns_of(policies)
    metrics, members = ([m for m in columns if m in some] for some in (METRICS, MEMBER_METRICS))
    if published:  # a paper's gap stands beside ours
        metrics = sorted(metrics, key=lambda metric: metric != "gap")
    tables = [(metrics, published, title, caption)]
    if members:
        tables.append((members, {}, "under the worst and the best model of the ambiguity set", None))
    for table in tables:
        _print(policies, *table, wide)


def print_exploration(exploration: dict[str, dict], wide: bool = False) -> None:
    """Prints what deciders reached that explored from nothing, least regret first (`exploration` in results.json)."""
    ordered = dict(sorted(exploration.items(), key=lambda item: item[1]["regret"]["mean"]))
    metrics = [name for name in EXPLORED if name in next(iter(ordered.values()))]
    heading = f"from nothing, {len(next(iter(ordered.values()))['by_episode'])} episodes of the same task"
    _print(ordered, metrics, {}, heading, "sum of regrets in reward; shares in %", wide)


def _print(
    policies: dict[str, dict],
    metrics: list[str],
    published: dict[str, str],
    heading: str,
    note: str | None,
    wide: bool,
) -> None:
    """Prints one table with as many of the metrics as fit, or all; the note under it says which are left out."""
    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    shown = metrics if wide else _fitting(policies, metrics, published, console.width)
    left_out = f"; --wide shows {', '.join(m.replace('_', ' ') for m in metrics[len(shown) :])} too"
    text = (note or "").strip() + (left_out if len(shown) < len(metrics) else "")
    table = _table(policies, shown, published, heading, text.removeprefix("; ") or None)
    (Console(width=WIDE) if wide else console).print(table)


def _fitting(policies: dict[str, dict], metrics: list[str], published: dict[str, str], width: int) -> list[str]:
    """The first of the metrics, as many as fit the width, and at least one."""
    room = Console(width=WIDE)
    widths = [
        room.measure(_table(policies, metrics[:n], published, None, None)).maximum for n in range(len(metrics) + 1)
    ]
    return metrics[: max(1, sum(each <= width for each in widths) - 1)]


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
