"""The combined results and report of a sweep: seeds pooled, gaps drawn against what was swept."""

import json
import pathlib

import matplotlib.pyplot as plt
import numpy as np

from experiments import report
from experiments.experiment import summaries
from experiments.published import published_gaps
from icdm.evaluation.summary import interval
from icdm.problems.family import parse_parameters
from icdm.runs.settings import as_json

DRAWN = (
    "random",
    "in_context",
    "no_context",
    "fine_tuned",
    "posterior_mean",
    "certainty_equivalence",
    "qmdp",
    "most_likely_state",
    "nominal_oracle",
)
LOWEST = 1e-4  # of a gap drawn on a logarithmic scale


def pool(point: dict, runs: list[pathlib.Path]) -> dict:
    """One entry of a sweep's results: the tasks of all seeds together, as results.json has them."""
    found = [json.loads((run / "results.json").read_text()) for run in runs]
    values = [np.load(run / "values.npz") for run in runs]

    def together(name):
        arrays = [v[name] for v in values]
        return arrays[0] if all(a.size == 1 for a in arrays) else np.concatenate(arrays)

    return {
        "point": point,
        "family": found[0]["family"],
        "config_hash": [result["config_hash"] for result in found],
        "seeds": [seed for result in found for seed in result["seeds"]],
        "oracle": found[0]["oracle"],
        **summaries({name: together(name) for name in values[0].files}),
        "seconds": {phase: sum(r["seconds"][phase] for r in found) for phase in found[0]["seconds"]},
    }


def trends(entries: list[dict]) -> dict[str, dict]:
    """Does the gain from fine-tuning, gap(in_context) - gap(fine_tuned), grow along each parameter of the problems?

    For every parameter: of all settings that differ in it alone, the change of the gain from its smallest to its
    largest value, mean and 95 % interval over settings, and in how many of them it grows.
    """
    found = {}
    entries = [entry for entry in entries if "in_context" in entry["policies"]]
    points = [(parameters(entry), entry) for entry in entries]
    for name in ("horizon", "fidelity", "n_models", "pessimism"):
        settings = {}
        for point, entry in clouds(entries) if name == "n_models" else points:
            if name in point:
                rest = tuple((k, v) for k, v in sorted(point.items()) if k not in (name, "problem"))
                settings.setdefault((*rest, point.get("problem", "").split(":")[0]), {})[point[name]] = gain(entry)
        changes = np.array([s[max(s)] - s[min(s)] for s in settings.values() if len(s) > 1])
        if changes.size:
            found[name] = {"grows_in": int((changes > 0).sum()), "settings": int(changes.size), **interval(changes)}
            del found[name]["n_tasks"]
    return found


def gain(entry: dict) -> float:
    return entry["policies"]["in_context"]["gap"]["mean"] - entry["policies"]["fine_tuned"]["gap"]["mean"]


def write(workdir: pathlib.Path, results: dict, config) -> None:
    """report.html of the sweep, with a table for each point and the gaps against everything that was swept."""
    entries, axes = results["runs"], results["sweep"]
    tables = []
    for entry in entries:
        horizon = entry["point"].get("horizon", config.horizon)
        heading = ", ".join(f"{name} = {value}" for name, value in entry["point"].items()) or entry["family"]
        if "bracket" in entry:
            heading += f" (oracle {entry['oracle']['method']}, bracket {100 * entry['bracket']['mean']:.2f} %)"
        tables.append(report.policy_table(heading, entry["policies"], published_gaps(entry["family"], horizon)))
    pictures = [(caption, report.save(workdir, name, figure)) for name, caption, figure in drawings(entries, axes)]
    report.render(
        workdir / "report.html",
        title=f"{config.family}: sweep over {', '.join(axes) or 'seeds'}",
        tables=tables,
        pictures=pictures,
        results={
            "seconds": {phase: sum(e["seconds"][phase] for e in entries) for phase in entries[0]["seconds"]},
            "seeds": entries[0]["seeds"],
            "config_hash": ", ".join(h for e in entries for h in e["config_hash"]),
            "trends": results["trends"],
        },
        config=as_json(config),
    )


