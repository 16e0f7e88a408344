"""The tables of docs/planning.md: gaps and planning shares."""

from tables import compared, gap, results_of, table, with_interval


def policies() -> str:
    """Between the reader that does not plan and the one that does."""
    found = results_of("planning/planning")
    names = {
        "posterior_mean_replanned": "`posterior_mean_replanned`",
        "fine_tuned": "`fine_tuned`",
        "posterior_mean": "`posterior_mean`, which reads the context alone",
        "certainty_equivalence": "`certainty_equivalence`",
        "myopic": "`myopic`",
        "wrong_context": "`fine_tuned` with another task's context",
    }
    ends = {"posterior_mean_replanned": "1", "myopic": "0", "wrong_context": ""}
    rows = []
    for policy, name in names.items():
        share = found["policies"][policy].get("planning_share")
        rows.append([name, gap(found, policy, True), ends.get(policy, with_interval(share, digits=2) if share else "")])
    return table(["policy", "normalised gap, %", "planning share"], rows)


def settings() -> str:
    """What is lost without one setting at a time."""
    found = results_of("planning/sweep")
    names = {
        "planning": "`planning`, all of them",
        "causal": "`causal`, no prefix attention",
        "oracle_labels": "`oracle_labels`, Q* of the task as labels",
        "last_layer": "`last_layer`, no iterates",
    }
    rows = []
    for run in sorted(found["runs"], key=lambda run: list(names).index(run["point"]["setting"])):
        setting = run["point"]["setting"]
        lost = "" if setting == "planning" else with_interval(compared(found, setting, "planning"), 100)
        share = with_interval(run["policies"]["fine_tuned"]["planning_share"], digits=2)
        rows.append([names[setting], gap(run, "fine_tuned", True), share, lost])
    return table(["setting", "normalised gap, %", "planning share", "gap less that of `planning`, points"], rows)
