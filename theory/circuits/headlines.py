"""The headline numbers of a run, all at the first decision: each with its interval and what it is measured against.

Axis letters: N tasks, W decisions, A actions, X layers, H heads.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from icdm.intervals import bootstrap_interval
from icdm.problems.family import HasPosterior
from theory.circuits.heads import spearman, values_read
from theory.circuits.regressions import pair_products, r_squared, slope
from theory.circuits.trained import centred, shuffle_actions
from theory.circuits.view import LEAST_CHANGE, View

Head = tuple[int, int]  # (layer, head)


class Headline(NamedTuple):
    """A number, its 95 % interval over tasks, and by name the controls and references: what it is elsewhere."""

    name: str
    value: float
    interval: list[float]
    controls: dict[str, float]


class Moved(NamedTuple):
    """Changes of centred values by one replaced signal in each of N contexts, (N, A): of the planner's Q, and of the
    model's scaled logits."""

    exact: np.ndarray
    model: np.ndarray


def measured(name: str, statistic: Callable, sample_N: np.ndarray, controls: dict[str, float]) -> Headline:
    """The statistic of N tasks with its bootstrap interval."""
    interval = bootstrap_interval(statistic, sample_N, rng=np.random.default_rng(0))
    return Headline(name, float(statistic(sample_N)), interval, controls)


def head_reads_q(view: View, start: View, head: Head) -> Headline:
    """How a head's values rank the actions, on the second half of the tasks: on the first it was chosen."""
    layer, number = head
    episodes, second = view.rows.episodes, slice(len(view.rows.queries) // 2, None)
    shuffled = view.head_values(shuffle_actions(episodes, np.random.default_rng(0)))
    equal = values_read(np.ones((1, len(episodes.action), 1, *episodes.action.shape[1:])), episodes, view.discount)
    true_NA = view.true_NWA[:, 0]

    def mean(values_NA: np.ndarray) -> float:
        return float(spearman(values_NA, true_NA)[second].mean())

    controls = {
        "before training": mean(start.values_NWXHA[:, 0, layer, number]),
        "actions of the context shuffled": mean(shuffled[:, 0, layer, number]),
        "equal attention to all steps": mean(equal[0, :, 0]),
        "logits": mean(view.logits_NWA[:, 0]),
    }
    if view.planner_NWA is not None:
        controls["planner"] = mean(view.planner_NWA[:, 0])
    name = f"layer {layer}, head {number}: rank correlation of its values with Q*"
    return measured(name, np.mean, view.correlation_NWXH[second, 0, layer, number], controls)


def logits_are_q(view: View, start: View) -> list[Headline]:
    """R2 of logit differences on differences of the planner's Q, and of the task's Q*."""
    shuffled_NA = view.logits(shuffle_actions(view.rows.episodes, np.random.default_rng(0)))[:, 0]
    against = {} if view.planner_NWA is None else {f"the Q of the {view.planner}": view.planner_NWA[:, 0]}
    found = []
    for name, q_NA in (against | {"the task's own Q*": view.true_NWA[:, 0]}).items():
        sums = {
            "before training": pair_products(start.logits_NWA[:, 0], q_NA),
            "actions of the context shuffled": pair_products(shuffled_NA, q_NA),
        }
        if against and name not in against:
            sums["planner"] = pair_products(view.planner_NWA[:, 0], q_NA)
        controls = {key: r_squared(each_N3[:, None]) for key, each_N3 in sums.items()}
        own_N13 = pair_products(view.logits_NWA[:, 0], q_NA)[:, None]
        found.append(measured(f"logits: R2 against {name}", r_squared, own_N13, controls))
    return found


def influence_is_bayes(view: View, start: View) -> tuple[list[Headline], dict[str, Moved]]:
    """Slope and R2 of what one replaced signal does to the logits, on what it does to the planner's Q."""
    if view.planner_NWA is None:
        return [], {}
    family, found, pictures = view.rows.family, [], {}
    views = {"own": view, "before training": start}
    is_exact = isinstance(family, HasPosterior) and not family.hides_state
    for place, (episodes, kept_N) in view.replaced_once(np.random.default_rng(0)).items():
        view.check_is_read(episodes)
        exact_NA = centred(view.planned(episodes) - view.planner_NWA)[kept_N, 0]
        moves_N = np.abs(exact_NA).max(-1) > LEAST_CHANGE
        if moves_N.sum() < 2:
            continue
        changes = {name: (x.logits(episodes) - x.logits_NWA)[kept_N, 0] for name, x in views.items()}
        if is_exact:  # its horizon is that of the posterior's model
            rows = dataclasses.replace(view.rows, family=dataclasses.replace(family, horizon=1))
            other = dataclasses.replace(rows, episodes=episodes)
            changes["myopic reader"] = centred(other.reader_q() - rows.reader_q())[kept_N]
        sums = {name: pair_products(change_NA, exact_NA)[:, None] for name, change_NA in changes.items()}
        own_N13 = sums.pop("own")
        what = f"one {view.signal} {place} replaced"
        # Rows in which the planner's Q stays add nothing to a slope; a resample of them alone has none.
        for statistic, name, kept in (
            (slope, "slope of the change of the logits on the exact one", moves_N),
            (explained, "R2", slice(None)),
        ):
            controls = {control: statistic(each_N13) for control, each_N13 in sums.items()}
            found.append(measured(f"{what}: {name}", statistic, own_N13[kept], controls))
        pictures[place] = Moved(exact_NA, changes["own"])
    return found, pictures


def explained(sums_N13: np.ndarray) -> float:
    """R2, which is 0 where nothing moves."""
    return r_squared(sums_N13) if sums_N13[..., 1].any() and sums_N13[..., 2].any() else 0.0


def regret_rises(view: View, heads: list[Head]) -> np.ndarray:
    """How much the regret of the first decision rises without each of some heads, (N, heads)."""
    intact_N = regret(view.logits_NWA, view.true_NWA)[:, 0]
    without = (view.logits(view.rows.episodes, (head,)) for head in heads)
    return np.stack([regret(logits_NWA, view.true_NWA)[:, 0] - intact_N for logits_NWA in without], 1)


def regret(logits_NWA: np.ndarray, q_NWA: np.ndarray) -> np.ndarray:
    """max_a Q*(s, a) - Q*(s, argmax of the logits), (N, W)."""
    chosen_NW1 = logits_NWA.argmax(-1)[..., None]
    return q_NWA.max(-1) - np.take_along_axis(q_NWA, chosen_NW1, -1)[..., 0]


def head_is_needed(rises_NI: np.ndarray, heads: list[Head], head: Head) -> Headline:
    """The rise without one head, beside the mean of the others'. I heads that were removed one at a time."""
    i = heads.index(head)
    others = {"mean of the other heads": float(np.delete(rises_NI, i, 1).mean())} if len(heads) > 1 else {}
    name = f"rise of regret without layer {head[0]}, head {head[1]}, in units of reward"
    return measured(name, np.mean, rises_NI[:, i], others)
