"""report.html: one self-contained page of a run, its pictures also as PNG and PDF files beside it."""

import base64
import importlib.metadata
import io
import json
import pathlib
import platform

import jax
import jinja2
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402  (the backend is chosen first)

from icdm.evaluation.table import cell, columns_of  # noqa: E402
from icdm.logs.labels import LABELS  # noqa: E402
from icdm.runs.monitor import read_metrics  # noqa: E402

COLORS = {
    "oracle": "#2a7f62",
    "random": "#9a9a9a",
    "fine_tuned": "#c8553d",
    "in_context": "#3d6bc8",
    "no_context": "#6fb7e0",
    "posterior_mean": "#c9a227",
    "certainty_equivalence": "#8e5ba6",
    "qmdp": "#222222",
    "most_likely_state": "#7a9a3a",
    "nominal_oracle": "#b3537d",
}
OTHER = "#c9a227"


def write(workdir: pathlib.Path, results: dict, config: dict, title: str, published: dict[str, str]) -> None:
    """Writes report.html, learning_curves.* and gaps.* into the run's directory."""
    metrics = read_metrics(workdir / "metrics.jsonl")
    pictures = []
    if metrics:
        pictures.append(("Learning curves", save(workdir, "learning_curves", learning_curves(metrics))))
    if any("normalized_gap" in metrics for metrics in results["policies"].values()):
        pictures.append(("Normalised gap of every policy", save(workdir, "gaps", gap_bars(results["policies"]))))
    render(
        workdir / "report.html",
        title=title,
        tables=[policy_table(title, results["policies"], published)],
        pictures=pictures,
        results=results,
        config=config,
    )


def render(path: pathlib.Path, *, title, tables, pictures, results, config) -> None:
    """One page from the template; everything it shows is inside the file."""
    environment = jinja2.Environment(loader=jinja2.PackageLoader("experiments"), autoescape=True)
    html = environment.get_template("report.html").render(
        title=title,
        tables=tables,
        bracket=results.get("bracket"),
        oracle=results.get("oracle"),
        trends=results.get("trends"),
        pictures=pictures,
        extras=further_tables(results),
        seconds=results["seconds"],
        seeds=results["seeds"],
        config_hash=results["config_hash"],
        config=json.dumps(config, indent=2),
        versions=versions(),
    )
    path.write_text(html)


def policy_table(heading: str, policies: dict, published: dict[str, str]) -> dict:
    """One table of the page: a row for every policy, a column for every metric."""
    metrics = columns_of(policies)
    rows = [
        {"name": name, "cells": [cell(m, numbers.get(m)) for m in metrics], "published": published.get(name, "")}
        for name, numbers in policies.items()
    ]
    names = [name.replace("_", " ") for name in metrics]
    return {"heading": heading, "metrics": names, "rows": rows, "published": bool(published)}


def further_tables(results: dict) -> dict[str, dict]:
    """{heading: {name: number with its interval}} of what results.json holds beside the policies."""
    tables = {}
    if "closed_from_expert" in results:
        tables["Closed of the value between expert and optimal"] = results["closed_from_expert"]
    if "ratios" in results:
        tables["Ratios of normalised gaps"] = results["ratios"]
    if "data" in results:
        names = ("test_cross_entropy", "bayes_cross_entropy", "online_regret", "online_regret_sampled")
        heading = f"Recorded data, learned from {LABELS[results['data']['labels']]}"
        tables[heading] = {name: results[name] for name in names if name in results}
    for name, estimates in results.get("off_policy", {}).get("estimates", {}).items():
        behavior = results["off_policy"]["behavior_probabilities"]
        tables[f"{name.replace('_', ' ')}, valued from the log ({behavior} behaviour probabilities)"] = estimates
    return tables


def learning_curves(metrics: list[dict]):
    phases = list(dict.fromkeys(line["phase"] for line in metrics))
    figure, axes = plt.subplots(1, len(phases), figsize=(4.2 * len(phases), 3.2), squeeze=False, layout="constrained")
    for axis, phase in zip(axes[0], phases):
        lines = [line for line in metrics if line["phase"] == phase]
        losses = [line["loss"] for line in lines]
        axis.plot([line["step"] for line in lines], losses, color="#333333", lw=1.4)
        if min(losses) > 0 and max(losses) > 10 * min(losses):
            axis.set_yscale("log")
        axis.set(title=phase.replace("_", " "), xlabel="step", ylabel="training loss")
        axis.grid(alpha=0.25)
    return figure


def gap_bars(policies: dict):
    shown = {name: metrics["normalized_gap"] for name, metrics in policies.items() if "normalized_gap" in metrics}
    figure, axis = plt.subplots(figsize=(6.4, 0.8 + 0.36 * len(shown)), layout="constrained")
    for i, (name, number) in enumerate(reversed(shown.items())):
        mean, (low, high) = number["mean"], number["ci95"]
        axis.barh(i, mean, color=COLORS.get(name, OTHER), height=0.66)
        axis.plot([low, high], [i, i], color="black", lw=1.4)
        axis.text(max(high, mean, 0) + 0.015, i, f"{mean:.3f}", va="center", fontsize=9)
    axis.set_yticks(range(len(shown)), [name.replace("_", " ") for name in reversed(shown)])
    axis.set_xlim(right=1.12 * max([1.0, *(n["ci95"][1] for n in shown.values())]))
    axis.set_xlabel("(OPT - value) / (OPT - RANDOM), 95 % interval")
    axis.spines[["top", "right"]].set_visible(False)
    return figure


def save(workdir: pathlib.Path, name: str, figure) -> str:
    """Saves NAME.png and NAME.pdf; returns the picture as a data address for the page."""
    figure.savefig(workdir / f"{name}.pdf")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=160)
    plt.close(figure)
    (workdir / f"{name}.png").write_bytes(buffer.getvalue())
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def versions() -> dict[str, str]:
    packages = ("icdm", "jax", "flax", "optax", "orbax-checkpoint", "numpy")
    found = {name: importlib.metadata.version(name) for name in packages}
    device = jax.devices()[0]
    return {"python": platform.python_version(), **found, "devices": f"{jax.device_count()} x {device.device_kind}"}
