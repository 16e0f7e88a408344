"""Every layer buys one more backup: how far away a reward still moves the logits grows with depth, one step a layer.

Models of different depth and equally many weights read layered MDPs, in which the distance between states is
unambiguous. All rewards that a context shows in one state, k steps from the query's, are replaced by their opposites.
rho_L(k) is the slope of the change of tau logits on that of the posterior-mean planner's Q, for L layers; of the states
at that distance it is the one that moves the planner's Q most.

Three laws say how far L layers reach: K = L - 1, one Bellman backup in each layer after the one that reads the rewards
(Brinkmann et al., 2024); K = 2^(L-1), paths that double (Saparov et al., 2024); K = 0, no planning. Each predicts
rho_L(k) = 1 / (1 + exp((k - K - 1/2) / w)), with a width w of its own. Least squares over all n pairs (L, k) decide by
AIC = n log(RSS / n) + 4.

In a state that cannot be reached the exact change is nothing. rho is there the slope on what the same rewards are worth
to a query in that state itself, as at k = 0: a reader that confuses the two moves by it.

The transformer of `control_exact`, each of whose layers takes one step of fitted-Q iteration by construction, goes
through the same measurement: the law has to be found in it.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

from theory.book import Book
from theory.circuits import trained
from theory.circuits.influence import Influence, distances_of_states, in_state, opposite
from theory.circuits.regressions import pair_products, slope
from theory.circuits.trained import Rows, centred
from theory.figures import CYCLE, GREY, panels
from theory.ledger import Claim
from theory.linear.fitted_q_layers import values_after_layers

LAWS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "one_backup_a_layer": lambda layers: layers - 1,
    "doubling": lambda layers: 2.0 ** (layers - 1),
    "none": lambda layers: 0 * layers,
}
WIDTHS = np.geomspace(0.05, 5, 80)  # of the step from 1 to 0, among which the best is taken


class Shift(NamedTuple):
    """Other rewards in one state of each row.

    reward: all rewards, (N, E, T). exact: the change that they are worth, (N, A). kept: rows with such a state, (N,).
    """

    reward: np.ndarray
    exact: np.ndarray
    kept: np.ndarray


def check(config) -> tuple[Claim, Figure]:
    runs = {int(layers): own for layers, own in trained.runs_by_variant(config).items()}
    rows = trained.unseen_rows(next(iter(runs.values()))[0], config.tasks, config.seed)
    near, beyond = shifts(rows, config.distances, np.random.default_rng(config.seed))
    models = {layers: [run.model("fine_tuned") for run in own] for layers, own in runs.items()}
    sums, leaks = [], []
    for layers, own in runs.items():
        read = [Influence(run, model, rows) for run, model in zip(own, models[layers])]
        sums.append(np.stack([products(read, shift) for shift in near], 1))
        leaks.append(products(read, beyond))
    sums_NXKQ3, leaks_NXQ3 = np.stack(sums, 1), np.stack(leaks, 1)
    depths, deepest = np.array(list(runs), float), max(runs)
    cut = [Influence(run, model, rows, tuple(range(deepest))) for run, model in zip(runs[deepest], models[deepest])]
    cut_NQ3 = products(cut, near[1])
    book = Book(config)
    book.measure("aic_margin", lambda sums: margin(rho(sums), depths), sums_NXKQ3, at_least=4.0)
    for i, layers in enumerate(runs):
        own = leaks_NXQ3[:, i], sums_NXKQ3[:, i, 0]
        book.measure(f"unreachable_{layers}_layers", share, *own, between=(-0.05, 0.05))
        book.control(f"unreachable_size_{layers}_layers", size(*own))
    for i, layers in enumerate(runs):
        book.measure(f"reach_{layers}_layers", reach, sums_NXKQ3[:, i])
        for k in range(config.distances):
            book.measure(f"rho_{layers}_layers_{k}", slope, sums_NXKQ3[:, i, k])
    book.measure(f"share_left_1_{deepest}_layers", share, cut_NQ3, sums_NXKQ3[:, -1, 1])
    found = aic(rho(sums_NXKQ3), depths)
    for law, (value, width) in found.items():
        book.control(f"aic_{law}", value)
        book.control(f"width_{law}", width)
    by_construction_XK = constructed(depths, config.distances, config.tasks, config.seed)
    book.control("aic_margin_constructed", margin(by_construction_XK, depths))
    start = [Influence(runs[deepest][0], runs[deepest][0].model("start"), rows)]
    for k in (0, 1):
        book.control(f"rho_random_weights_{k}", slope(products(start, near[k])))
    claim = book.close(
        id="depth_buys_planning",
        claim="every layer after the first buys one more backup: a reward k steps away moves the logits of a model of "
        "k + 1 layers",
        source="two of the laws: Brinkmann et al., arXiv 2402.11917, 2024; Saparov et al., arXiv 2412.04703, 2024",
        metric="all context rewards of one state, k steps away, flipped: slope rho of the change of tau logits on that "
        "of the posterior-mean planner's Q; AIC of the better rival law less that of one backup a layer; reach: the "
        "largest k with rho of at least .5; mean over seeds, intervals over tasks",
    )
    return claim, draw(claim, runs, found)


def shifts(rows: Rows, distances: int, rng: np.random.Generator) -> tuple[list[Shift], Shift]:
    """The shifts at distance 0, 1, ..., and one beyond reach, whose exact change is that of a query in the state."""
    n, S = len(rows.queries), rows.family.n_states
    every = np.arange(n)
    distance_NS = distances_of_states(rows)
    seen_NS = rows.context_steps[..., None] & (np.asarray(rows.episodes.steps.observation)[..., None] == np.arange(S))
    seen_NS = seen_NS.any((1, 2))
    here_NSA, own_NSA = np.zeros((2, n, S, rows.family.n_actions))  # at the query, and at the state itself
    for s in range(S):
        reward_NET = opposite(rows, in_state(rows, np.full(n, s)))
        change_NSA = rows.with_rewards(reward_NET).planned()[:, 0] - rows.planned()[:, 0]
        here_NSA[:, s], own_NSA[:, s] = change_NSA[every, rows.queries], centred(change_NSA[:, s])
    touched_NS, here_NSA = here_NSA.any(-1), centred(here_NSA)

    def shift(weight_NS: np.ndarray, exact_NSA: np.ndarray) -> Shift:
        """Of the state of most weight; there is none where all weights are below 0."""
        state_N = weight_NS.argmax(-1)
        reward_NET = opposite(rows, in_state(rows, state_N))
        return Shift(reward_NET, exact_NSA[every, state_N], weight_NS.max(-1) >= 0)

    size_NS = np.linalg.norm(here_NSA, axis=-1)
    near = [shift(np.where(seen_NS & (distance_NS == k), size_NS, -1), here_NSA) for k in range(distances)]
    far_NS = distances_of_states(rows, least=np.finfo(float).tiny)
    beyond_NS = seen_NS & ~touched_NS & ((far_NS < 0) | (far_NS >= rows.family.horizon))
    return near, shift(np.where(beyond_NS, rng.random((n, S)), -1), own_NSA)


def products(read: list[Influence], shift: Shift) -> np.ndarray:
    """The products of every model's change with the exact one, (N, Q, 3); 0 in rows that have no such state."""
    pairs = [pair_products(influence.change(shift.reward), shift.exact) for influence in read]
    return np.stack([shift.kept[:, None] * pair_N3 for pair_N3 in pairs], 1)


