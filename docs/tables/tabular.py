"""The tables of docs/tabular.md: the model of the package."""

from tables import gap, results_of, table, with_interval

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
        found = results_of(f"tabular/package/{file}")
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
        advantages = results_of(f"tabular/package/{file}")["advantages"]
        rows.append([name, *(with_interval(advantages[rival], 100) for rival in rivals)])
    return table(["points ahead of", *(f"`{rival}`" for rival in rivals)], rows)


def planning_shares() -> str:
    """The planning share of the model of the package, where planning pays."""
    files = ("planning", "s5", "h40", "k50")
    shares = [results_of(f"tabular/package/{file}")["policies"]["fine_tuned"]["planning_share"] for file in files]
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
        found = results_of(f"tabular/package/{file}")
        rows.append([name, gap(found, "fine_tuned", True), *(gap(found, policy) for policy in policies)])
    head = ["", "the model", "`posterior_mean` of that family", "certainty equivalence", "pessimistic", "`myopic`"]
    return table([*head, "the model, wrong context"], rows)


def tabular_stages() -> str:
    """What the parts of the training of the model of the package led to."""
    positions = ("6.1 million", "24.4 million", "38.5 million", "74.5 million")
    directories = ("stages/1_", "stages/2_", "stages/3_", "package/")
    rows = []
    for read, directory in zip(positions, directories):
        found = {file: results_of(f"tabular/{directory}{file}") for file in ("s5", "s10", "s20", "planning")}
        ratios = (with_interval(each["ratios"]["fine_tuned/posterior_mean"], digits=2) for each in found.values())
        share = found["planning"]["policies"]["fine_tuned"]["planning_share"]
        rows.append([read, *ratios, with_interval(share, digits=2)])
    return table(["positions read", "5 states", "10", "20", "nearly deterministic", "planning share there"], rows)


def long_speed() -> str:
    """Time and memory against the length of the context."""
    found = {row["name"]: row for row in results_of("long_context", "benchmarks/results")["rows"]}
    columns = {
        "reading it": "reading",
        "one decision": "decision",
        "one training step": "training step",
        "its memory": "memory of a training step, activations computed again",
        "without `model.remat`": "memory of a training step, activations kept",
    }
    rows = []
    for length in (500, 1000, 2000, 5000):
        cells = [found[f"context of {length} steps, {name}"] for name in columns.values()]
        rows.append([f"{length:,}", *(_amount(cell["value"], cell["unit"]) for cell in cells)])
    powers = [
        found[f"time of a {name} as a power of the length of the context"]["value"]
        for name in list(columns.values())[:3]
    ]
    rows.append(["grows with the power", *(f"{power:.1f}" for power in powers), "2", "2"])
    return table(["steps in the context", *columns], rows)


def _amount(x: float, unit: str) -> str:
    """Two digits with their unit, the next larger unit from some thousand on."""
    larger = {"ms": ("s", 1000), "MiB": ("GiB", 1024)}
    name, factor = larger[unit]
    if x >= 300:
        x, unit = x / factor, name
    digits = 0 if x >= 10 else 1 if x >= 1 or unit == "ms" else 2
    return f"{x:.{digits}f} {unit}"


def long_contexts() -> str:
    """What the model makes of long contexts."""
    rows = []
    for episodes in (10, 50, 200):
        found = results_of(f"tabular/long/mixture_{episodes}")
        policies = ("fine_tuned", "certainty_equivalence", "copy")
        rows.append([str(episodes), *(gap(found, policy, True) for policy in policies), gap(found, "wrong_context")])
    return table(
        ["episodes in the context", "the model", "certainty equivalence", "`copy`", "the model, wrong context"], rows
    )


def trainings() -> str:
    """Trainings that came before, and what each reached."""
    tried = {
        "one part alone": ("one_part", "0.2 M", "900 x 32", "2"),
        "six parts (`results/tabular/six_parts/`)": ("six_parts/", "0.2 M", "2,200 x 25", "12"),
        "twelve parts at once (`results/tabular/twelve_parts/`)": ("twelve_parts/", "0.7 M", "2,700 x 27", "55"),
        "six parts, then ten, then twelve": ("stages/3_", "0.23 M", "2,000 x 25, 7,500 x 34", "97"),
        "then fifteen, Q* where the record says who acted: the model of the package": (
            "package/",
            "0.23 M",
            "6,400 x 41 more",
            "112 more, one core",
        ),
    }
    rows = []
    for name, (files, *spent) in tried.items():
        if files == "one_part":
            cells = [gap(results_of(f"tabular/{files}"), "fine_tuned", True), "", "", ""]
        else:
            own = {file: results_of(f"tabular/{files}{file}") for file in ("s5", "s10", "s20", "planning")}
            cells = [gap(found, "fine_tuned", file in ("s5", "planning")) for file, found in own.items()]
        rows.append([name, *spent, *cells])
    return table(["", "weights", "steps x rows", "minutes", "5 states", "10", "20", "nearly deterministic"], rows)
