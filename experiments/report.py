"""report.html: one self-contained page of a run; its pictures are also PNG and PDF files beside it."""

import json
import pathlib
from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from experiments.policies import BLACK, GREY, shown
from icdm import pages
from icdm.evaluation.table import EXPLORED, PERCENT, cell, columns_of
from icdm.problems.family import Family, HasWords
from icdm.provenance import in_words
from icdm.runs.monitor import read_metrics
from icdm.runs.settings import Settings, as_json
from icdm.trajectories.collect import ContextConfig

STYLES = (("-", "o"), ("--", "s"), (":", "^"), ("-.", "D"), ("-", "v"))  # one for each behavior that records contexts
WIDTH = 5.2  # inches of every figure: readable on a phone, and two side by side in print


def write(workdir: pathlib.Path, results: dict, config: Any, title: str) -> None:
    """Writes report.html, learning_curves.* and gaps.* into the run's directory."""
    settings = Settings.from_config(config)
    metrics = read_metrics(workdir / "metrics.jsonl")
    pictures = []
    if any("normalized_gap" in own for own in results["policies"].values()):
        pictures.append(("Normalised gap of every policy", pages.save(workdir, "gaps", gap_dots(results["policies"]))))
    if metrics:
        drawn = learning_curves(metrics, units_of(settings))
        pictures.append(("Learning curves", pages.save(workdir, "learning_curves", drawn)))
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
        made_with=in_words(),
    )


def policy_table(heading: str, policies: dict, published: dict[str, str], explains: bool = True) -> dict:
    """One table of the page: a row for every policy, the best on top, and a column for every metric.

    Args:
      explains: says what each policy is.
    """
    metrics = columns_of(policies)
    rows = [
        {
            "name": name,
            "text": shown(name).text if explains else "",
            "cells": [cell(m, numbers.get(m)) for m in metrics],
            "published": published.get(name, ""),
        }
        for name, numbers in sorted(policies.items(), key=lambda item: -item[1]["value"]["mean"])
    ]
    return {"heading": heading, "of": "policy", "metrics": heads(metrics), "rows": rows, "published": bool(published)}


def heads(metrics: Sequence[str]) -> list[str]:
    """The heads of a table's columns, with their units."""
    return [name.replace("_", " ") + (", %" if name in PERCENT else "") for name in metrics]


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


def units_of(settings: Settings) -> dict[str, str]:
    """What the loss of each phase is, with its unit."""
    tuned = {
        "advantage": "squared error of (Q - mean Q) / temperature",
        "tokens": "cross-entropy, nats a token",
    }.get(settings.labels.labels, "cross-entropy, nats a decision")
    return {"pretrain": "cross-entropy, nats a token", "fine_tune": tuned, "from_scratch": tuned}


