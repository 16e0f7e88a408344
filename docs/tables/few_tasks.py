"""The tables of docs/few_tasks.md: gaps against the number of training tasks."""

from tables import at, compared, gap, results_of, table


def random_mdp() -> str:
    return _against_tasks("random_mdp", ("rich",))


def energy() -> str:
    return _against_tasks("energy", ("rich", "paper"))


def _against_tasks(file: str, kinds: tuple[str, ...]) -> str:
    """Both learners for each kind of data and number of tasks."""
    found, rows = results_of(f"task_efficiency/{file}"), []
    for data in kinds:
        for n in found["sweep"]["distinct_tasks"]:
            here = dict(data=data, distinct_tasks=n)
            nothing, pretrained = (at(found, **here, start=start) for start in ("nothing", "tabular"))
            gaps = [gap(each, "fine_tuned", True) for each in (nothing, pretrained)]
            ahead = compared(found, "nothing", "tabular", **here)
            policies = {"difference": {"normalized_gap": ahead}}
            rows.append(
                [data, str(n), *gaps, gap({"policies": policies}, "difference", True), gap(nothing, "memoriser", True)]
            )
    head = ["data", "N", "`nothing`", "`tabular`", "`nothing` less `tabular`", "`memoriser`"]
    return table(head, rows)
