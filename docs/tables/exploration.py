"""The tables of docs/exploration.md: who explores, from nothing."""

from tables import percent, results_of, table, with_interval

EPISODES = {"regret": "regret", "optimal": "optimal decisions, %", "tried": "pairs tried, %"}
PULLS = {
    "regret": "regret",
    "optimal": "optimal pulls, %",
    "suffix_failure": "SuffFailFreq, %",
    "least_pulled": "K MinFrac",
}


def bandits() -> str:
    """Arms as in training; the models of both kinds of labels met the same tasks."""
    found = {}
    for labels in ("advantage", "argmax"):
        for name, own in results_of(f"exploration/bandit_{labels}")["exploration"].items():
            found[_named(name, f"`{labels}`")] = own
    return _explored(found, PULLS, "gap of the last pull, %")


def hard_bandits() -> str:
    own = results_of("exploration/hard_argmax")["exploration"]
    return _explored({_named(name, "`argmax`"): each for name, each in own.items()}, PULLS, "gap of the last pull, %")


def random_mdp() -> str:
    return _of_the_package("exploration/random_mdp")


def larger() -> str:
    return _of_the_package("tabular/long/own")


def _of_the_package(file: str) -> str:
    found = {_named(name, "the model"): own for name, own in results_of(file)["exploration"].items()}
    return _explored(found, EPISODES, "gap of the last episode, %")


def _named(name: str, model: str) -> str:
    """A model's policy by the model, and how it acts; a reference by its name."""
    how = {"fine_tuned": "greedy", "fine_tuned_sampled": "sampled"}.get(name)
    return f"**{model}, {how}**" if how else f"`{name}`"


def _explored(found: dict[str, dict], measures: dict[str, str], last: str) -> str:
    """A row for everybody, the least regret first."""
    rows = []
    for name, own in sorted(found.items(), key=lambda item: item[1]["regret"]["mean"]):
        cells = [_cell(measure, own[measure]) for measure in measures]
        rows.append([name, *cells, percent(own["by_episode"][-1])])
    return table(["", *measures.values(), last], rows)


def _cell(measure: str, found: dict) -> str:
    if measure == "least_pulled":
        return with_interval(found, digits=2)
    return with_interval(found) if measure == "regret" else percent(found)
