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
from icdm.evaluation.table import cell
from icdm.files import read_arrays, whole
from icdm.intervals import interval
from icdm.runs.run import REMEDY, Run

COMPARED = ("one", "other", "difference")


def main(arguments: argparse.Namespace) -> None:
    """Prints the fields in which two runs differ, and the normalised gaps of the policies that both have measured.

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
    gaps = compared(*runs)
    if arguments.json:
        print(json.dumps({"config": fields, "normalized_gap": gaps}, indent=2))
    else:
        _print(fields, gaps, names)
    if arguments.figure:
        _draw(gaps, names, pathlib.Path(arguments.figure))


def differences(one: dict[str, Any], other: dict[str, Any]) -> dict[str, list]:
    """{field: [its value in one config, in the other]} of the fields that differ."""
    a, b = _flat(one), _flat(other)
    return {name: [a.get(name), b.get(name)] for name in sorted(a.keys() | b.keys()) if a.get(name) != b.get(name)}


def compared(one: Run, other: Run) -> dict[str, dict[str, Any]]:
    """{policy: {"one", "other", "difference"}} of the policies of both runs, the normalised gap with its interval.

    The difference, other less one, is paired over the tasks; it is there only if both have met the same tasks.
    """
    values = [read_arrays(run.directory / "values.npz", REMEDY) for run in (one, other)]
    same = all(np.array_equal(values[0][name], values[1][name]) for name in ("optimal", "random"))
    found = {}
    for name in values[0]:
        policy = name.removeprefix("policy/")
        if name.startswith("policy/") and name in values[1]:
            gap, others = (normalized_gaps(v[name], v["optimal"], v["random"]) for v in values)
            if gap.size and others.size:
                found[policy] = {"one": interval(gap), "other": interval(others)}
                if same and gap.size == others.size:
                    found[policy]["difference"] = interval(others - gap)
    return found


def _flat(config: dict[str, Any], before: str = "") -> dict[str, Any]:
    found = {}
    for name, value in config.items():
        found |= _flat(value, f"{before}{name}.") if isinstance(value, dict) else {before + name: value}
    return found


def _print(fields: dict[str, list], gaps: dict[str, dict], names: list[str]) -> None:
    console = Console()
    for title, head, rows in (
        ("config", ["field", *names], [[name, *map(str, pair)] for name, pair in fields.items()]),
        (
            "normalized gap, % [95 % interval]",
            ["policy", *names, "difference"],
            [[name, *(cell("normalized_gap", own.get(which)) for which in COMPARED)] for name, own in gaps.items()],
        ),
    ):
        table = Table(title=title, title_justify="left", box=box.SIMPLE)
        for i, column in enumerate(head):
            table.add_column(column, justify="right" if i else "left", overflow="fold", no_wrap=not i)
        for row in rows:
            table.add_row(*row)
        console.print(table if rows else f"{title}: no difference")
    if gaps and not any("difference" in own for own in gaps.values()):
        console.print("The runs have not met the same tasks, so there are no paired differences.")


def _draw(gaps: dict[str, dict], names: list[str], path: pathlib.Path) -> None:
    """The gaps of both runs, policy by policy."""
    if path.suffix not in (".png", ".pdf", ".svg"):
        raise UserError(f"--figure {path}: give a name that ends in .png, .pdf or .svg")
    from matplotlib.figure import Figure  # slow to import

    figure = Figure(figsize=(5.2, 1.2 + 0.3 * len(gaps)), layout="constrained")
    axes = figure.subplots()
    for which, name, color, marker, shift in (
        ("one", names[0], "#0072B2", "o", -0.15),
        ("other", names[1], "#D55E00", "s", 0.15),
    ):
        for y, own in enumerate(gaps.values()):
            low, high = own[which]["ci95"]
            axes.plot([100 * low, 100 * high], [y + shift] * 2, color=color)
            label = name if y == 0 else None
            axes.plot(100 * own[which]["mean"], y + shift, marker, color=color, label=label)
    axes.set_yticks(range(len(gaps)), [name.replace("_", " ") for name in gaps])
    axes.invert_yaxis()
    axes.set_xlabel("normalised gap, % (95 % interval)")
    axes.grid(axis="x", alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside upper center", ncols=2, frameon=False)
    with whole(path) as fresh:
        figure.savefig(fresh, format=path.suffix[1:], dpi=160)
    print(f"figure: {path}")
