"""The tables of docs/logs.md: off-policy estimates beside the truth, ways to read features, two made-up hospitals."""

from typing import Any

from tables import number, results_of, table, with_interval

ESTIMATES = {"pdwis": "per-decision WIS", "dr": "doubly robust", "wdr": "weighted doubly robust", "fqe": "fitted-Q"}


def off_policy() -> str:
    """How near off-policy estimates come to the truth."""

    def cell(found: dict[str, Any]) -> str:
        if found["absolute_error"] is None:
            return "–"
        share, (low, high) = found["coverage"]
        inside = f"{100 * share:.0f} [{100 * low:.0f}, {100 * high:.0f}]"
        return f"{number(found['absolute_error'], 3)}, {inside}, {number(found['rank_correlation'], 2)}"

    rows = []
    for title, sizes in results_of("off_policy", "benchmarks/results")["tables"].items():
        name = title.removesuffix(" behaviour probabilities")
        for n, found in sizes.items():
            unwarned = found["pdwis"]["absolute_error_unwarned"]
            beside = "–" if unwarned is None else number(unwarned, 3)
            counts = [str(found["logs"]), f"{100 * found['refused']:.0f}", f"{100 * found['warned']:.0f}"]
            cells = [cell(found[estimate]) for estimate in ESTIMATES]
            rows.append([name, f"{int(n):,}", *counts, cells[0], beside, *cells[1:]])
    head = ["log", "episodes", "logs", "refused, %", "warned, %", ESTIMATES["pdwis"], "its error, not warned"]
    return table([*head, *list(ESTIMATES.values())[1:]], rows)


def labels() -> str:
    """What pessimistic labels are worth as policies."""
    scales = {"random_mdp": (1, 2), "icu_sepsis": (100, 1)}
    found, rows = results_of("labels", "benchmarks/results")["values"], []
    for policy in found["random_mdp"]:
        cells = [with_interval(found[name][policy], *scale) for name, scale in scales.items()]
        rows.append([f"`{policy}`" if policy in ("pessimistic", "frequencies") else policy, *cells])
    return table(["", "random MDPs, reward", "ICU-Sepsis, survival in %"], rows)


def encodings() -> str:
    """Ways to read several features, by the gap of what is learned."""
    names = {"pieces": "24 quantiles", "linear": "linear", "states": "states"}
    rows = []
    for world, found in results_of("features/encodings")["worlds"].items():
        gaps = [with_interval(found[name]["normalized_gap"], 100) for name in names]
        costs = [f"{found[name]['cpu_seconds']:.0f} s, {found[name]['numbers']}" for name in names]
        rows.append([_world(world), *gaps, *costs])
    head = [*(f"gap in %, {name}" for name in names.values()), *(f"time, numbers, {name}" for name in names.values())]
    return table(["", *head], rows)


def tokens() -> str:
    """One token for each feature beside numbers in one position, trained alike and played with the same draws."""
    rows = []
    for world, found in results_of("features/tokens")["worlds"].items():
        gaps = [with_interval(found[name]["normalized_gap"], 100) for name in ("pieces", "tokens")]
        difference = with_interval(found["tokens"]["gap_less_that_of_pieces"], 100)
        costs = [
            f"{found[name]['positions']:,}, {number(1000 * found[name]['seconds_per_update'], 0)} ms"
            for name in ("pieces", "tokens")
        ]
        rows.append([_world(world), *gaps, difference, *costs])
    head = ["gap in %, 24 quantiles", "gap in %, a token each", "difference", "positions, update, 24 quantiles"]
    return table(["", *head, "positions, update, a token each"], rows)


def _world(name: str) -> str:
    return "hospital" if name == "hospital" else f"random MDP {name.removeprefix('random_mdp_')}"


HOSPITALS = {"measured": "go by the log", "known": "know the state"}
LABELS = ("pessimistic", "best_return", "imitation")


def hospitals() -> str:
    """What is learned from made-up hospitals, in truth."""
    found = results_of("features/hospital")
    rows = []
    for key, title in (("uniform", "uniform actions"), ("optimum", "the optimum of who knows the state")):
        rows.append([title, *(number(100 * found[name][key]) for name in HOSPITALS)])
    rows.append(["the clinicians", *(with_interval(found[name]["clinicians"], 100) for name in HOSPITALS)])
    for labels in LABELS:
        own = [found[name]["learned"][labels] for name in HOSPITALS]
        rows.append([f"learned by `{labels}`, drawing its actions", *(with_interval(x["drawn"], 100) for x in own)])
        rows.append([f"learned by `{labels}`, the best action", *(with_interval(x["best"], 100) for x in own)])
    for n in found["measured"]["states"]:
        own = [found[name]["states"][n] for name in HOSPITALS]
        rows.append([f"`pessimistic` in {n} states, in 300 steps", *(with_interval(x, 100) for x in own)])
    return table(["survival in %, in truth; those who treat", *HOSPITALS.values()], rows)


def hospital_estimates() -> str:
    """The same of what draws its actions, as `icdm ope` estimates it from another log."""
    found, rows = results_of("features/hospital"), []
    for name, going in HOSPITALS.items():
        for labels in LABELS:
            own = found[name]["learned"][labels]
            for kind, estimate in own["estimates"].items():
                start = [going, f"`{labels}`", kind, with_interval(own["drawn"], 100)]
                if "refused" in estimate:
                    rows.append([*start, "refused", *[""] * len(ESTIMATES)])
                    continue
                weights = f"{number(estimate['mean_weight'], 2)}{'!' * bool(estimate['warnings'])}"
                weights += f", {estimate['effective_sample_size']:.0f}"
                cells = (with_interval(estimate["estimates"][key], 100) for key in ESTIMATES)
                rows.append([*start, weights, *cells])
    head = ["those who treat", "labels", "probabilities", "truth, %", "mean weight, sample size", *ESTIMATES.values()]
    return table(head, rows)
