"""icdm list: the families, the configs and the runs that there are."""

import argparse
import ast
import dataclasses
import inspect
import pathlib
import re

from icdm.errors import UserError
from icdm.files import is_locked

COST = re.compile(r"[A-Z][^.:]*\b(?:minutes|hours|s) of [^.]*\bcores?\b[^.]*\.")  # "Some 12 minutes of two cores."
RUNS = "runs"
COMMAND = re.compile(r"^ {4}.*$", re.MULTILINE)


def main(arguments: argparse.Namespace) -> None:
    """Prints what was asked for, everything by default.

    Raises:
      UserError: a directory that does not exist.
    """
    sections = {"families": _families, "configs": _configs, "runs": _runs}
    for name in [arguments.what] if arguments.what else sections:
        lines = sections[name](arguments)
        print(f"{name}:", *(lines or ["none"]), sep="\n  ", end="\n\n")


def _families(_: argparse.Namespace) -> list[str]:
    """Every family: its parameters with their defaults, what it is, and where it comes from."""
    from icdm.problems.family import families  # imports JAX, which --help goes without

    found = []
    for name, family in families().items():
        fields = [f"{field.name}={field.default}" for field in dataclasses.fields(family) if field.repr]
        text = inspect.getdoc(family) or ""
        found += [f"{name}:{','.join(fields)}", f"    {_first_sentence(text)}"]
        if source := re.search(r"Source: (.*?)(?:\n\n|$)", text, re.DOTALL):
            found.append(f"    {' '.join(source[1].split())}")
    return found


def _configs(arguments: argparse.Namespace) -> list[str]:
    return configs_of(pathlib.Path(arguments.configs))


def configs_of(directory: pathlib.Path) -> list[str]:
    """Every config of a directory: what it asks and what it takes, as its file says. The files are not run.

    Raises:
      UserError: there is no such directory.
    """
    if not directory.is_dir():
        raise UserError(f"{directory} is no directory: give that of the configs with --configs")
    found = []
    for path in sorted(directory.glob("[!_]*.py")):
        text = ast.get_docstring(ast.parse(path.read_text())) or ""
        found += [path.stem, f"    {_first_sentence(text)}"]
        if cost := COST.search(" ".join(COMMAND.sub("", text).split())):
            found.append(f"    {cost[0]}")
    return found


def _runs(arguments: argparse.Namespace) -> list[str]:
    """Every run below a directory and how far it has come."""
    directory = pathlib.Path(arguments.runs or RUNS)
    if arguments.runs and not directory.is_dir():
        raise UserError(f"{directory} is no directory: give that of the runs with --runs")
    return [f"{path.parent}: {state_of(path.parent)}" for path in sorted(directory.rglob("config.json"))]


def state_of(directory: pathlib.Path) -> str:
    """How far the run of a directory has come: its gap, or its last step."""
    from icdm.runs.monitor import read_metrics
    from icdm.runs.run import Run

    try:
        run = Run.open(directory)
        results = run.results()
        metrics = read_metrics(directory / "metrics.jsonl")
    except UserError as error:
        return str(error)
    if results:
        gap = results["policies"].get("fine_tuned", {}).get("normalized_gap")
        return f"{results['family']}, finished" + (f", normalized gap {100 * gap['mean']:.1f} %" if gap else "")
    at = f"{metrics[-1]['phase']} step {metrics[-1]['step']}" if metrics else "not begun"
    return f"{run.config['family']}, {at}, {'at work' if is_locked(directory) else 'stopped'}"


def _first_sentence(text: str) -> str:
    return " ".join(text.partition("\n\n")[0].split())