def learning_curves(metrics: list[dict], units: dict[str, str]) -> Figure:
    """The loss of every phase against its steps, one panel below the other; a cross where held-out tasks were looked
    at."""
    phases = list(dict.fromkeys(line["phase"] for line in metrics))
    size = (WIDTH, 2.4 * len(phases))
    figure, axes = plt.subplots(len(phases), 1, figsize=size, squeeze=False, layout="constrained")
    for axis, phase in zip(axes[:, 0], phases):
        lines = [line for line in metrics if line["phase"] == phase]
        losses = [line["loss"] for line in lines]
        axis.plot([line["step"] for line in lines], losses, ".-", ms=4, color=BLACK, lw=1.4, label="training")
        seen = [line for line in lines if "validation_loss" in line]
        if seen:
            held_out = [line["validation_loss"] for line in seen]
            axis.plot([line["step"] for line in seen], held_out, "x", color=shown("copy").color, label="held-out tasks")
            axis.legend(fontsize=8, frameon=False)
        if min(losses) > 0 and max(losses) > 10 * min(losses):
            axis.set_yscale("log")
        axis.set(title=phase.replace("_", " "), xlabel="step", ylabel=units[phase].replace(", ", ",\n"))
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
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
    figure, axis = plt.subplots(figsize=(WIDTH, 4.2), layout="constrained")
    styles = dict(zip(dict.fromkeys(behavior for _, behavior in curves), STYLES))
    for (policy, behavior), curve in curves.items():
        x = sorted(curve)
        mean, low, high = np.array([(curve[k]["mean"], *curve[k]["ci95"]) for k in x]).T
        label = f"{policy.replace('_', ' ')}, {behavior.replace('_', ' ')} episodes"
        line, marker = styles[behavior]
        style = dict(color=shown(policy).color, ls=line, marker=marker, ms=5, capsize=2, lw=1.4)
        axis.errorbar(x, 100 * mean, [100 * (mean - low), 100 * (high - mean)], label=label, **style)
    axis.set_xticks(sorted({k for curve in curves.values() for k in curve}))
    axis.set(xlabel="episodes in the context", ylabel="normalised gap, % (95 % interval)")
    if all(number["mean"] > 0 for curve in curves.values() for number in curve.values()):
        axis.set_yscale("log")
    axis.grid(alpha=0.25)
    figure.legend(fontsize=8, frameon=False, loc="outside lower center", ncols=2)
    axis.spines[["top", "right"]].set_visible(False)
    return figure


def exploration_figure(exploration: dict) -> Figure:
    """The normalised gap of each episode, from nothing; intervals at some episodes, so that bands do not blend."""
    figure, axis = plt.subplots(figsize=(WIDTH, 4.6), layout="constrained")
    for i, (name, own) in enumerate(exploration.items()):
        mean, low, high = 100 * np.array([(gap["mean"], *gap["ci95"]) for gap in own["by_episode"]]).T
        x = np.arange(1, len(mean) + 1)
        every = (i * len(x) // 40 % max(1, len(x) // 8), max(1, len(x) // 8))
        style = shown(name.removesuffix("_sampled"))
        line = ":" if name.endswith("_sampled") else style.line
        axis.errorbar(
            x,
            mean,
            [mean - low, high - mean],
            errorevery=every,
            markevery=every,
            color=style.color if style.text else f"C{i}",
            marker=style.marker,
            ls=line,
            lw=1.4,
            ms=5,
            capsize=2,
            label=name.replace("_", " "),
        )
    axis.set(xlabel="episode", ylabel="normalised gap, % (95 % interval)")
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.grid(alpha=0.25)
    figure.legend(fontsize=8, frameon=False, loc="outside lower center", ncols=2)
    axis.spines[["top", "right"]].set_visible(False)
    return figure


def gap_dots(policies: dict) -> Figure:
    """The normalised gap of every policy, the best on top. The run's own models are filled, references hollow."""
    own = {name: metrics["normalized_gap"] for name, metrics in policies.items() if "normalized_gap" in metrics}
    ordered = sorted(own.items(), key=lambda item: item[1]["mean"])
    figure, axis = plt.subplots(figsize=(WIDTH, 1.0 + 0.27 * len(ordered)), layout="constrained")
    for y, (name, number) in enumerate(ordered):
        style, mean = shown(name), 100 * number["mean"]
        low, high = (100 * x for x in number["ci95"])
        fill = style.color if style.is_learned else "white"
        axis.plot([low, high], [y, y], color=style.color, lw=1.6)
        axis.plot(mean, y, style.marker, color=style.color, markerfacecolor=fill, markersize=6.5)
        axis.annotate(f"{mean:.1f}", (1.01, y), xycoords=("axes fraction", "data"), va="center", fontsize=8)
    axis.axvline(100, color=GREY, lw=0.8, ls=":")
    pages.gap_axis(axis, [100 * end for number in own.values() for end in number["ci95"]])
    axis.set_yticks(range(len(ordered)), [name.replace("_", " ") for name, _ in ordered], fontsize=9)
    axis.invert_yaxis()
    axis.set_xlabel("normalised gap, % of OPT - RANDOM (95 % interval)")
    axis.grid(axis="x", alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)
    return figure
