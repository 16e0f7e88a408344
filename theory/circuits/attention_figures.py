"""The pictures of attention_vs_q: scatter, heat map of the heads, and one context with the query's reading of it."""

import pathlib
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from icdm import pages
from icdm.intervals import NORMAL_95, bootstrap_interval
from theory.circuits.heads import spearman, values_read
from theory.circuits.trained import centred
from theory.figures import CYCLE, GREY, panels, plt

EXAMPLE = 0  # the row that is drawn whole: the first, not a selected one


class Values(NamedTuple):
    """Four estimates of the query's Q-values, each (N, A) and in units of reward."""

    head: np.ndarray
    logits: np.ndarray
    reader: np.ndarray
    true: np.ndarray


def pictures(run, rows, reading, layer: int | None, head: int | None):
    """(sentences, {name: figure}) about one head of a run: the given one, or the best of those that may be meant."""
    read_XNHA = values_read(reading.attention, rows.episodes, run.family.discount)
    correlation_XNH = spearman(read_XNHA, rows.true_q()[None, :, None])
    half = correlation_XNH.shape[1] // 2
    allowed_XH = np.full(correlation_XNH.shape[::2], -np.inf)
    allowed_XH[slice(layer, None if layer is None else layer + 1), slice(head, None if head is None else head + 1)] = 0
    x, h = np.unravel_index((allowed_XH + correlation_XNH[:, :half].mean(1)).argmax(), allowed_XH.shape)
    values = Values(
        read_XNHA[x, :, h],
        run.settings.labels.temperature * reading.logits[:, -1, 0].astype(np.float64),
        rows.reader_q(),
        rows.true_q(),
    )
    figures = {
        "heat_map": draw_heat_map(correlation_XNH, x, h),
        "scatter": draw_scatter(values, x, h),
        "context": draw_context(rows, reading.attention[x, EXAMPLE, h], values, x, h),
    }
    measured = {
        f"layer {x}, head {h}": correlation_XNH[x, half:, h],
        "the model's logits": spearman(values.logits, values.true)[half:],
        "the planner that reads the same context": spearman(values.reader, values.true)[half:],
    }
    return measured, figures


def draw_heat_map(correlation_XNH: np.ndarray, x: int, h: int) -> Figure:
    figure, (axis,) = panels(height=1.8 + 0.45 * len(correlation_XNH))
    heat_map(axis, correlation_XNH, "rank correlation with Q*(s, $\\cdot$)")
    axis.add_patch(plt.Rectangle((h - 0.5, x - 0.5), 1, 1, fill=False, edgecolor="black", linewidth=1.5))
    return figure


def heat_map(axis: Axes, correlation_XNH: np.ndarray, title: str) -> None:
    """Mean rank correlation of every head over N tasks, on the scale from -1 to 1, with its number in its cell.

    A cell whose 95 % interval holds 0 has no colour and a grey number.
    """
    means_XH = correlation_XNH.mean(1)
    half_XH = NORMAL_95 * correlation_XNH.std(1, ddof=1) / np.sqrt(correlation_XNH.shape[1])
    clear_XH = np.abs(means_XH) > half_XH
    axis.imshow(np.where(clear_XH, means_XH, 0), cmap="RdBu_r", vmin=-1, vmax=1, aspect="auto")
    for layer, head in np.ndindex(means_XH.shape):
        color = GREY if not clear_XH[layer, head] else "w" if abs(means_XH[layer, head]) > 0.6 else "k"
        axis.text(head, layer, f"{means_XH[layer, head]:.2f}", ha="center", va="center", color=color)
    layers, heads = map(range, means_XH.shape)
    axis.set(xlabel="head (grey: the interval holds 0)", ylabel="layer", title=title, xticks=heads, yticks=layers)
    axis.grid(False)


def draw_scatter(values: Values, x: int, h: int) -> Figure:
    """The values against Q*, all on the same axes, with the correlation of all pairs in the title."""
    figure, axes = panels(3, height=4.0)
    theirs_NA = centred(values.true)
    titles = {"head": f"layer {x}, head {h}", "logits": "temperature x logits", "reader": "planner from the context"}
    limit = 1.05 * max(np.abs(centred(x)).max() for x in (values.true, values.head, values.logits, values.reader))
    for axis, (name, title) in zip(axes, titles.items()):
        ours_NA = centred(getattr(values, name))
        for action, color in zip(range(theirs_NA.shape[1]), CYCLE * theirs_NA.shape[1]):
            dots = (theirs_NA[:, action], ours_NA[:, action], ".")
            axis.plot(*dots, color=color, alpha=0.35, markersize=4, markeredgewidth=0, label=f"action {action}")
        axis.plot([-limit, limit], [-limit, limit], color=GREY, linewidth=0.8)
        correlation = np.corrcoef(theirs_NA.ravel(), ours_NA.ravel())[0, 1] if ours_NA.any() else 0.0
        axis.set(xlabel="Q*(s, a) less its mean, reward", title=f"{title}: correlation {correlation:.2f}")
        axis.set(xlim=(-limit, limit), ylim=(-limit, limit), aspect="equal")
    axes[0].set(ylabel="value less its mean, reward")
    if values.true.shape[1] <= 6:
        axes[0].legend(markerscale=2)
    return figure


