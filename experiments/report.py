"""report.html: one self-contained page of a run; its pictures are also PNG and PDF files beside it."""

import json
import pathlib
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from icdm import pages
from icdm.evaluation.table import EXPLORED, cell, columns_of
from icdm.problems.family import Family, HasWords
from icdm.runs.monitor import read_metrics
from icdm.runs.settings import Settings, as_json
from icdm.trajectories.collect import ContextConfig

COLORS = {
    "oracle": "#2a7f62",
    "random": "#9a9a9a",
    "fine_tuned": "#c8553d",
    "in_context": "#3d6bc8",
    "no_context": "#6fb7e0",
    "copy": "#d98cb3",
    "memoriser": "#3f8f8a",
    "posterior_mean": "#c9a227",
    "certainty_equivalence": "#8e5ba6",
    "qmdp": "#222222",
    "most_likely_state": "#7a9a3a",
    "nominal_oracle": "#b3537d",
}
OTHER = "#c9a227"
STYLES = (("-", "o"), ("--", "s"), (":", "^"), ("-.", "D"), ("-", "v"))  # one for each behavior that records contexts


def write(workdir: pathlib.Path, results: dict, config: Any, title: str) -> None:
    """Writes report.html, learning_curves.* and gaps.* into the run's directory."""
    settings = Settings.from_config(config)
    metrics = read_metrics(workdir / "metrics.jsonl")
    pictures = []
    if metrics:
        pictures.append(("Learning curves", pages.save(workdir, "learning_curves", learning_curves(metrics))))
    if any("normalized_gap" in metrics for metrics in results["policies"].values()):
        pictures.append(("Normalised gap of every policy", pages.save(workdir, "gaps", gap_bars(results["policies"]))))
    curves = support_curves(results["policies"], settings.context)
    if curves:
        caption = "Normalised gap against the number of episodes in the context"
        pictures.append((caption, pages.save(workdir, "gap_against_support", support_figure(curves))))
    if "exploration" in results:
        caption = "Normalised gap of each episode, from nothing"
        pictures.append((caption, pages.save(workdir, "exploration", exploration_figure(results["exploration"]))))
    tables = [policy_table(title, results["policies"], settings.published)]
    render(workdir, title, tables, pictures, results, config, words=words_of(settings.family))


def words_of(family: Family) -> str:
    """The family's description of its problem, or an empty text."""
    return family.words() if isinstance(family, HasWords) else ""


def render(
    workdir: pathlib.Path,
    title: str,
    tables: list[dict],
    pictures: list[tuple[str, str]],
    results: dict,
    config: Any,
    words: str = "",
) -> None:
    """Writes report.html from the template; the file holds all its pictures and tables."""
    pages.render(
        workdir / "report.html",
        "experiments",
        "report.html",
        title=title,
        words=words,
        tables=tables,
        bracket=results.get("bracket"),
        oracle=results.get("oracle"),
        trends=results.get("trends"),
        pictures=pictures,
        extras=further_tables(results),
        seconds=results["seconds"],
        seeds=results["seeds"],
        config_hash=results["config_hash"],
        config=json.dumps(as_json(config), indent=2),
        versions=pages.versions(),
    )


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
    """{heading: {name: number with its interval}} of everything in results.json except the policies."""
    tables = {}
    if "closed_from_expert" in results:
        tables["Closed of the value between expert and optimal"] = results["closed_from_expert"]
    if "ratios" in results:
        tables["Ratios of normalised gaps"] = results["ratios"]
    if "advantages" in results:
        heading = "Normalised gap of a policy less that of fine tuned, task by task (above 0: fine tuned is better)"
        tables[heading] = results["advantages"]
    repeats = {name: m["repeats"] for name, m in results.get("policies", {}).items() if "repeats" in m}
    if repeats:
        tables["Share of decisions for the action that was seen most often"] = repeats
    shares = {name: m["planning_share"] for name, m in results.get("policies", {}).items() if "planning_share" in m}
    if shares:
        tables["Planning share: what is won over myopic, as a share of what posterior mean replanned wins"] = shares
    for measure, heading in EXPLORED.items():
        explored = {name: own[measure] for name, own in results.get("exploration", {}).items() if measure in own}
        if explored:
            tables[f"From nothing: {heading}"] = explored
    if results.get("comparisons"):
        heading = "Normalised gap of fine tuned, the first less the second, task by task (below 0: the first is better)"
        tables[heading] = {comparison_name(comparison): comparison for comparison in results["comparisons"]}
    if "invalid_answers" in results:
        heading = "Share of an endpoint's answers that were no action; a random one was taken"
        tables[heading] = results["invalid_answers"]
    if "data" in results:
        from icdm.logs.labels import LABELS  # needs the extra `data`, as the run did

        names = ("test_cross_entropy", "bayes_cross_entropy", "online_regret", "online_regret_sampled")
        heading = f"Recorded data, learned from {LABELS[results['data']['labels']]}"
        tables[heading] = {name: results[name] for name in names if name in results}
    for name, estimates in results.get("off_policy", {}).get("estimates", {}).items():
        behavior = results["off_policy"]["behavior_probabilities"]
        tables[f"{name.replace('_', ' ')}, valued from the log ({behavior} behaviour probabilities)"] = estimates
    return tables