def drawings(entries: list[dict], axes: dict):
    """(file name, caption, figure) of every picture: gaps against each numeric axis, problem by problem."""
    for name, values in axes.items():
        if len(values) > 1 and all(isinstance(value, (int, float)) for value in values):
            for metric in ("gap", "normalized_gap"):
                caption = f"{metric.replace('_', ' ').capitalize()} against {name}"
                yield f"{metric}_against_{name}", caption, panels(by_problem(entries), name, metric)
    in_clouds = clouds(entries)
    if in_clouds:
        for name, other in (("pessimism", "n_models"), ("n_models", "pessimism")):
            groups = {}
            for numbers, entry in in_clouds:
                title = f"{other.replace('_', ' ')} = {numbers[other]}"
                groups.setdefault(title, []).append(entry | {"point": numbers})
            for metric in ("gap", "worst_gap"):
                caption = (
                    f"{metric.replace('_', ' ').capitalize()} against {name.replace('_', ' ')}, mean over horizons"
                )
                yield f"{metric}_against_{name}", caption, panels(groups, name, metric)


def parameters(entry: dict) -> dict:
    """The point of an entry with the parameters of its problem as numbers of their own."""
    return entry["point"] | parse_parameters(entry["point"].get("problem", ""))[1]


def clouds(entries: list[dict]) -> list[tuple[dict, dict]]:
    """Parameters and entry of each cloud of a grid of problems.

    To one model pessimism means nothing: its entry stands at every pessimism that is swept.
    """
    points = [(parameters(entry), entry) for entry in entries]
    points = [(point, entry) for point, entry in points if {"n_models", "pessimism"} <= point.keys()]
    swept = sorted({point["pessimism"] for point, _ in points})
    return [
        (point | {"pessimism": alpha}, entry)
        for point, entry in points
        for alpha in (swept if point["n_models"] == 1 else [point["pessimism"]])
    ]


def by_problem(entries: list[dict]) -> dict[str, list[dict]]:
    """Entries by what is drawn in one panel: a problem, or all clouds of one size."""
    groups = {}
    for entry in entries:
        numbers = parameters(entry)
        if "n_models" in numbers:
            title = f"cloud of {numbers['n_models']}" + (", mean over pessimism" if numbers["n_models"] > 1 else "")
        else:
            title = entry["point"].get("problem", entry["family"]).replace(":", ", ").replace("=", " ")
        groups.setdefault(title, []).append(entry)
    return groups


def panels(groups: dict[str, list[dict]], name: str, metric: str):
    """One panel for each group of entries, on one logarithmic scale where there are several."""
    columns = min(len(groups), 3)
    rows = -(-len(groups) // columns)
    size = (max(6.0, 4.0 * columns), 3.6 * rows)
    figure, axes = plt.subplots(rows, columns, figsize=size, squeeze=False, sharey=True, layout="constrained")
    for axis in axes.ravel()[len(groups) :]:
        axis.set_visible(False)
    for axis, (title, entries) in zip(axes.ravel(), groups.items()):
        curves(axis, entries, name, metric)
        if len(groups) > 1:
            axis.set_title(title, fontsize=10)
            axis.set_yscale("log")
        else:
            axis.set_ylim(bottom=min(0, axis.get_ylim()[0]))
        axis.set(xlabel=name.replace("_", " "))
    lines = {line.get_label(): line for axis in axes.ravel() for line in axis.get_lines()}
    figure.legend(lines.values(), lines.keys(), loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    for axis in axes[:, 0]:
        axis.set(ylabel=f"{metric.replace('_', ' ')}, % (95 % interval)")
    return figure


def curves(axis, entries: list[dict], name: str, metric: str) -> None:
    """The metric of the main policies against one axis; points that differ elsewhere are averaged."""
    for policy in DRAWN:
        points = {}
        for entry in entries:
            number = entry["policies"].get(policy, {}).get(metric)
            if number:
                points.setdefault(entry["point"][name], []).append((number["mean"], *number["ci95"]))
        if not points:
            continue
        x = sorted(points)
        mean, low, high = 100 * np.maximum(np.array([np.mean(points[v], axis=0) for v in x]).T, LOWEST)
        color = report.COLORS[policy]
        axis.plot(x, mean, marker="o", ms=4, color=color, label=policy.replace("_", " "))
        axis.fill_between(x, low, high, color=color, alpha=0.18, lw=0)
        axis.set_xticks(x)
    axis.grid(alpha=0.25)