def draw_context(rows, attention_ET, values: Values, x: int, h: int) -> Figure:
    """One context as a strip of steps (attention, state, action, reward) and the values that it implies."""
    episodes, n_actions = rows.episodes, values.true.shape[1]
    state_ET, action_ET, reward_ET, valid_ET = (
        np.asarray(a)[EXAMPLE, :-1]
        for a in (episodes.observation[..., :-1], episodes.action, episodes.reward, episodes.valid)
    )
    n_episodes, n_steps = action_ET.shape
    place_ET = np.arange(n_episodes)[:, None] * (n_steps + 0.8) + np.arange(n_steps)
    color_A = [CYCLE[a % len(CYCLE)] for a in range(n_actions)]
    query = rows.queries[EXAMPLE]
    width = min(14.0, 6.0 + 0.1 * place_ET.size)
    figure, axes = plt.subplot_mosaic(
        [["attention", "values"], ["strip", "mass"]],
        figsize=(width + 3.2, 3.4),
        width_ratios=[width, 3.2],
        height_ratios=[2.2, 1],
        layout="constrained",
    )
    top, strip, bars, masses = axes["attention"], axes["strip"], axes["values"], axes["mass"]
    top.sharex(strip)
    for place, state, action, reward, attention, valid in zip(
        *(a.ravel() for a in (place_ET, state_ET, action_ET, reward_ET, attention_ET[:-1], valid_ET))
    ):
        if not valid:
            continue
        top.bar(place, attention, width=0.85, color=color_A[action])
        if state == query:
            strip.axvspan(place - 0.5, place + 0.5, color="#f3e3b3", zorder=0, linewidth=0)
            top.axvspan(place - 0.5, place + 0.5, color="#f3e3b3", zorder=0, linewidth=0)
        strip.text(place, 2, str(state), ha="center", va="center", fontsize=7 if place_ET.size <= 80 else 4)
        strip.plot(place, 1, "s", color=color_A[action], markersize=4.5)
        fill = "full" if reward > 0 else "none"
        strip.plot(place, 0, "o", color="black", markersize=4, fillstyle=fill, markeredgewidth=0.7)
    names = [f"episode {e}" if n_episodes <= 12 else e for e in range(n_episodes)]
    strip.set(xticks=place_ET.mean(1), xticklabels=names, xlim=(-1, place_ET.max() + 1), xlabel="steps of the context")
    strip.set(yticks=[2, 1, 0], yticklabels=["state", "action", "reward"], ylim=(-0.6, 2.6))
    strip.grid(False)
    top.tick_params(labelbottom=False, bottom=False)
    top.grid(axis="x", visible=False)
    where = f"where the query, state {query}, attends: layer {x}, head {h} (shaded: the same state)"
    top.set(ylabel="attention", title=where)
    opinions = {"head": values.head, "logits": values.logits, "planner": values.reader, "Q*": values.true}
    for action in range(n_actions):
        heights = [centred(v)[EXAMPLE, action] for v in opinions.values()]
        offset = (action - (n_actions - 1) / 2) * 0.8 / n_actions
        bars.bar(np.arange(4) + offset, heights, 0.8 / n_actions, color=color_A[action], label=f"action {action}")
    bars.axhline(0, color="black", linewidth=0.6)
    bars.set(xticks=range(4), xticklabels=list(opinions), title="Q-values implied, less their mean", ylabel="reward")
    mass_A = [(attention_ET[:-1] * (valid_ET & (action_ET == action))).sum() for action in range(n_actions)]
    masses.barh(range(n_actions), mass_A, color=color_A)
    masses.set(yticks=range(n_actions), xlabel="attention to the steps of each action", ylabel="action")
    masses.invert_yaxis()
    masses.grid(False)
    return figure


def write_page(
    page: pathlib.Path, directory: str | pathlib.Path, measured: dict[str, np.ndarray], figures: dict[str, Figure]
) -> None:
    """Saves the pictures beside the page, and the page with the pictures inside."""
    folder = page.with_suffix("")
    folder.mkdir(exist_ok=True)
    sources = {name: pages.save(folder, name, figure) for name, figure in figures.items()}
    rng = np.random.default_rng(0)
    lines = [(name, x.mean(), *bootstrap_interval(np.mean, x, rng=rng)) for name, x in measured.items()]
    pages.render(
        page,
        "theory",
        "attention_vs_q.html",
        run=str(directory),
        lines=lines,
        n=len(next(iter(measured.values()))),
        pictures=sources,
        versions=", ".join(f"{name} {version}" for name, version in pages.versions().items()),
    )
