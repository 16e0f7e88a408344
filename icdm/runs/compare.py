"""icdm compare: in what two runs differ, and what that makes of their policies."""

import argparse
import json
import pathlib
from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from icdm.errors import UserError
from icdm.evaluation.summary import normalized_gaps
from icdm.evaluation.table import PERCENT, cell
from icdm.files import read_arrays, whole
from icdm.intervals import interval
from icdm.runs.run import REMEDY, Run

COMPARED = ("one", "other", "difference")


def main(arguments: argparse.Namespace) -> None:
    """Prints the fields in which two runs differ, and what the policies reach that both have measured.

    Raises:
      UserError: a directory that is not a run, or a run that has not ended.
    """
    runs = [Run.open(directory) for directory in (arguments.one, arguments.other)]
    for run in runs:
        if run.results() is None:
            raise UserError(f"{run.directory} has no results yet: start it again to go on")
    names = [run.directory.name for run in runs]
    if names[0] == names[1]:
        names = [str(run.directory) for run in runs]
    fields = differences(*(run.config for run in runs))
    metric, found = compared(*runs)
    if arguments.json:
        print(json.dumps({"config": fields, metric: found}, indent=2))
    else:
        _print(fields, metric, found, names)
    if arguments.figure:
        _draw(metric, found, names, pathlib.Path(arguments.figure))


def differences(one: dict[str, Any], other: dict[str, Any]) -> dict[str, list]:
    """{field: [its value in one config, in the other]} of the fields that differ."""
    a, b = _flat(one), _flat(other)
    return {name: [a.get(name), b.get(name)] for name in sorted(a.keys() | b.keys()) if a.get(name) != b.get(name)}


def compared(one: Run, other: Run) -> tuple[str, dict[str, dict[str, Any]]]:
    """(metric, {policy: {"one", "other", "difference"}}) of the policies of both runs, with intervals.

    The metric is the normalised gap, or the value where a run was measured from a log and no optimum is known. The
    difference, other less one, is paired over the tasks (or episodes of the log); it is there only if both have met the
    same ones.
    """
    values = [read_arrays(run.directory / "values.npz", REMEDY) for run in (one, other)]
    solved = all("optimal" in v for v in values)
    told_by = ("optimal", "random") if solved else ("policy/behavior",)
    same = all(name in v for name in told_by for v in values)
    same = same and all(np.array_equal(values[0][name], values[1][name]) for name in told_by)
    found = {}
    for name in values[0]:
        policy = name.removeprefix("policy/")
        if name.startswith("policy/") and name in values[1]:
            each = [normalized_gaps(v[name], v["optimal"], v["random"]) if solved else v[name] for v in values]
            if each[0].size and each[1].size:
                found[policy] = {"one": interval(each[0]), "other": interval(each[1])}
                if same and each[0].size == each[1].size:
                    found[policy]["difference"] = interval(each[1] - each[0])
    return "normalized_gap" if solved else "value", found


def _flat(config: dict[str, Any], before: str = "") -> dict[str, Any]:
    found = {}
    for name, value in config.items():
        found |= _flat(value, f"{before}{name}.") if isinstance(value, dict) else {before + name: value}
    return found


def _print(fields: dict[str, list], metric: str, found: dict[str, dict], names: list[str]) -> None:
    console = Console()
    for title, nothing, head, rows in (
        ("config", "no difference", ["field", *names], [[name, *map(str, pair)] for name, pair in fields.items()]),
        (
            f"{metric.replace('_', ' ')}{', %' if metric in PERCENT else ''} [95 % interval]",
            "of no policy in both runs",
            ["policy", *names, "difference"],
            [[name, *(cell(metric, own.get(which)) for which in COMPARED)] for name, own in found.items()],
        ),
    ):
        table = Table(title=title, title_justify="left", box=box.SIMPLE)
        for i, column in enumerate(head):
            table.add_column(column, justify="right" if i else "left", overflow="fold", no_wrap=not i)
        for row in rows:
            table.add_row(*row)
        console.print(table if rows else f"{title}: {nothing}")
    if found and not any("difference" in own for own in found.values()):
        console.print("The runs have not met the same tasks, so there are no paired differences.")


def _draw(metric: str, found: dict[str, dict], names: list[str], path: pathlib.Path) -> None:
    """The metric in both runs, policy by policy."""
    if not found:
        raise UserError(f"--figure {path}: no policy has been measured in both runs, so there is nothing to draw")
    if path.suffix not in (".png", ".pdf", ".svg"):
        raise UserError(f"--figure {path}: give a name that ends in .png, .pdf or .svg")
    from matplotlib.figure import Figure  # slow to import

    from icdm.pages import gap_axis

    scale, unit = (100, "normalised gap, %") if metric in PERCENT else (1, metric)
    figure = Figure(figsize=(5.2, 1.2 + 0.3 * len(found)), layout="constrained")
    axes = figure.subplots()
    for which, name, color, marker, shift in (
        ("one", names[0], "#0072B2", "o", -0.15),
        ("other", names[1], "#D55E00", "s", 0.15),
    ):
        for y, own in enumerate(found.values()):
            low, high = own[which]["ci95"]
            axes.plot([scale * low, scale * high], [y + shift] * 2, color=color)
            label = name if y == 0 else None
            axes.plot(scale * own[which]["mean"], y + shift, marker, color=color, label=label)
    axes.set_yticks(range(len(found)), [name.replace("_", " ") for name in found])
    axes.invert_yaxis()
    if metric in PERCENT:
        gap_axis(
            axes, [100 * end for own in found.values() for which in ("one", "other") for end in own[which]["ci95"]]
        )
    axes.set_xlabel(f"{unit} (95 % interval)")
    axes.grid(axis="x", alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside upper center", ncols=2, frameon=False)
    with whole(path) as fresh:
        figure.savefig(fresh, format=path.suffix[1:], dpi=160)
    print(f"figure: {path}")
