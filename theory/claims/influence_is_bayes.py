"""Rewards of the context move the logits as they move the exact posterior's Q, and not at the query's own state alone.

One recorded reward r_i of each context, 0 or 1, is replaced by its opposite. The change of the centred logits times tau
is compared with the change of the posterior-mean planner's centred Q, which is exact: slope and R2 through the origin,
by the distance k from the query's state to that of the flipped reward; k = 0 is the query's own state. A reader that
looks up rewards and does not plan moves at k = 0 alone, as the `myopic` reference does, the posterior mean of the next
reward.
"""

import dataclasses

import numpy as np
from matplotlib.figure import Figure

from theory.book import Book
from theory.circuits import trained
from theory.circuits.influence import Influence, distances, flip, planned_change
from theory.circuits.regressions import pair_products, r_squared, slope
from theory.figures import CYCLE, GREY, panels
from theory.ledger import Claim

CONTROLS = ("myopic", "random_weights", "shuffled_context")


def check(config) -> tuple[Claim, Figure]:
    runs = trained.examined(config)
    rows = trained.unseen_rows(runs[0], config.tasks, config.seed)
    shuffled = trained.shuffle_actions(rows.episodes, np.random.default_rng(config.seed))
    distance_NET, rng = distances(rows), np.random.default_rng(config.seed)
    own = [Influence(run, run.model("fine_tuned"), rows) for run in runs]
    rivals = {
        "random_weights": Influence(runs[0], runs[0].model("start"), rows),
        "shuffled_context": Influence(runs[0], own[0].model, dataclasses.replace(rows, episodes=shuffled)),
    }
    myopic = dataclasses.replace(rows, family=dataclasses.replace(rows.family, horizon=1))
    book, pictures = Book(config, rng), {}
    limits = {0: (dict(between=(0.8, 1.25)), dict(at_least=0.8)), 1: (dict(at_least=0.5), dict(at_least=0.5))}
    for k in range(config.distances):
        reward_NET, kept_N = flip(rows, distance_NET == k, rng)
        exact_NA = planned_change(rows, reward_NET)[kept_N]
        moved = [influence.change(reward_NET)[kept_N] for influence in own]
        sums_NQ3 = np.stack([pair_products(change_NA, exact_NA) for change_NA in moved], 1)
        slope_limit, r2_limit = limits.get(k, ({}, {}))
        book.measure(f"slope_{k}", slope, sums_NQ3, **slope_limit)
        book.measure(f"r2_{k}", r_squared, sums_NQ3, **r2_limit)
        book.enter(f"contexts_{k}", int(kept_N.sum()))
        changes = {"myopic": planned_change(myopic, reward_NET)}
        changes |= {name: influence.change(reward_NET) for name, influence in rivals.items()}
        for name, change_NA in changes.items():
            book.control(f"slope_{k}_{name}", slope(pair_products(change_NA[kept_N], exact_NA)[:, None]))
        pictures[k] = exact_NA, moved[0]
    claim = book.close(
        id="influence_is_bayes",
        claim="a reward of the context moves the logits as it moves the exact posterior's Q, one step from the query's "
        "state too",
        source="derived here",
        metric="one context reward flipped at distance k from the query's state: slope and R2 of the change of tau "
        "logits on the change of the posterior-mean planner's Q, centred; mean over seeds, intervals over tasks",
    )
    return claim, draw(pictures, claim)


def draw(pictures, claim) -> Figure:
    figure, axes = panels(len(pictures) + 1, height=3.4)
    for axis, (k, (exact_NA, ours_NA)) in zip(axes, pictures.items()):
        limit = 1.05 * max(np.abs(exact_NA).max(), np.abs(ours_NA).max())
        axis.plot(exact_NA.ravel(), ours_NA.ravel(), ".", alpha=0.3, markersize=3, markeredgewidth=0)
        axis.plot([-limit, limit], [-limit, limit], color=GREY, linewidth=0.8)
        axis.set(xlim=(-limit, limit), ylim=(-limit, limit), aspect="equal")
        axis.set(xlabel="change of the exact posterior's Q, reward", ylabel="change of $\\tau$ logit, reward")
        axis.set(title=f"reward flipped {k} steps away")
    last, k_K = axes[-1], list(pictures)
    means = [claim.measured[f"slope_{k}"] for k in k_K]
    low, high = np.array([claim.ci95[f"slope_{k}"] for k in k_K]).T
    last.errorbar(k_K, means, [means - low, high - means], marker="o", capsize=3, label="the model")
    for name, color, marker in zip(CONTROLS, CYCLE[1:], "s^D"):
        values = [claim.control[f"slope_{k}_{name}"] for k in k_K]
        last.plot(k_K, values, marker=marker, ls="--", color=color, label=name.replace("_", " "))
    last.axhline(1, color=GREY, linewidth=0.8)
    last.set(
        xticks=k_K, xlabel="distance of the reward, steps", ylabel="slope, 95 % interval", title="how far it plans"
    )
    last.legend()
    return figure
