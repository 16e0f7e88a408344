"""The combined results and report of a sweep: seeds are pooled, gaps are drawn against the axes."""

import itertools
import pathlib
import re
from collections.abc import Container, Iterator
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments import report
from experiments.grid import Point, parameters
from experiments.policies import shown
from icdm import pages
from icdm.evaluation.summary import normalized_gaps, summaries
from icdm.evaluation.table import PERCENT, cell, columns_of, gap_is_clear
from icdm.files import read_arrays
from icdm.intervals import interval
from icdm.provenance import provenance
from icdm.runs.run import REMEDY, Run
from icdm.runs.settings import as_json

DRAWN = (
    "random",
    "in_context",
    "no_context",
    "fine_tuned",
    "copy",
    "posterior_mean",
    "memoriser",
    "certainty_equivalence",
    "qmdp",
    "most_likely_state",
    "nominal_oracle",
)
LOWEST = 1e-4  # of a gap drawn on a logarithmic scale
APART = 0.075  # the least distance of two names beside a panel, as a share of its height

Same = dict[str, tuple[Any, str]]
"""{parameter: (value, other)}: at this value of the parameter the other one changes nothing."""


def pool(point: dict, runs: list[pathlib.Path]) -> dict:
    """One entry of a sweep's results: the tasks of all seeds together, as results.json has them."""
    found = [Run.open(run).results() for run in runs]
    values = [read_arrays(run / "values.npz", REMEDY) for run in runs]

    def together(name: str):
        arrays = [v[name] for v in values]
        return arrays[0] if all(a.size == 1 for a in arrays) else np.concatenate(arrays)

    return {
        "point": point,
        "family": found[0]["family"],
        "config_hash": [result["config_hash"] for result in found],
        "seeds": [seed for result in found for seed in result["seeds"]],
        "oracle": found[0]["oracle"],
        **summaries({name: together(name) for name in values[0] if not name.startswith("task/")}),
        "seconds": {phase: sum(r["seconds"][phase] for r in found) for phase in found[0]["seconds"]},
    }


def results_of(entries: list[dict], axes: dict[str, list], config: Any, runs: list[list[pathlib.Path]]) -> dict:
    """What the sweep's results.json holds.

    Args:
      runs: the directories of every entry, one for each seed.
    """
    compared = comparisons([entry["point"] for entry in entries], runs)
    found = {"sweep": axes, "trends": trends(entries, same_of(config)), "comparisons": compared, "runs": entries}
    return found | {"config": as_json(config), "made_with": provenance()}


def comparisons(points: list[Point], runs: list[list[pathlib.Path]]) -> list[dict]:
    """Normalised gap of the fine-tuned model, paired: the same tasks of the same seeds, met by two settings.

    Returns:
      {"at": the rest of the point, "axis", "first", "second", "mean", "ci95", "n_tasks"} for every two values of an
      axis of words: the first's gap less the second's. Points whose tasks differ are left out.
    """
    found = []
    for (point, own), (other, others) in itertools.combinations(zip(points, runs), 2):
        differing = [name for name in point if point[name] != other[name]]
        if len(differing) == 1 and isinstance(point[differing[0]], str) and differing[0] != "problem":
            pairs = [(_fine_tuned(a), _fine_tuned(b)) for a, b in zip(own, others)]
            if all(np.array_equal(a[1], b[1]) for a, b in pairs):
                rest = {name: value for name, value in point.items() if name not in differing}
                names = {"at": rest, "axis": differing[0], "first": point[differing[0]], "second": other[differing[0]]}
                found.append(names | interval(np.concatenate([a[0] - b[0] for a, b in pairs])))
    return found


def _fine_tuned(run: pathlib.Path) -> tuple[np.ndarray, np.ndarray]:
    """The normalised gap of a run's fine-tuned model in each task, and the optimal values, (N,) each."""
    values = read_arrays(run / "values.npz", REMEDY)
    return normalized_gaps(values["policy/fine_tuned"], values["optimal"], values["random"]), values["optimal"]


