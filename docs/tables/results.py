"""The tables of docs/results.md: what each experiment with a results file reached."""

from typing import Any, NamedTuple

from tables import at, percent, results_of, table


class Measured(NamedTuple):
    """One experiment.

    Attributes:
      what: the config and what is measured of it.
      file: of its results.
      metric: the one that is told.
      policies: told of the run, the reference last.
      published: what a paper reports.
      point: of a sweep.
    """

    what: str
    file: str
    metric: str
    policies: tuple[str, ...]
    published: str = ""
    point: dict[str, Any] = {}


CHAIN = ("fine_tuned", "in_context", "no_context", "random")
MDP = ("fine_tuned", "posterior_mean_replanned", "posterior_mean", "certainty_equivalence", "myopic")
LANGUAGE = {"learner": "language", "distinct_tasks": 100}
MEASURED = (
    Measured("`demo`: energy chain, 5 decisions", "demo/demo", "gap", CHAIN, "3-5; random 57.6"),
    Measured(
        "`language_sweep`: the same, SmolLM2 with adapters",
        "language/energy_horizon_5",
        "gap",
        ("fine_tuned", "in_context", "random"),
        "3-5; random 57.6",
        LANGUAGE,
    ),
    Measured(
        "10 decisions",
        "language/energy_horizon_10",
        "gap",
        ("fine_tuned", "in_context", "random"),
        "15; random 49.6",
        LANGUAGE,
    ),
    Measured(
        "15 decisions, 2 seeds",
        "language/energy_horizon_15",
        "gap",
        ("fine_tuned", "in_context", "random"),
        "15; in context only 43.2; random 46.4",
        LANGUAGE,
    ),
    Measured("`planning`: random MDPs, 15 decisions", "planning/planning", "normalized_gap", MDP),
    Measured("model of the package, 10 states", "tabular/package/s10", "normalized_gap", MDP),
    Measured("model of the package, 20 states", "tabular/package/s20", "normalized_gap", MDP),
    Measured(
        "`task_efficiency`: 64 tasks of random MDPs, from the model of the package",
        "task_efficiency/random_mdp",
        "normalized_gap",
        ("fine_tuned", "posterior_mean", "certainty_equivalence"),
        point={"distinct_tasks": 64, "start": "tabular"},
    ),
    Measured(
        "the same from nothing",
        "task_efficiency/random_mdp",
        "normalized_gap",
        ("fine_tuned",),
        point={"distinct_tasks": 64, "start": "nothing"},
    ),
)
WORDS = {"gap": "gap", "normalized_gap": "normalised gap"}


def measured() -> str:
    rows = []
    for each in MEASURED:
        found = results_of(each.file)
        policies = (at(found, **each.point) if "runs" in found else found)["policies"]
        digits = 2 if each.metric == "gap" else 1
        told = [f"`{name}` {percent(policies[name][each.metric], digits)}" for name in each.policies]
        file = f"[{each.file}](../results/{each.file}.json)"
        rows.append([each.what, WORDS[each.metric], "; ".join(told), each.published, file])
    return table(["experiment", "%", "measured", "paper", "file"], rows)
