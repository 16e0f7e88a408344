"""The combined results and report of a sweep: seeds pooled, gaps drawn against what was swept."""

import json
import pathlib

import matplotlib.pyplot as plt
import numpy as np

from experiments import report
from experiments.experiment import summaries
from experiments.published import published_gaps
from experiments.settings import as_json

DRAWN = ("random", "in_context", "no_context", "fine_tuned", "posterior_mean", "certainty_equivalence")


def pool(point: dict, runs: list[pathlib.Path]) -> dict:
    """One entry of a sweep's results: the tasks of all seeds together, as results.json has them."""
    found = [json.loads((run / "results.json").read_text()) for run in runs]
    values = [np.load(run / "values.npz") for run in runs]

    def together(name):
        arrays = [v[name] for v in values]
        return arrays[0] if all(a.size == 1 for a in arrays) else np.concatenate(arrays)

    policies = {name.removeprefix("policy/"): together(name) for name in values[0].files if name.startswith("policy/")}
    expert = together("expert") if "expert" in values[0].files else None
    return {
        "point": point,
        "family": found[0]["family"],
        "config_hash": [result["config_hash"] for result in found],
        "seeds": [seed for result in found for seed in result["seeds"]],
        **summaries(policies, together("optimal"), together("random"), expert),
        "seconds": {phase: sum(r["seconds"][phase] for r in found) for phase in found[0]["seconds"]},
    }


def write(workdir: pathlib.Path, results: dict, config) -> None:
    """report.html of the sweep, with a table for each point and the gaps against each numeric axis."""
    entries, axes = results["runs"], results["sweep"]
    pictures, tables = [], []
    for name, values in axes.items():
        if len(values) > 1 and all(isinstance(value, (int, float)) for value in values):
            for metric in ("gap", "normalized_gap"):
                figure = curves(entries, name, metric)
                caption = f"{metric.replace('_', ' ').capitalize()} against {name}"
                pictures.append((caption, report.save(workdir, f"{metric}_against_{name}", figure)))
    for entry in entries:
        horizon = entry["point"].get("horizon", config.horizon)
        published = published_gaps(entry["family"], horizon)
        heading = ", ".join(f"{name} = {value}" for name, value in entry["point"].items()) or entry["family"]
        tables.append((heading, report.policy_rows(entry["policies"], published), bool(published)))
    report.render(
        workdir / "report.html",
        title=f"{config.family}: sweep over {', '.join(axes) or 'seeds'}",
        tables=tables,
        pictures=pictures,
        results={
            "seconds": {phase: sum(e["seconds"][phase] for e in entries) for phase in entries[0]["seconds"]},
            "seeds": entries[0]["seeds"],
            "config_hash": ", ".join(h for e in entries for h in e["config_hash"]),
        },
        config=as_json(config),
    )


def curves(entries: list[dict], name: str, metric: str):
    """The metric of the main policies against one axis; points that differ elsewhere are averaged."""
    figure, axis = plt.subplots(figsize=(6, 3.8), layout="constrained")
    for policy in DRAWN:
        points = {}
        for entry in entries:
            number = entry["policies"].get(policy, {}).get(metric)
            if number:
                points.setdefault(entry["point"][name], []).append((number["mean"], *number["ci95"]))
        if not points:
            continue
        x = sorted(points)
        mean, low, high = (100 * np.array([np.mean(points[v], axis=0) for v in x])).T
        color = report.COLORS.get(policy)
        line = axis.plot(x, mean, marker="o", ms=4, color=color, label=policy.replace("_", " "))[0]
        axis.fill_between(x, low, high, color=line.get_color(), alpha=0.18, lw=0)
    axis.set(xlabel=name, ylabel=f"{metric.replace('_', ' ')}, % (95 % interval)")
    axis.set_ylim(bottom=min(0, axis.get_ylim()[0]))
    axis.grid(alpha=0.25)
    axis.legend(fontsize=8)
    return figure