def same_of(config: Any) -> Same:
    """The rules of the config's own grid for parameters that sometimes change nothing."""
    return {name: tuple(rule) for name, rule in config.get("sweep", {}).get("same", {}).items()}


def trends(entries: list[dict], same: Same) -> dict[str, dict]:
    """Does the gain from fine-tuning, gap(in_context) - gap(fine_tuned), grow along each number that was swept?

    For every parameter: the change of the gain from its smallest to its largest value in all settings that differ in it
    alone, mean and 95 % interval over settings, and in how many of them it grows. Entries whose gap means nothing
    (`gap_is_clear`) are left out.

    Args:
      same: an entry is compared at every value of a parameter that changes nothing there.
    """
    found = {}
    entries = [entry for entry in entries if "in_context" in entry["policies"] and gap_is_clear(entry["policies"])]
    for name in numbers_of(entries):
        settings = {}
        rule = {name: same[name]} if name in same else {}
        for point, entry in at_every_value(entries, rule):
            if name in point:
                rest = tuple((k, v) for k, v in sorted(point.items()) if k not in (name, "problem"))
                settings.setdefault((*rest, problem_of(point)), {})[point[name]] = gain(entry)
        changes = np.array([s[max(s)] - s[min(s)] for s in settings.values() if len(s) > 1])
        if changes.size:
            found[name] = {"grows_in": int((changes > 0).sum()), "settings": int(changes.size), **interval(changes)}
            del found[name]["n_tasks"]
    return found


def numbers_of(entries: list[dict]) -> list[str]:
    """The names of what is a number in all points of the entries that have it, those of their problems included."""
    values: dict[str, list] = {}
    for entry in entries:
        for name, value in parameters(entry["point"]).items():
            values.setdefault(name, []).append(value)
    return [name for name, own in values.items() if not any(isinstance(value, str) for value in own)]


def at_every_value(entries: list[dict], same: Same) -> list[tuple[Point, dict]]:
    """(point with the parameters of its problem, entry); one is repeated at every value that does not change it."""
    found = [(parameters(entry["point"]), entry) for entry in entries]
    for name, (value, other) in same.items():
        swept = sorted({point[other] for point, _ in found if other in point})
        spread = []
        for point, entry in found:
            each = swept if point.get(name) == value else []
            spread += [(point | {other: x}, entry) for x in each] or [(point, entry)]
        found = spread
    return found


def problem_of(point: Point) -> str:
    """The name of the family in a point of a grid of problems."""
    return point.get("problem", "").split(":")[0]


def gain(entry: dict) -> float:
    return entry["policies"]["in_context"]["gap"]["mean"] - entry["policies"]["fine_tuned"]["gap"]["mean"]


def write(workdir: pathlib.Path, results: dict, config: Any) -> None:
    """report.html of the sweep: what fine-tuning reaches at each point, the gaps against every axis, a table for each
    point."""
    axes, tables, entries = results["sweep"], [overview(results["runs"])], []
    for entry in results["runs"]:
        heading = named(entry)
        if "bracket" in entry:
            heading += f" (oracle {entry['oracle']['method']}, bracket {100 * entry['bracket']['mean']:.2f} %)"
        place = f"{entry['family']}:horizon={entry['point'].get('horizon', config.horizon)}"
        published = config.published.to_dict().get(place, {})
        tables.append(report.policy_table(heading, entry["policies"], published, explains=len(tables) == 1))
        entries.append(entry | {"published": published})
    pictures = [
        (caption, pages.save(workdir, name, figure))
        for name, caption, figure in drawings(entries, axes, same_of(config))
    ]
    content = {
        "seconds": {phase: sum(e["seconds"][phase] for e in entries) for phase in entries[0]["seconds"]},
        "seeds": entries[0]["seeds"],
        "config_hash": ", ".join(h for e in entries for h in e["config_hash"]),
        "trends": results["trends"],
        "comparisons": results["comparisons"],
    }
    title = f"{config.family}: sweep over {', '.join(axes) or 'seeds'}"
    report.render(workdir, title, tables, pictures, content, config)


