"""The publishable panels of attention_vs_q: heads, values, influences, and one context with the query's reading of it.

Axis letters: N tasks, E episodes, T steps, A actions, X layers, H heads.
"""

from typing import NamedTuple

import jax
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from theory.circuits.headlines import Head, Moved
from theory.circuits.heads import mean_and_half
from theory.circuits.trained import Rows, centred
from theory.circuits.view import View
from theory.figures import CYCLE, GREY, panels, plt

EXAMPLE = 0  # the row that is drawn whole: the first, not a selected one


class Values(NamedTuple):
    """Estimates of the Q-values of the first decision, each (N, A), centred and in units of reward; planner is None
    where no posterior is known."""

    head: np.ndarray
    logits: np.ndarray
    planner: np.ndarray | None
    true: np.ndarray

    @property
    def named(self) -> dict[str, np.ndarray]:
        named = {"head": self.head, "logits": self.logits, "planner": self.planner, "Q*": self.true}
        return {name: values_NA for name, values_NA in named.items() if values_NA is not None}


def pictures(view: View, head: Head, moved: dict[str, Moved]) -> dict[str, Figure]:
    """The figures by name; there is no influence where no posterior is known."""
    x, h = head
    planner_NA = None if view.planner_NWA is None else centred(view.planner_NWA[:, 0])
    values = Values(
        centred(view.values_NWXHA[:, 0, x, h]), view.logits_NWA[:, 0], planner_NA, centred(view.true_NWA[:, 0])
    )
    one = jax.tree.map(lambda array: array[EXAMPLE : EXAMPLE + 1], view.rows.episodes)
    attention_ET = view.attention_to_steps(one)[0, 0, x, h]
    influence = {"influence": draw_influence(moved, view.signal)} if moved else {}
    return influence | {
        "heat_map": draw_heat_map(np.moveaxis(view.correlation_NWXH[:, 0], 1, 0), x, h),
        "scatter": draw_scatter(values, x, h),
        "context": draw_context(view.rows, attention_ET, values, x, h),
    }


def draw_heat_map(correlation_XNH: np.ndarray, x: int, h: int) -> Figure:
    figure, (axis,) = panels(height=1.8 + 0.45 * len(correlation_XNH))
    heat_map(axis, correlation_XNH, "rank correlation with Q*(s, $\\cdot$)")
    axis.add_patch(plt.Rectangle((h - 0.5, x - 0.5), 1, 1, fill=False, edgecolor="black", linewidth=1.5))
    return figure


def heat_map(axis: Axes, correlation_XNH: np.ndarray, title: str) -> None:
    """Mean rank correlation of every head over N tasks, on the scale from -1 to 1, with its number in its cell.

    A cell whose 95 % interval holds 0 has no colour and a grey number.
    """
    means_XH, half_XH = mean_and_half(np.moveaxis(correlation_XNH, 1, 0))
    clear_XH = np.abs(means_XH) > half_XH
    axis.imshow(np.where(clear_XH, means_XH, 0), cmap="RdBu", vmin=-1, vmax=1, aspect="auto")
    for layer, head in np.ndindex(means_XH.shape):
        color = GREY if not clear_XH[layer, head] else "w" if abs(means_XH[layer, head]) > 0.6 else "k"
        axis.text(head, layer, f"{means_XH[layer, head]:.2f}", ha="center", va="center", color=color)
    layers, heads = map(range, means_XH.shape)
    axis.set(xlabel="head (grey: the interval holds 0)", ylabel="layer", title=title, xticks=heads, yticks=layers)
    axis.grid(False)


def draw_scatter(values: Values, x: int, h: int) -> Figure:
    """The values against Q*, all on the same axes, with the correlation of all pairs in the title."""
    titles = {"head": f"layer {x}, head {h}", "logits": "temperature x logits", "planner": "planner from the context"}
    ours = {name: values_NA for name, values_NA in values.named.items() if name in titles}
    figure, axes = panels(len(ours), height=4.0)
    theirs_NA = values.true
    limit = 1.05 * max(np.abs(values_NA).max() for values_NA in values.named.values())
    for axis, (name, ours_NA) in zip(axes, ours.items()):
        for action, color in zip(range(theirs_NA.shape[1]), CYCLE * theirs_NA.shape[1]):
            dots = (theirs_NA[:, action], ours_NA[:, action], ".")
            axis.plot(*dots, color=color, alpha=0.35, markersize=4, markeredgewidth=0, label=f"action {action}")
        correlation = np.corrcoef(theirs_NA.ravel(), ours_NA.ravel())[0, 1] if ours_NA.any() else 0.0
        equal_axes(axis, limit)
        axis.set(xlabel="Q*(s, a) less its mean, reward", title=f"{titles[name]}: correlation {correlation:.2f}")
        axis.set(ylabel="value less its mean, reward")
    if theirs_NA.shape[1] <= 6:
        axes[0].legend(markerscale=2)
    return figure


def draw_influence(moved: dict[str, Moved], signal: str) -> Figure:
    """What one replaced signal of each context does to the logits, against what it does to the planner's Q."""
    figure, axes = panels(len(moved), height=4.0)
    for axis, (place, (exact_NA, ours_NA)) in zip(axes, moved.items()):
        axis.plot(exact_NA.ravel(), ours_NA.ravel(), ".", alpha=0.5, markersize=5, markeredgewidth=0)
        equal_axes(axis, 1.05 * max(np.abs(exact_NA).max(), np.abs(ours_NA).max()))
        axis.set(xlabel="change of the planner's Q, reward", ylabel="change of temperature x logit, reward")
        axis.set_title(f"one {signal} {place} replaced", fontsize=9)
    return figure


def equal_axes(axis: Axes, limit: float) -> None:
    """Both axes from -limit to limit, and the line on which they are equal."""
    axis.plot([-limit, limit], [-limit, limit], color=GREY, linewidth=0.8)
    axis.set(xlim=(-limit, limit), ylim=(-limit, limit), aspect="equal")


def draw_context(rows: Rows, attention_ET: np.ndarray, values: Values, x: int, h: int) -> Figure:
    """One context as a strip of steps (attention, state, action, reward) and the values that it implies."""
    episodes, n_actions = rows.episodes, values.true.shape[1]
    shown = "observation" if rows.family.hides_state else "state"
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
    strip.set(yticks=[2, 1, 0], yticklabels=[shown, "action", "reward"], ylim=(-0.6, 2.6))
    strip.grid(False)
    top.tick_params(labelbottom=False, bottom=False)
    top.grid(axis="x", visible=False)
    where = f"where the query, {shown} {query}, attends: layer {x}, head {h} (shaded: the same {shown})"
    top.set(ylabel="attention, share", title=where)
    for action in range(n_actions):
        heights = [values_NA[EXAMPLE, action] for values_NA in values.named.values()]
        offset = (action - (n_actions - 1) / 2) * 0.8 / n_actions
        bars.bar(
            np.arange(len(heights)) + offset, heights, 0.8 / n_actions, color=color_A[action], label=f"action {action}"
        )
    bars.axhline(0, color="black", linewidth=0.6)
    bars.set(xticks=range(len(heights)), xticklabels=list(values.named))
    bars.set(title="Q-values implied, less their mean", ylabel="reward")
    mass_A = [(attention_ET[:-1] * (valid_ET & (action_ET == action))).sum() for action in range(n_actions)]
    masses.barh(range(n_actions), mass_A, color=color_A)
    masses.set(yticks=range(n_actions), xlabel="share of attention to each action", ylabel="action")
    masses.invert_yaxis()
    masses.grid(False)
    return figure
