"""Puts into the documents their tables, made from the results files that are committed, and draws the figures.

    .venv/bin/python docs/render.py          # rewrites every table whose numbers have changed, and the figures
    .venv/bin/python docs/render.py --check  # names the documents that differ from the results, and fails

A table stands between `<!-- table: NAME -->` and `<!-- end -->`; NAME is a function of the document's module in
docs/tables. A number with an interval in the text, 31.2 [29.4, 32.9], must be that of some results file.
"""

import functools
import importlib
import json
import pathlib
import re
import sys
from collections.abc import Iterator, Sequence
from typing import Any

ROOT = pathlib.Path(__file__).parent.parent
sys.path[:0] = [str(ROOT / "docs"), str(ROOT)]

from tables import results_of  # noqa: E402

MARKED = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
INTERVAL = re.compile(r"(-?[\d.]*\d)(?: %)? \[(-?[\d.]*\d), (-?[\d.]*\d)\]")
DOCUMENTS = ["README.md", "theory/README.md", *(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]
FOLDERS = ("results", "benchmarks/results", "theory/results")  # of results files


def draw_unseen() -> None:
    """docs/figures/unseen.png: the model of the package beside planners, in problems that it has not met."""
    from matplotlib.figure import Figure

    names = {
        "s5": "5 states, 10 episodes seen",
        "s10": "10 states",
        "s20": "20 states",
        "s80": "80 states, 40 episodes",
        "k1": "10 states, 1 episode",
        "k50": "10 states, 50 episodes",
        "mixture": "10 states, mixed behaviors",
        "planning": "10 states, nearly deterministic",
        "lake": "FrozenLake",
    }
    policies = {
        "fine_tuned": ("the model, no training on the problem", "#0072B2", "o"),
        "posterior_mean": ("planner that is told size and prior", "#009E73", "D"),
        "certainty_equivalence": ("planner on observed frequencies", "#D55E00", "s"),
    }
    figure = Figure(figsize=(7.2, 4.2), layout="constrained")
    axes = figure.subplots()
    for i, (policy, (label, color, marker)) in enumerate(policies.items()):
        place, mean, low, high = [], [], [], []
        for y, file in enumerate(names):
            found = results_of(f"tabular/package/{file}")["policies"].get(policy)
            if found:
                place.append(y + 0.22 * (i - 1))  # side by side: some are level
                mean.append(100 * found["normalized_gap"]["mean"])
                low.append(mean[-1] - 100 * found["normalized_gap"]["ci95"][0])
                high.append(100 * found["normalized_gap"]["ci95"][1] - mean[-1])
        axes.errorbar(mean, place, xerr=[low, high], fmt=marker, color=color, markersize=5, capsize=2, label=label)
    axes.set_yticks(range(len(names)), names.values())
    axes.invert_yaxis()
    axes.set(xlim=(0, 100), xlabel="distance to the optimum, % of that of random actions (95 % interval)")
    axes.grid(axis="x", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside upper center", ncols=3, frameon=False, fontsize=8)
    figure.savefig(ROOT / "docs/figures/unseen.png", dpi=160, metadata={"Software": None})


def rendered(name: str) -> str:
    """A document with its tables as the results files have them."""

    def fresh(found: re.Match) -> str:
        tables = importlib.import_module(f"tables.{pathlib.Path(name).stem.lower()}")
        return f"{found[1]}{getattr(tables, found[2])()}{found[3]}"

    return MARKED.sub(fresh, (ROOT / name).read_text())


def untraced(name: str) -> list[str]:
    """The numbers with intervals in the text of a document, outside of its tables, that no results file has."""
    text = MARKED.sub("", (ROOT / name).read_text())
    known = written_intervals()
    found = INTERVAL.finditer(text.replace("\n", " ").replace("**", ""))
    return [each[0] for each in found if tuple(map(_plain, each.groups())) not in known]


@functools.cache
def written_intervals() -> set[tuple[str, ...]]:
    """Every number with an interval of the results files, with 0 to 3 digits, as it is or in %, of either sign."""
    known = set()
    for folder in FOLDERS:
        for path in (ROOT / folder).rglob("*.json"):
            for mean, low, high in _intervals(json.loads(path.read_text())):
                for scale in (1, 100):
                    for digits in range(4):
                        ends = [f"{scale * x:.{digits}f}" for x in (mean, low, high)]
                        known.add(tuple(map(_plain, ends)))
                        known.add(tuple(_plain(f"{-scale * x:.{digits}f}") for x in (mean, high, low)))
    return known


def _intervals(content: Any) -> Iterator[tuple[float, float, float]]:
    """(number, low, high) of everything in a results file that has an interval."""
    if isinstance(content, list):
        for each in content:
            yield from _intervals(each)
    if isinstance(content, dict):
        ends = content.get("ci95")
        if isinstance(ends, list) and "mean" in content:
            yield content["mean"], *ends
        if isinstance(ends, dict):  # a claim of theory
            yield from ((content["measured"][name], *own) for name, own in ends.items())
        for each in content.values():
            yield from _intervals(each)


def _plain(number: str) -> str:
    """A number without the 0 before its point, and without the sign of a 0."""
    number = number.lstrip("-") if float(number) == 0 else number
    return re.sub(r"^(-?)0\.", r"\1.", number)


def main(arguments: Sequence[str]) -> None:
    wrong = []
    for name in DOCUMENTS:
        text = rendered(name)
        if text != (ROOT / name).read_text():
            wrong.append(f"{name} differs from the results: run python docs/render.py")
            if "--check" not in arguments:
                (ROOT / name).write_text(text)
        wrong += [f"{name}: no results file has {number}" for number in untraced(name)]
    if "--check" not in arguments:
        draw_unseen()
    elif wrong:
        sys.exit("\n".join(wrong))


if __name__ == "__main__":
    main(sys.argv[1:])