def named(entry: dict, without: Container[str] = ()) -> str:
    """A point of the sweep in words, but for the axes that it goes `without`."""
    words = [f"{name} {value}" for name, value in entry["point"].items() if name not in without]
    return ", ".join(words).replace("_", " ") or entry["family"]


def overview(entries: list[dict]) -> dict:
    """The table of the fine-tuned model: a row for every point, the smallest normalised gap on top."""
    points = [entry["point"] for entry in entries]
    same = [name for name in points[0] if all(point.get(name) == points[0][name] for point in points)]
    own = {named(entry, same): entry["policies"]["fine_tuned"] for entry in entries}
    metrics = [metric for metric in columns_of(own) if metric in PERCENT]
    ordered = sorted(own.items(), key=lambda item: item[1].get("normalized_gap", {"mean": 0})["mean"])
    rows = [{"name": name, "cells": [cell(m, numbers.get(m)) for m in metrics]} for name, numbers in ordered]
    return {
        "heading": "Fine tuned, setting by setting",
        "of": "setting",
        "metrics": report.heads(metrics),
        "rows": rows,
    }


def drawings(entries: list[dict], axes: dict[str, list], same: Same) -> Iterator[tuple[str, str, Figure]]:
    """(file name, caption, figure) of every picture.

    The gaps against each axis of numbers, problem by problem, and against each parameter of the problems, one panel for
    each setting of the other parameters. An axis may have words among its numbers, such as `endless`; its values are
    then drawn side by side.
    """
    clear = all(gap_is_clear(entry["policies"]) for entry in entries)
    for name, values in axes.items():
        if len(values) > 1 and not all(isinstance(value, str) for value in values):
            averaged = [other for _, other in same.values() if other in numbers_of(entries)]
            groups = grouped([(entry["point"], entry) for entry in entries], {name, *averaged})
            for metric in ("gap", "normalized_gap") if clear else ("normalized_gap",):
                yield f"{metric}_against_{name}", caption(metric, name, averaged), panels(groups, name, metric)
    rest = [axis for axis in axes if axis != "problem"]
    spread = at_every_value(entries, same)
    for name in [name for name in numbers_of(entries) if name not in axes]:
        own = [(point, entry) for point, entry in spread if name in point]
        if len({point[name] for point, _ in own}) > 1:
            groups = grouped(own, {name})
            for metric in ("gap" if clear else "normalized_gap", "worst_gap"):
                if any(metric in entry["policies"]["fine_tuned"] for _, entry in own):
                    yield f"{metric}_against_{name}", caption(metric, name, rest), panels(groups, name, metric)


def caption(metric: str, name: str, averaged: list[str]) -> str:
    """What a picture shows."""
    text = f"{metric.capitalize()} against {name}" + (f", mean over {', '.join(averaged)}" if averaged else "")
    return text.replace("_", " ")


def grouped(points: list[tuple[Point, dict]], without: set[str]) -> dict[str, list[tuple[Point, dict]]]:
    """The entries by what is drawn in one panel: a family with its parameters, but for those that it goes `without`."""
    groups: dict[str, list[tuple[Point, dict]]] = {}
    for point, entry in points:
        every = (parameters(entry["point"]) | point).items()
        own = {k: v for k, v in every if k not in entry["point"] or (isinstance(v, str) and k != "problem")}
        named = [f"{k} {v}" for k, v in own.items() if k not in without]
        groups.setdefault(", ".join([entry["family"], *named]).replace("_", " "), []).append((point, entry))
    return groups


