"""The tables of docs/language_models.md: a published language model beside small ones."""

from typing import Any

from tables import at, compared, percent, results_of, table, with_interval

LEARNERS = {  # a row's name: (learner, policy)
    "untuned language model": ("language", "in_context"),
    "tuned language model": ("language", "fine_tuned"),
    "the same, another task's context": ("language", "wrong_context"),
    "`small`, the same rows": ("small", "fine_tuned"),
    "`small_looped`": ("small_looped", "fine_tuned"),
}


def chain() -> str:
    """Gaps on the energy chain."""
    columns = {f"T = {t}": (f"energy_horizon_{t}", {"distinct_tasks": 100}) for t in (5, 10)}
    columns["T = 15, 2 seeds"] = ("energy_horizon_15", {"distinct_tasks": 100})
    return _gaps("gap, %, 100 training tasks", columns, ("posterior_mean", "copy", "random"), "gap", 2)


def random_mdp() -> str:
    columns = {
        "2 oracle episodes, 3 seeds, 300 tasks": ("random_mdp_three_seeds", {"context": "oracle"}),
        "10 uniform episodes, 1 seed": ("random_mdp", {"context": "uniform"}),
    }
    head = "normalised gap, %, `random_mdp`, 100 training tasks"
    return _gaps(head, columns, ("posterior_mean", "copy"), "normalized_gap", 1)


def random_mdp_further() -> str:
    columns = {
        "400 training tasks, 2 oracle episodes": ("random_mdp_400", {}),
        "100 training tasks, 6 mixed episodes": ("random_mdp_mixed", {}),
    }
    head = "normalised gap, %, `random_mdp`, 100 unseen tasks, 1 seed"
    return _gaps(head, columns, ("posterior_mean", "posterior_mean_replanned", "copy"), "normalized_gap", 1)


def meter() -> str:
    """Gaps with an unreliable meter."""
    columns = {
        name: ("pomdp", {"problem": f"energy_pomdp:fidelity={fidelity}"})
        for name, fidelity in (("right with probability .5", 0.5), (".8", 0.8))
    }
    head = "gap, %, energy chain with an unreliable meter, T = 5, 100 training tasks"
    return _gaps(head, columns, ("posterior_mean", "copy"), "gap", 2)


def _gaps(
    head: str, columns: dict[str, tuple[str, dict[str, Any]]], references: tuple[str, ...], metric: str, digits: int
) -> str:
    """A row for each learner and reference, a column for each (file, point)."""
    rows = []
    for name, (learner, policy) in LEARNERS.items():
        cells = [at(results_of(f"language/{file}"), **point, learner=learner) for file, point in columns.values()]
        rows.append([name, *(percent(found["policies"][policy][metric], digits) for found in cells)])
    for policy in references:
        cells = [at(results_of(f"language/{file}"), **point, learner="language") for file, point in columns.values()]
        rows.append([f"`{policy}`", *(percent(found["policies"][policy][metric], digits) for found in cells)])
    return table([head, *columns], rows)


def differences() -> str:
    """The language model less the small ones, task by task."""
    places: dict[str, tuple[str, dict[str, Any]]] = {
        "energy chain, 5 decisions": ("energy_horizon_5", {"distinct_tasks": 100}),
        "energy chain, 10 decisions": ("energy_horizon_10", {}),
        "energy chain, 15 decisions, 2 seeds": ("energy_horizon_15", {}),
        "energy chain, meter right with probability .5": ("pomdp", {"problem": "energy_pomdp:fidelity=0.5"}),
        "energy chain, meter right with probability .8": ("pomdp", {"problem": "energy_pomdp:fidelity=0.8"}),
        "`random_mdp`, oracle contexts, 3 seeds": ("random_mdp_three_seeds", {}),
        "`random_mdp`, oracle contexts, 400 training tasks": ("random_mdp_400", {}),
        "`random_mdp`, mixed contexts": ("random_mdp_mixed", {}),
        "`random_mdp`, uniform contexts": ("random_mdp", {"context": "uniform"}),
    }
    rows = []
    for name, (file, point) in places.items():
        found = results_of(f"language/{file}")
        rows.append(
            [
                name,
                *(
                    with_interval(compared(found, "language", other, **point), 100)
                    for other in ("small", "small_looped")
                ),
            ]
        )
    return table(["", "against `small`, per row shown", "against `small_looped`, per task"], rows)


def support() -> str:
    """Against the number of context episodes."""
    found = results_of("language/contexts")["policies"]
    columns = {
        "none": None,
        "1 oracle episode": "@oracle:1",
        "2": "",
        "4": "@oracle:4",
        "2 uniform episodes": "@uniform:2",
    }
    rows = []
    for name, policy in (("tuned", "fine_tuned"), ("untuned", "in_context"), ("`copy`", "copy")):
        none = percent(found["no_context"]["gap"], 2) if policy == "fine_tuned" else "-"
        cells = [none if at is None else percent(found[policy + at]["gap"], 2) for at in columns.values()]
        rows.append([name, *cells])
    return table(["support of the T = 5 model, gap in %, 50 other tasks", *columns], rows)


def forms() -> str:
    """The untuned model in three forms of text."""
    found = results_of("language/forms")
    texts = ("terse", "words", "paper")
    runs = [at(found, text=text)["policies"] for text in texts]
    rows = [
        ["two oracle episodes", *(percent(run["in_context"]["gap"]) for run in runs), percent(runs[0]["copy"]["gap"])],
        ["no context", *(percent(run["no_context"]["gap"]) for run in runs), "-"],
        [
            "decisions for the action seen most often",
            *(f"{100 * run['in_context']['repeats']['mean']:.0f} %" for run in runs),
            "",
        ],
    ]
    return table(["untuned, T = 5, gap in %, 25 other tasks", *(f"`{text}`" for text in texts), "`copy`"], rows)


def speed() -> str:
    """Beside transformers and peft."""
    found = {row["name"]: row for row in results_of("language", "benchmarks/results")["rows"]}
    names = {
        "step, activations kept": ("adapter step of SmolLM2, activations kept", "tokens/s", 0),
        "memory": ("adapter step of SmolLM2, activations kept, memory of the process", "GiB", 1),
        "step, activations computed again (the default here)": (
            "adapter step of SmolLM2, activations computed again",
            "tokens/s",
            0,
        ),
        "memory, activations computed again": (
            "adapter step of SmolLM2, activations computed again, memory of the process",
            "GiB",
            2,
        ),
        "acting, 8 rows with their contexts": ("decisions of SmolLM2, 8 rows with their contexts", "decisions/s", 1),
    }
    rows = []
    for name, (row, unit, digits) in names.items():
        own = found[row]
        cells = [f"{own[which]:.{digits}f} {unit}" for which in ("value", "reference")]
        rows.append([name, *cells, f"{own['ratio']:.2f}"])
    return table(["adapters of SmolLM2, 8 rows of 69 tokens, float32", "here", "transformers + peft", "ratio"], rows)
