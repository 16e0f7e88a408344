"""The tables of the documents, a module for each document, made from the results files that are committed."""

import json
import pathlib
from collections.abc import Sequence
from typing import Any

ROOT = pathlib.Path(__file__).parent.parent.parent


def results_of(path: str, folder: str = "results") -> Any:
    """The content of a results file."""
    return json.loads((ROOT / folder / f"{path}.json").read_text())


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def number(x: float, digits: int = 1) -> str:
    """x with so many digits after the point, none before it where it is below 1 and two follow: .95."""
    text = _rounded(x, digits)
    return text.replace("0.", ".", 1) if digits > 1 and abs(x) < 1 else text


def with_interval(found: dict[str, Any], scale: float = 1, digits: int = 1) -> str:
    """A mean and its 95 % interval: 31.2 [29.4, 32.9]."""
    mean, low, high = (number(scale * x, digits) for x in (found["mean"], *found["ci95"]))
    return f"{mean} [{low}, {high}]"


def percent(found: dict[str, Any], digits: int = 1) -> str:
    """A share and its 95 % interval in %: 0.76 [0.40, 1.16]."""
    mean, low, high = (_rounded(100 * x, digits) for x in (found["mean"], *found["ci95"]))
    return f"{mean} [{low}, {high}]"


def _rounded(x: float, digits: int) -> str:
    """A 0 has no sign."""
    text = f"{x:.{digits}f}"
    return text.lstrip("-") if float(text) == 0 else text


def gap(found: dict[str, Any], policy: str, interval: bool = False) -> str:
    """The normalised gap of a policy in %; a dash if it was not measured."""
    if policy not in found["policies"]:
        return "–"
    own = found["policies"][policy]["normalized_gap"]
    return with_interval(own, 100) if interval else number(100 * own["mean"])


def at(sweep: dict[str, Any], **point: Any) -> dict[str, Any]:
    """The results of a sweep at the one of its points that has these values."""
    [found] = [run for run in sweep["runs"] if point.items() <= run["point"].items()]
    return found


def compared(sweep: dict[str, Any], first: str, second: str, **point: Any) -> dict[str, Any]:
    """The normalised gap of fine_tuned at one value of an axis less that at another, with its interval."""
    pairs = [pair for pair in sweep["comparisons"] if point.items() <= pair["at"].items()]
    for pair in pairs:
        if (pair["first"], pair["second"]) == (first, second):
            return pair
        if (pair["first"], pair["second"]) == (second, first):
            return {"mean": -pair["mean"], "ci95": [-end for end in reversed(pair["ci95"])]}
    raise LookupError(f"{first} was not compared with {second}")
