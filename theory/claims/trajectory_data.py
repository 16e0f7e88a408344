"""Prompts that are trajectories: correlated features, and the oracle's own, which do not span the space.

Along a trajectory the x_i depend on each other, and the best U is S_w Lambda E[G S_w G]^-1 with the second
moment of the trajectory, not of independent pairs. States stay put with probability `stickiness`, which
sets the correlation. For a stationary chain with kernel K over pairs the moment is exact,

    E[G S G] = (1/N) E[x x^T S x x^T] + (1/N^2) sum_{k=1}^{N-1} (N - k) (C_k + C_k^T),
    C_k = sum_{c, c'} d(c) K^k(c, c') x_c x_c^T S x_c' x_c'^T,

which checks the simulated one. Only optimal pairs occur if the context is the oracle's own: Lambda is
singular and the estimate of every other pair stays at the prior's mean, zero.
"""

import jax
import numpy as np
from matplotlib.figure import Figure

from icdm.errors import UserError
from icdm.families.linear_mdp import simplex_features
from icdm.intervals import mean_interval
from theory.book import Book
from theory.figures import BLUE, GREEN, ORANGE, RED, panels
from theory.ledger import Claim
from theory.linear import laws
from theory.linear.closed_forms import check_lengths, optimum, optimum_from_moment


def check(config) -> tuple[Claim, Figure]:
    check_lengths(config.dimension, config.n)
    if not all(0 <= stickiness < 1 for stickiness in config.stickiness):
        raise UserError(f"stickiness {config.stickiness}: give probabilities in [0, 1)")
    chains = [correlated(config, stickiness) for stickiness in config.stickiness]
    loosest, stickiest = chains[0], chains[-1]
    furthest = max(chains, key=lambda chain: abs(chain["own"].mean() / chain["exact"] - 1))
    oracle = oracle_context(config)

    def excess(iid_form, own_form):
        return iid_form.mean() / own_form.mean() - 1

    error, interval = mean_interval(furthest["own"])
    exact = furthest["exact"]
    book = Book(config, repeats=300)
    book.enter("simulated_over_exact_error", error / exact, [end / exact for end in interval], between=(0.97, 1.03))
    book.enter("moment_deviation", max(chain["moment_deviation"] for chain in chains), at_most=0.05)
    book.measure("excess_error_of_independent_form", excess, stickiest["iid"], stickiest["own"], at_least=0.05)
    book.enter("error_against_independent_pairs", stickiest["own"].mean() / loosest["own"].mean())
    book.enter("unseen_relative_error", *mean_interval(oracle["unseen_error"]), between=(0.95, 1.05))
    book.enter("rank_share_of_oracle_lambda", oracle["rank_share"], at_most=0.5)
    book.control("excess_error_without_stickiness", excess(loosest["iid"], loosest["own"]))
    book.control("seen_relative_error", oracle["seen_error"].mean())
    for name, gap in oracle["gaps"].items():
        book.control(f"greedy_gap_{name}", gap.mean())
    claim = book.close(
        id="trajectory_data",
        claim="on trajectories the optimum needs the trajectory's own second moment; on the oracle's own "
        "data Lambda is singular and the other actions' Q cannot be learned",
        source="derived here (shared second moment by simulation, checked by the exact sum over lags)",
        metric="simulated over exact error of the layer built from simulated trajectories (furthest from "
        "1), largest relative deviation of the simulated from the exact second moment; excess error of the "
        "independent-pairs form on the stickiest chain; relative error of Q on pairs that the oracle never "
        "shows and rank of Lambda there",
    )
    return claim, draw(config, chains, oracle)


def correlated(config, stickiness: float) -> dict:
    """Errors on fresh trajectories of the layer built from their own moment and of the independent form."""
    rng = np.random.default_rng(config.seed)
    features = simplex_features(jax.random.key(config.seed), config.states, config.actions, config.dimension)
    cells = np.asarray(features, np.float64).reshape(-1, config.dimension)
    move = rng.dirichlet(np.ones(config.states), (config.states, config.actions))
    stay = np.eye(config.states)[:, None]
    move = (1 - stickiness) * move + stickiness * stay
    kernel = np.repeat(move.reshape(len(cells), -1), config.actions, axis=1) / config.actions
    share = np.linalg.matrix_power(kernel, 4096)[0]
    law, unit = laws.Finite(cells, share), np.eye(config.dimension)
    second = law.second

    train, test = (grams(rng, cells, kernel, share, config.n, config.trajectories) for _ in range(2))
    simulated = np.einsum("rij,rjk->ik", train, train) / len(train)
    exact = lagged_moment(law, kernel, config.n)
    own, iid = optimum_from_moment(second, unit, simulated), optimum(law, unit, config.n)
    best = optimum_from_moment(second, unit, exact)
    return {
        "own": expected_errors(second, own, test),
        "iid": expected_errors(second, iid, test),
        "exact": float(np.trace(second - 2 * second @ best @ second + second @ best @ exact @ best.T)),
        "moment_deviation": float(np.linalg.norm(simulated - exact) / np.linalg.norm(exact)),
    }