def comparison_name(comparison: dict) -> str:
    """Two settings of an axis, and where they are compared."""
    at = ", ".join(f"{name} {value}" for name, value in comparison["at"].items())
    return f"{comparison['first']} less {comparison['second']}" + (f" at {at}" if at else "")


def learning_curves(metrics: list[dict]) -> Figure:
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


def support_curves(policies: dict, context: ContextConfig) -> dict[tuple[str, str], dict[int, dict]]:
    """{(policy, behavior): {episodes: normalised gap}} of the policies that were measured in further contexts.

    The run's own context is one of the points, and the fine-tuned model without a context the one at 0 episodes.
    """
    several = {name.partition("@")[0] for name in policies if "@" in name}
    curves: dict[tuple[str, str], dict[int, dict]] = {}
    for name, metrics in policies.items():
        policy, further, text = name.partition("@")
        if policy in several and "normalized_gap" in metrics:
            behavior, _, episodes = (text if further else f"{context.behavior}:{context.episodes}").partition(":")
            curves.setdefault((policy, behavior), {})[int(episodes)] = metrics["normalized_gap"]
    none = policies.get("no_context", {}).get("normalized_gap")
    for (policy, _), curve in curves.items():
        if policy == "fine_tuned" and none:
            curve[0] = none
    return curves


def support_figure(curves: dict[tuple[str, str], dict[int, dict]]) -> Figure:
    figure, axis = plt.subplots(figsize=(7.6, 3.8), layout="constrained")
    styles = dict(zip(dict.fromkeys(behavior for _, behavior in curves), STYLES))
    for (policy, behavior), curve in curves.items():
        x = sorted(curve)
        mean, low, high = np.array([(curve[k]["mean"], *curve[k]["ci95"]) for k in x]).T
        label = f"{policy.replace('_', ' ')}, {behavior.replace('_', ' ')} episodes"
        line, marker = styles[behavior]
        style = dict(color=COLORS.get(policy, OTHER), ls=line, marker=marker, ms=5, capsize=2, lw=1.4)
        axis.errorbar(x, mean, [mean - low, high - mean], label=label, **style)
    axis.set_xticks(sorted({k for curve in curves.values() for k in curve}))
    axis.set(xlabel="episodes in the context", ylabel="(OPT - value) / (OPT - RANDOM), 95 % interval")
    if all(number["mean"] > 0 for curve in curves.values() for number in curve.values()):
        axis.set_yscale("log")
    axis.grid(alpha=0.25)
    axis.legend(fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    axis.spines[["top", "right"]].set_visible(False)
    return figure


def exploration_figure(exploration: dict) -> Figure:
    figure, axis = plt.subplots(figsize=(7.6, 4.2), layout="constrained")
    for i, (name, own) in enumerate(exploration.items()):
        mean, low, high = np.array([(gap["mean"], *gap["ci95"]) for gap in own["by_episode"]]).T
        x, line = np.arange(1, len(mean) + 1), ("-", "--", ":", "-.")[i // 4]
        (drawn,) = axis.plot(x, mean, ls=line, color=f"C{i}", lw=1.4, label=name.replace("_", " "))
        axis.fill_between(x, low, high, color=drawn.get_color(), alpha=0.12, lw=0)
    axis.set(xlabel="episode", ylabel="(OPT - value) / (OPT - RANDOM), 95 % interval")
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.grid(alpha=0.25)
    axis.legend(fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    axis.spines[["top", "right"]].set_visible(False)
    return figure


def gap_bars(policies: dict) -> Figure:
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