def panels(groups: dict[str, list[tuple[Point, dict]]], name: str, metric: str) -> Figure:
    """One panel below the other for each group of entries, which a phone shows as wide as itself; all have one
    logarithmic scale, and titles say what differs. Every line has its name at its end."""
    size = (report.WIDTH, 0.3 + 3.1 * len(groups))
    figure, axes = plt.subplots(len(groups), 1, figsize=size, squeeze=False, sharey=True, layout="constrained")
    titles = [title.split(", ") for title in groups]
    common = set.intersection(*map(set, titles))
    ends = []
    for axis, parts, entries in zip(axes[:, 0], titles, groups.values()):
        ends.append(curves(axis, entries, name, metric))
        if len(groups) > 1:
            axis.set_title(", ".join(part for part in parts if part not in common), fontsize=10)
        axis.set_yscale("log")
        axis.yaxis.set_major_formatter("{x:g}")
        axis.set(xlabel=name.replace("_", " "), ylabel=f"{metric.replace('_', ' ')}, %\n(95 % interval)")
        axis.spines[["top", "right"]].set_visible(False)
    for axis, own in zip(axes[:, 0], ends):  # once all panels have their common scale
        name_lines(axis, own)
    return figure


def name_lines(axis: Axes, ends: dict[str, tuple[float, float]]) -> None:
    """Writes every policy's name beside the last point of its line, in its colour; names that would overlap are moved
    apart, and a thin line leads to the point."""
    to_axes = axis.transData + axis.transAxes.inverted()
    height = {policy: to_axes.transform(end)[1] for policy, end in ends.items()}
    lowest = 0.0
    for i, (policy, y) in enumerate(sorted(height.items(), key=lambda item: item[1])):
        room_above = APART * (len(ends) - 1 - i)
        lowest = max(lowest, min(y, 1 - room_above))
        color = shown(policy).color
        axis.annotate(
            policy.replace("_", " "),
            ends[policy],
            xytext=(1.06, lowest),
            textcoords="axes fraction",
            color=color,
            fontsize=8,
            va="center",
            arrowprops=dict(arrowstyle="-", color=color, lw=0.5, shrinkA=1, shrinkB=4),
        )
        lowest += APART


def curves(axis: Axes, entries: list[tuple[Point, dict]], name: str, metric: str) -> dict[str, tuple[float, float]]:
    """The metric of the main policies against one axis; points that differ elsewhere are averaged.

    Returns:
      {policy: the last point of its line}.
    """
    values = sorted({point[name] for point, _ in entries}, key=lambda value: (isinstance(value, str), value))
    has_words = any(isinstance(value, str) for value in values)
    place = {value: i if has_words else value for i, value in enumerate(values)}
    axis.set_xticks(list(place.values()), [str(value) for value in values])
    ends = {}
    for policy in DRAWN:
        points = {}
        for point, entry in entries:
            number = entry["policies"].get(policy, {}).get(metric)
            if number:
                points.setdefault(point[name], []).append((number["mean"], *number["ci95"]))
        if not points:
            continue
        own = [value for value in values if value in points]
        mean, low, high = 100 * np.maximum(np.array([np.mean(points[v], axis=0) for v in own]).T, LOWEST)
        x = [place[value] for value in own]
        style, label = shown(policy), policy.replace("_", " ")
        axis.plot(x, mean, style.line, marker=style.marker, ms=5, color=style.color, label=label)
        axis.vlines(x, low, high, color=style.color, alpha=0.6, lw=1)
        ends[policy] = (x[-1], mean[-1])
        if metric == "gap":
            _published(axis, entries, name, policy)
    axis.grid(alpha=0.25)
    return ends


def _published(axis: Axes, entries: list[tuple[Point, dict]], name: str, policy: str) -> None:
    """What a paper reports of a policy: a cross, or a bar from the lowest to the highest of several figures."""
    for point, entry in entries:
        figures = [float(x) for x in re.findall(r"[\d.]+", entry.get("published", {}).get(policy, ""))]
        if figures:
            ends = [point[name]] * 2, [min(figures), max(figures)]
            axis.plot(*ends, marker="x", ms=6, lw=1.4, ls=":", color=shown(policy).color)
            axis.annotate("paper", (point[name], max(figures)), (4, 0), textcoords="offset points", fontsize=7)