def grams(rng, cells, kernel, share, n: int, trajectories: int) -> np.ndarray:
    """G = (1/n) sum_i x_i x_i^T of stationary trajectories, (trajectories, F, F)."""
    cumulative = kernel.cumsum(1)
    at = rng.choice(len(cells), size=trajectories, p=share)
    counts = np.zeros((trajectories, len(cells)))
    for _ in range(n):
        counts[np.arange(trajectories), at] += 1 / n
        at = np.minimum((cumulative[at] <= rng.random(trajectories)[:, None]).sum(1), len(cells) - 1)
    return np.einsum("rc,cf,cg->rfg", counts, cells, cells, optimize=True)


def expected_errors(second, u, grams) -> np.ndarray:
    """tr[Lambda D D^T], D = U G - I: squared error given each trajectory, over w ~ N(0, I) and queries."""
    off = u @ grams - np.eye(len(u))
    return np.einsum("ij,rjk,rik->r", second, off, off, optimize=True)


def lagged_moment(law: laws.Finite, kernel, n: int) -> np.ndarray:
    """E[G G] of a stationary trajectory of n pairs, by the sum over lags."""
    outer = np.einsum("cf,cg->cfg", law.points, law.points)
    total = law.fourth(np.eye(law.points.shape[1])) / n
    ahead = outer
    for k in range(1, n):
        ahead = np.einsum("cd,dfg->cfg", kernel, ahead)
        lag = np.einsum("c,cfg,cgh->fh", law.weights, outer, ahead, optimize=True)
        total = total + (n - k) / n**2 * (lag + lag.T)
    return total


def oracle_context(config) -> dict:
    """Tabular Q of one step from contexts of optimal pairs only, or of uniform ones; rewards in [0, 1] or costs."""
    rng = np.random.default_rng(config.seed + 1)
    states, actions, tables = config.states, config.actions, config.tables
    q = rng.uniform(size=(tables, states, actions))
    chosen = np.eye(actions)[q.argmax(-1)] / states
    uniform = np.full_like(chosen, 1 / (states * actions))
    gaps, seen_error, unseen_error = {}, None, None
    for sign, kind in ((1.0, "rewards"), (-1.0, "costs")):
        table = q if sign > 0 else q - 1
        for share, who in ((chosen, "oracle"), (uniform, "uniform")):
            estimate = tabular_estimate(rng, table, share, config.n * states * actions)
            picked = np.take_along_axis(table, estimate.argmax(-1)[..., None], -1)[..., 0]
            gaps[f"{who}_context_{kind}"] = (table.max(-1) - picked).mean(-1)
            if who == "oracle" and kind == "rewards":
                off = (estimate - table) ** 2
                unseen_error = np.array(
                    [(o[c == 0]).sum() / (t[c == 0] ** 2).sum() for o, t, c in zip(off, table, share)]
                )
                seen_error = np.array([(o[c > 0]).sum() / (t[c > 0] ** 2).sum() for o, t, c in zip(off, table, share)])
    rank = np.mean([np.linalg.matrix_rank(np.diag(c.ravel())) / c.size for c in chosen])
    return {"unseen_error": unseen_error, "seen_error": seen_error, "rank_share": rank, "gaps": gaps}


def tabular_estimate(rng, table, share, m: int) -> np.ndarray:
    """Reduced layer with one-hot features: U = Lambda^+ applied to (1/m) sum_i y_i e_i, (tables, S, A)."""
    flat = share.reshape(len(share), -1)
    counts = np.stack([rng.multinomial(m, p / p.sum()) for p in flat]) / m
    inverse = np.divide(1.0, flat, out=np.zeros_like(flat), where=flat > 0)
    return (inverse * counts).reshape(table.shape) * table


def draw(config, chains, oracle) -> Figure:
    figure, (left, right) = panels(2)
    left.plot(
        config.stickiness,
        [c["iid"].mean() for c in chains],
        "s--",
        color=ORANGE,
        label="independent-pairs form",
    )
    left.plot(config.stickiness, [c["own"].mean() for c in chains], "o", color=BLUE, label="trajectory's own moment")
    left.plot(config.stickiness, [c["exact"] for c in chains], color=BLUE, linewidth=0.9, label="exact")
    left.set(
        xlabel="stickiness of the states",
        ylabel="squared error",
        title="Correlated features need their own optimum",
    )
    left.set_ylim(bottom=0)
    left.legend()
    names = list(oracle["gaps"])
    colors = [RED if "oracle" in name else GREEN for name in names]
    right.bar(range(len(names)), [oracle["gaps"][name].mean() for name in names], color=colors, width=0.6)
    right.set_xticks(range(len(names)), [name.replace("_context_", "\ncontext,\n") for name in names])
    right.set(ylabel="value lost by the greedy action", title="The oracle's own data hide the other actions")
    return figure
