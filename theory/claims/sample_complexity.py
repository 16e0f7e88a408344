"""The number of episodes that a gap takes: 1/eps^2 at test, 1/eps in training, for the hardest tasks.

The tasks' optimal weights are w*_h = 1 + delta xi_h, xi_h ~ N(0, I): as the features are on the simplex, the
first part is the same for all actions, and delta is the scale of the differences between actions. A guarantee must
hold at every delta, so the gap at a budget is the largest over delta. With one delta for all tasks the gap
falls faster, because errors far below the typical action gap cost nothing: the control reports those exponents.
A test episode gives every step one pair, hence M = test episodes; likewise N.
"""

import numpy as np
from matplotlib.figure import Figure

from theory.book import Book
from theory.figures import BLUE, GREY, ORANGE, panels
from theory.ledger import Claim
from theory.linear import laws
from theory.linear.closed_forms import check_lengths, optimum
from theory.linear.decisions import estimated_weights, greedy_outcome, sample_problems
from theory.statistics import log_slope


def check(config) -> tuple[Claim, Figure]:
    check_lengths(config.dimension, *config.test_episodes, *config.training_episodes)
    d = config.dimension
    rng = np.random.default_rng(config.seed)
    direction = rng.normal(size=(config.problems, config.horizon, d))
    tasks = [sample_problems(config, config.seed, config.problems, 1 + delta * direction) for delta in config.deltas]
    features, prior = laws.uniform_over(tasks[0].cells), np.ones((d, d)) + np.eye(d)

    test = gaps(tasks, [(np.linalg.inv(features.second), m) for m in config.test_episodes], rng)
    training = gaps(tasks, [(optimum(features, prior, n), np.inf) for n in config.training_episodes], rng)
    one = int(np.argmin(np.abs(np.array(config.deltas) - 1)))

    book = Book(config, rng, repeats=300)
    for name, budgets, gap, expected in (
        ("test_exponent", config.test_episodes, test, (1.8, 2.2)),
        ("training_exponent", config.training_episodes, training, (0.9, 1.1)),
    ):
        book.measure(name, lambda rows: exponent(budgets, hardest(rows)), gap, between=expected)
        book.control(f"{name}_of_typical_tasks", exponent(budgets, gap[:, one].mean(0)))
    claim = book.close(
        id="sample_complexity",
        claim="test episodes for a guaranteed gap eps grow as 1/eps^2, training episodes as 1/eps",
        source="arXiv 2605.09009, Prop. 2: K_test = O(C_on T d^2/eps^2), K = O(sqrt(C_on) d^1.5/eps)",
        metric="exponent a in episodes ~ eps^-a, eps the mean greedy gap of the hardest scale of action "
        "gaps, fitted over the budgets; test: endless training; training: endless test prompt",
    )
    return claim, draw(config, test, training, one, claim)


def gaps(tasks, layers, rng) -> np.ndarray:
    """Greedy gap of every problem, scale and (U, M), (problems, scales, budgets)."""
    return np.stack(
        [
            np.stack([greedy_outcome(p, p.q_of(estimated_weights(p, u, m, rng)))[0] for u, m in layers], axis=-1)
            for p in tasks
        ],
        axis=1,
    )


def hardest(gap_NDX):
    return gap_NDX.mean(0).max(0)


def exponent(budgets, mean_gap) -> float:
    """a in budget ~ gap^-a, by least squares in logarithms."""
    return -1 / log_slope(budgets, mean_gap)


def draw(config, test, training, one, claim) -> Figure:
    figure, axes = panels(2)
    parts = (("test", config.test_episodes, test), ("training", config.training_episodes, training))
    for axis, (name, budgets, gap) in zip(axes, parts):
        means = gap.mean(0)
        axis.loglog(budgets, means.T, color=GREY, linewidth=0.6, alpha=0.5)
        axis.plot([], [], color=GREY, linewidth=0.6, label="one scale of action gaps each")
        steep, low = claim.measured[f"{name}_exponent"], claim.control[f"{name}_exponent_of_typical_tasks"]
        axis.loglog(
            budgets,
            means.max(0),
            "o-",
            color=BLUE,
            label=f"hardest scale: episodes ~ $\\epsilon^{{-{steep:.2f}}}$",
        )
        axis.loglog(
            budgets,
            means[one],
            "s-",
            color=ORANGE,
            label=f"$\\delta$ = 1: episodes ~ $\\epsilon^{{-{low:.2f}}}$",
        )
        axis.set(xlabel=f"{name} episodes", ylabel="mean gap", title=f"Gap against {name} episodes")
        axis.set_ylim(bottom=means.max(0).min() / 100)
        axis.legend(fontsize=7)
    return figure