def share(ours_NQ3: np.ndarray, whole_NQ3: np.ndarray) -> float:
    """One slope as a share of another."""
    return slope(ours_NQ3) / slope(whole_NQ3)


def size(ours_NQ3: np.ndarray, whole_NQ3: np.ndarray) -> float:
    """Root mean square of one change of the logits as a share of that of another."""
    means = [x[x[:, 0, 1] > 0][..., 2].mean() for x in (ours_NQ3, whole_NQ3)]
    return float(np.sqrt(means[0] / means[1]))


def rho(sums_NXKQ3: np.ndarray) -> np.ndarray:
    """The slopes of every depth and distance, mean over seeds, (X, K)."""
    zq, qq, _ = np.moveaxis(sums_NXKQ3.sum(0), -1, 0)
    return (zq / qq).mean(-1)


def constructed(depths_X: np.ndarray, distances: int, n: int, seed: int) -> np.ndarray:
    """rho of transformers that take one fitted-Q step a layer, (X, K): deterministic layers of 3 states, 2 actions,
    every pair shown once. Axis letter C: pairs of state and action, those of the query's state first."""
    rng, S, A = np.random.default_rng(seed), 3, 2
    states = distances * S
    layer_C = np.arange(states * A) // (S * A)
    arrival_NC = np.minimum((layer_C + 1) * S + rng.integers(0, S, (n, states * A)), states)  # `states`: the end
    features_CC = np.eye(states * A)
    next_NCAC = np.pad(features_CC, ((0, A), (0, 0)))[arrival_NC[..., None] * A + np.arange(A)]
    reward_NC = rng.random(arrival_NC.shape)

    def exact(reward_NC: np.ndarray) -> np.ndarray:
        q_NC = np.zeros(reward_NC.shape)
        for _ in range(distances):
            value_NS = np.pad(q_NC.reshape(n, states, A).max(-1), ((0, 0), (0, 1)))
            q_NC = reward_NC + np.take_along_axis(value_NS, arrival_NC, 1)
        return centred(q_NC[:, :A])

    def said(reward_NC: np.ndarray) -> np.ndarray:
        phi_NCC, queries_NAC, step_NCC = (
            np.broadcast_to(x, (n, *x.shape)) for x in (features_CC, features_CC[:A], states * A * features_CC)
        )
        args = phi_NCC, next_NCAC, reward_NC, queries_NAC, step_NCC
        return values_after_layers(*args, 1.0, int(depths_X.max()), np.inf)[:, depths_X.astype(int) - 1]

    q_NA, said_NXA, found = exact(reward_NC), said(reward_NC), []
    for k in range(distances):
        flips = [np.isin(np.arange(states * A) // A, k * S + j) for j in range(S if k else 1)]
        others_INC = np.stack([np.where(flip_C[None], 1 - reward_NC, reward_NC) for flip_C in flips])
        change_INA = np.stack([exact(other_NC) for other_NC in others_INC]) - q_NA[None]
        best_N = np.linalg.norm(change_INA, axis=-1).argmax(0)
        moved_NXA = said(others_INC[best_N, np.arange(n)]) - said_NXA
        exact_N1A = change_INA[best_N, np.arange(n)][:, None]
        found.append(pair_products(moved_NXA, np.broadcast_to(exact_N1A, moved_NXA.shape)))
    return rho(np.stack(found, 2)[:, :, :, None])


def reach(sums_NKQ3: np.ndarray) -> int:
    """The largest distance at which rho is at least .5; -1 if there is none."""
    return int(np.flatnonzero(np.append(True, rho(sums_NKQ3[:, None])[0] >= 0.5)).max()) - 1


def aic(rho_XK: np.ndarray, depths_X: np.ndarray) -> dict[str, tuple[float, float]]:
    """(AIC, the best width) of every law."""
    found = {}
    for law, reach_of in LAWS.items():
        past_XK = np.arange(rho_XK.shape[1])[None] - reach_of(depths_X)[:, None] - 0.5
        expected_WXK = 0.5 - 0.5 * np.tanh(past_XK[None] / WIDTHS[:, None, None] / 2)
        rss_W = ((rho_XK[None] - expected_WXK) ** 2).sum((1, 2))
        best = int(rss_W.argmin())
        found[law] = float(rho_XK.size * np.log(rss_W[best] / rho_XK.size) + 4), float(WIDTHS[best])
    return found


def margin(rho_XK: np.ndarray, depths_X: np.ndarray) -> float:
    """AIC of the better rival less that of one backup a layer."""
    ours, *rivals = (value for value, _ in aic(rho_XK, depths_X).values())
    return min(rivals) - ours


def draw(claim: Claim, runs, found) -> Figure:
    figure, (near, far, training) = panels(3, height=3.4)
    distances = sum(name.startswith(f"rho_{max(runs)}_layers") for name in claim.measured)
    for (layers, own), color, marker in zip(runs.items(), CYCLE, "os^Dv*"):
        names = [f"rho_{layers}_layers_{k}" for k in range(distances)]
        means = np.array([claim.measured[name] for name in names])
        low, high = np.array([claim.ci95[name] for name in names]).T
        label = f"{layers} layer{'s' if layers > 1 else ''}"
        style = dict(color=color, marker=marker, capsize=3, label=label)
        near.errorbar(range(distances), means, [means - low, high - means], **style)
        for run in own:
            training.plot(*trained.held_out_loss(run), color=color, linewidth=1, label=label if run is own[0] else None)
    near.axhline(0.5, color=GREY, linewidth=0.8)
    near.set(
        xlabel="distance k of the rewards, steps", ylabel="slope rho, 95 % interval", title="how far it looks ahead"
    )
    near.legend()
    depths = np.array(list(runs), float)
    for law, style in zip(LAWS, ("-", "--", ":")):
        reached = np.minimum(LAWS[law](depths), distances - 1)
        far.plot(depths, reached, style, color=GREY, label=f"{law.replace('_', ' ')}, AIC {found[law][0]:.0f}")
    reached = [claim.measured[f"reach_{layers}_layers"] for layers in runs]
    far.plot(depths, reached, "o", color=CYCLE[0], markersize=6, label="measured")
    far.set(xlabel="layers", ylabel="largest k with rho >= .5, steps", title="three laws", xticks=depths)
    far.legend(loc="center right")
    training.set(xlabel="training steps", ylabel="loss on held-out tasks", yscale="log", title="how well they learned")
    return figure
