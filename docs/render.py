"""The tables and figures of the documents, rendered from the results files that are committed.

    .venv/bin/python docs/render.py          # rewrites every table whose numbers have changed, and the figures
    .venv/bin/python docs/render.py --check  # names the documents that differ from the results, and fails

A table stands between `<!-- table: NAME -->` and `<!-- end -->`; NAME is a function of this file.
"""

import json
import pathlib
import re
import sys
from collections.abc import Sequence
from typing import Any

ROOT = pathlib.Path(__file__).parent.parent
MARKED = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
DOCUMENTS = ["README.md", "theory/README.md", *(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]


def results(path: str) -> Any:
    """The content of a results file."""
    return json.loads((ROOT / "results" / f"{path}.json").read_text())


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def number(x: float, digits: int = 1) -> str:
    """x with so many digits after the point, none before it where it is below 1 and two follow: .95."""
    text = f"{x:.{digits}f}"
    return text.replace("0.", ".", 1) if digits > 1 and abs(x) < 1 else text


def with_interval(found: dict[str, Any], scale: float = 1, digits: int = 1) -> str:
    """A mean and its 95 % interval: 31.2 [29.4, 32.9]."""
    mean, low, high = (number(scale * x, digits) for x in (found["mean"], *found["ci95"]))
    return f"{mean} [{low}, {high}]"


def gap(found: dict[str, Any], policy: str, interval: bool = False) -> str:
    """The normalised gap of a policy in %; a dash if it was not measured."""
    if policy not in found["policies"]:
        return "–"
    own = found["policies"][policy]["normalized_gap"]
    return with_interval(own, 100) if interval else number(100 * own["mean"])


PLANNERS = ("posterior_mean_replanned", "certainty_equivalence", "pessimistic", "optimistic", "posterior_sampling")


RANDOM_MDPS = {  # by file: what it is in full, and beside the other sizes
    "s5": ("5 states, 3 actions, 6 decisions, 10 episodes", "5 states"),
    "s10": ("10, 4, 10 decisions, 10 episodes", "10 states"),
    "s20": ("20, 5, 10 decisions, 10 episodes", "20 states"),
    "s25": ("25, 5, 10 decisions, 10 episodes *", "25 states"),
    "s80": ("80, 5, 10 decisions, 40 episodes * (150 tasks)", "80 states"),
    "h30": ("10, 4, 30 decisions, 10 episodes *", "30 decisions"),
    "h40": ("10, 4, 40 decisions, 10 episodes", "40 decisions"),
    "planning": ("10, 4, 15 decisions, nearly deterministic, 20 episodes", "nearly deterministic"),
    "k1": ("10, 4, 10 decisions, 1 episode", "1 episode"),
    "k3": ("3 episodes", "3 episodes"),
    "k50": ("50 episodes", "50 episodes"),
    "mixture": ("10 episodes of mixed behaviors", "mixed behaviors"),
    "oracle": ("10 episodes of the oracle", "the oracle's episodes"),
}


def tabular_random() -> str:
    """The model of the package on random MDPs."""
    rows = []
    for file, (name, _) in RANDOM_MDPS.items():
        found = results(f"tabular/package/{file}")
        ratio = with_interval(found["ratios"]["fine_tuned/posterior_mean"], digits=2)
        planners = [gap(found, policy) for policy in (*PLANNERS, "myopic")]
        rows.append([name, gap(found, "fine_tuned", True), gap(found, "posterior_mean"), ratio, *planners])
    head = ["contexts of the uniform policy, unless said", "the model", "`posterior_mean`", "ratio", "replanned"]
    others = ["certainty equivalence", "pessimistic", "optimistic", "`posterior_sampling`", "`myopic`"]
    return table([*head, *others], rows)


def tabular_differences() -> str:
    """By how much the model of the package is ahead of each planner, paired over tasks."""
    rivals = ("posterior_mean", "certainty_equivalence", "pessimistic", "optimistic")
    rows = []
    for file, (_, name) in RANDOM_MDPS.items():
        advantages = results(f"tabular/package/{file}")["advantages"]
        rows.append([name, *(with_interval(advantages[rival], 100) for rival in rivals)])
    return table(["points ahead of", *(f"`{rival}`" for rival in rivals)], rows)


def planning_shares() -> str:
    """The planning share of the model of the package, where planning pays."""
    files = ("planning", "s5", "h40", "k50")
    shares = [results(f"tabular/package/{file}")["policies"]["fine_tuned"]["planning_share"] for file in files]
    head = ["", *(RANDOM_MDPS[file][1] for file in files)]
    return table(head, [["planning share", *(with_interval(share, digits=2) for share in shares)]])


def tabular_other() -> str:
    """The model of the package in families unlike those of its training."""
    names = {
        "bandit": "bandits of 5 arms (`bandit`), one episode of the uniform policy",
        "dark_room": "Dark Room, 25 decisions, 10 uniform episodes",
        "energy5": "energy chain, 5 decisions, 2 oracle episodes",
        "energy15": "energy chain, 15 decisions, 2 oracle episodes",
        "lake": "FrozenLake 4x4, 32 decisions, 50 episodes of mixed behaviors; 200 contexts",
        "cliff": "CliffWalking, 40 decisions, 50 episodes of mixed behaviors; 200 contexts",
    }
    policies = ("posterior_mean", "certainty_equivalence", "pessimistic", "myopic", "wrong_context")
    rows = []
    for file, name in names.items():
        found = results(f"tabular/package/{file}")
        rows.append([name, gap(found, "fine_tuned", True), *(gap(found, policy) for policy in policies)])
    head = ["", "the model", "`posterior_mean` of that family", "certainty equivalence", "pessimistic", "`myopic`"]
    return table([*head, "the model, wrong context"], rows)


def tabular_stages() -> str:
    """What the parts of the training of the model of the package led to."""
    positions = ("6.1 million", "24.4 million", "38.5 million", "74.5 million")
    directories = ("stages/1_", "stages/2_", "stages/3_", "package/")
    rows = []
    for read, directory in zip(positions, directories):
        found = {file: results(f"tabular/{directory}{file}") for file in ("s5", "s10", "s20", "planning")}
        ratios = (with_interval(each["ratios"]["fine_tuned/posterior_mean"], digits=2) for each in found.values())
        share = found["planning"]["policies"]["fine_tuned"]["planning_share"]
        rows.append([read, *ratios, with_interval(share, digits=2)])
    return table(["positions read", "5 states", "10", "20", "nearly deterministic", "planning share there"], rows)


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
    figure = Figure(figsize=(7.2, 3.6), layout="constrained")
    axes = figure.subplots()
    for policy, (label, color, marker) in policies.items():
        place, mean, low, high = [], [], [], []
        for y, file in enumerate(names):
            found = results(f"tabular/package/{file}")["policies"].get(policy)
            if found:
                place.append(y)
                mean.append(100 * found["normalized_gap"]["mean"])
                low.append(mean[-1] - 100 * found["normalized_gap"]["ci95"][0])
                high.append(100 * found["normalized_gap"]["ci95"][1] - mean[-1])
        axes.errorbar(mean, place, xerr=[low, high], fmt=marker, color=color, markersize=6, capsize=2, label=label)
    axes.set_yticks(range(len(names)), names.values())
    axes.invert_yaxis()
    axes.set(xlim=(0, 100), xlabel="distance to the optimum, % of that of random actions (95 % interval)")
    axes.grid(axis="x", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside upper center", ncols=3, frameon=False, fontsize=8)
    figure.savefig(ROOT / "docs/figures/unseen.png", dpi=160, metadata={"Software": None})


def rendered(text: str) -> str:
    """A document with its tables as the results files have them."""
    return MARKED.sub(lambda found: f"{found[1]}{globals()[found[2]]()}{found[3]}", text)


def main(arguments: Sequence[str]) -> None:
    differing = []
    for name in DOCUMENTS:
        text = (ROOT / name).read_text()
        if rendered(text) != text:
            differing.append(name)
            if "--check" not in arguments:
                (ROOT / name).write_text(rendered(text))
    if "--check" not in arguments:
        draw_unseen()
    if differing and "--check" in arguments:
        sys.exit(f"{', '.join(differing)} differ from the results: run python docs/render.py")


if __name__ == "__main__":
    main(sys.argv[1:])
