"""The tables of docs/results.md: what the experiments with a results file reached."""

from typing import Any

from tables import at, percent, results_of, table, with_interval

LANGUAGE = {"learner": "language", "distinct_tasks": 100}
CHAIN = {  # by file: what was measured, at which point of a sweep, and the paper's fine_tuned and random
    "demo/demo": ("`demo`, 5 decisions", {}, "3-5", "57.6"),
    "energy/horizon_5": ("`energy`, 5 decisions", {}, "3-5", "57.6"),
    "energy/horizon_10": ("10 decisions", {}, "15", "49.6"),
    "energy/horizon_15": ("15 decisions", {}, "15 (`in_context` 43.2)", "46.4"),
    "language/energy_horizon_5": ("`language_sweep`, SmolLM2, 5 decisions", LANGUAGE, "3-5", "57.6"),
    "language/energy_horizon_10": ("10 decisions", LANGUAGE, "15", "49.6"),
    "language/energy_horizon_15": ("15 decisions, 2 seeds", LANGUAGE, "15 (`in_context` 43.2)", "46.4"),
}
FEW = {"distinct_tasks": 64, "start": "tabular"}
MDPS = (  # what was measured, file, point of a sweep
    ("`random_mdp`, 5 states, 3 actions, 6 decisions", "random_mdp/random_mdp", {}),
    ("`pretraining`, interleaved tokens, 4 episodes", "random_mdp/pretraining", {}),
    ("`planning`, nearly deterministic", "planning/planning", {}),
    ("the model of the package, 5 states", "tabular/package/s5", {}),
    ("10 states", "tabular/package/s10", {}),
    ("20 states", "tabular/package/s20", {}),
    ("`task_efficiency`, 64 tasks of 5 states, from that model", "task_efficiency/random_mdp", FEW),
    ("the same from nothing", "task_efficiency/random_mdp", FEW | {"start": "nothing"}),
)
METERS = {"energy": "fully observed"} | {f"energy_pomdp:fidelity={q}": str(q) for q in (0.8, 0.5)}
UNDER = {  # a column's name: policy, metric
    "`fine_tuned`, nominal model": ("fine_tuned", "gap"),
    "`oracle`, nominal model": ("oracle", "gap"),
    "`fine_tuned`, worst model": ("fine_tuned", "worst_gap"),
    "`nominal_oracle`, worst model": ("nominal_oracle", "worst_gap"),
    "`no_context`, worst model": ("no_context", "worst_gap"),
}
HORIZONS = (5, 15)  # of the part of the paper's grid that was run
READERS = ("fine_tuned", "posterior_mean_replanned", "posterior_mean", "certainty_equivalence", "myopic")


def chain() -> str:
    """Gaps on the energy chain."""
    rows = []
    for file, (what, point, *published) in CHAIN.items():
        policies = _policies(file, point)
        gaps = [percent(policies[name]["gap"], 2) for name in ("fine_tuned", "in_context", "random")]
        rows.append([_linked(what, file), *gaps, *published])
    return table(["", "`fine_tuned`", "`in_context`", "`random`", "paper: fine-tuned", "random"], rows)


def mdps() -> str:
    """Normalised gaps in random MDPs."""
    rows = []
    for what, file, point in MDPS:
        policies = _policies(file, point)
        rows.append([_linked(what, file), *(percent(policies[name]["normalized_gap"]) for name in READERS)])
    return table(["", *(f"`{name}`" for name in READERS)], rows)


def hidden() -> str:
    """Normalised gaps where the state is hidden."""
    names = ("fine_tuned", "no_context", *READERS[2:4], "fast_informed", "qmdp", "most_likely_state")
    rows = []
    for what, file in (("`tiger`", "tiger/tiger"), ("`random_pomdp`", "random_pomdp/random_pomdp")):
        policies = _policies(file, {})
        rows.append([_linked(what, file), *(_percent_if_there(policies, name, "normalized_gap") for name in names)])
    return table(["", *(f"`{name}`" for name in names)], rows)


def meters() -> str:
    """Gaps on the energy chain by the reliability of its meter."""
    names = ("fine_tuned", "posterior_mean", "qmdp", "most_likely_state", "no_context", "in_context", "random")
    found, rows = results_of("energy/paper_sweep"), []
    for problem, meter in METERS.items():
        for horizon in HORIZONS:
            policies = at(found, problem=problem, horizon=horizon)["policies"]
            rows.append([meter, str(horizon), *(_percent_if_there(policies, name, "gap") for name in names)])
    return table(["meter right with probability", "decisions", *(f"`{name}`" for name in names)], rows)


def clouds() -> str:
    """Gaps on the ambiguous energy chain, under the nominal and the worst model of each set."""
    found, rows = results_of("energy/paper_sweep"), []
    for alpha in ("0.0", "1.0"):
        for horizon in HORIZONS:
            policies = at(found, problem=f"energy_apomdp:n_models=3,pessimism={alpha}", horizon=horizon)["policies"]
            cells = (percent(policies[name][metric], 2) for name, metric in UNDER.values())
            rows.append([alpha, str(horizon), *cells])
    return table(["pessimism", "decisions", *UNDER], rows)


def bandit() -> str:
    """Held-out labels and regret of the bandit of DPT."""
    found = results_of("dpt/bandit")
    rules = ("posterior_mean_greedy", "empirical_mean", "ucb", "thompson_sampling", "random")
    rows = [
        ["the transformer, greedy", with_interval(found["test_cross_entropy"], digits=3)],
        ["the transformer, actions drawn", ""],
        ["Bayes, given the family: `posterior_mean_greedy`", with_interval(found["bayes_cross_entropy"], digits=3)],
        *([f"`{name}`", ""] for name in rules[1:]),
    ]
    policies = ("fine_tuned", "fine_tuned_sampled", *rules)
    regrets = [with_interval(found["policies"][name]["regret"], digits=2) for name in policies]
    return table(["", "test cross-entropy", "regret"], [[*row, regret] for row, regret in zip(rows, regrets)])


def dark_room() -> str:
    """Held-out labels of the Dark Room of DPT."""
    found = results_of("dpt/dark_room")
    rows = [
        ["the transformer", with_interval(found["test_cross_entropy"], digits=3)],
        ["Bayes, every cell as likely a goal", with_interval(found["bayes_cross_entropy"], digits=3)],
    ]
    return table(["", "test cross-entropy"], rows)


def sepsis() -> str:
    """Survival in ICU-Sepsis, and the share of the difference between clinicians and optimum that is closed."""
    found = results_of("icu_sepsis/icu_sepsis")
    rows = []
    for name in ("oracle", "fine_tuned", "no_context", "in_context", "expert", "random"):
        closed = found["closed_from_expert"].get(name)
        survives = percent(found["policies"][name]["value"], 2)
        rows.append([f"`{name}`", survives, percent(closed) if closed else ""])
    return table(["", "survive, %", "closed from the clinicians to the optimum, %"], rows)


def _policies(file: str, point: dict[str, Any]) -> dict[str, Any]:
    found = results_of(file)
    return (at(found, **point) if "runs" in found else found)["policies"]


def _percent_if_there(policies: dict[str, Any], name: str, metric: str) -> str:
    return percent(policies[name][metric], 2) if name in policies else "–"


def _linked(what: str, file: str) -> str:
    return f"[{what}](../results/{file}.json)"
