"""The control counterpart of in-context TD: layers that take fitted-Q steps, and the price of the max.

A columns hold a transition j, one for each next action a: [phi_j; gamma phi'_ja; y_ja]. The last row is
the TD error that j would have if a were taken next, y_ja = R_j + gamma w^T phi'_ja - w^T phi_j. A gate p_ja
over the columns of one transition, as the diagonal of the attention mask, makes one layer

    w <- w + (1/n) C sum_j sum_a p_ja y_ja phi_j.

Hard attention, p one-hot at the largest y_ja, is the fitted-Q step exactly. Softmax attention p ~ exp(beta
y) falls short of the max by at most W((A - 1) / e) / beta (W: Lambert's function; attained when A - 1
actions tie below the best). Linear attention has no gate: its output is a polynomial of the prompt, which the
max is not. Its best gate within this layout is the uniform one, the backup of the uniform policy.
"""

import numpy as np
from matplotlib.figure import Figure
from scipy.special import lambertw

from theory.book import Book
from theory.figures import BLUE, CYCLE, GREY, panels
from theory.ledger import Claim, number
from theory.linear.closed_forms import check_lengths
from theory.linear.fitted_q_layers import values_after_layers
from theory.statistics import log_slope


def check(config) -> tuple[Claim, Figure]:
    check_lengths(config.dimension, config.n)
    data, tables = random_contexts(config), tables_of(config)
    exact = fitted_q(config, data)
    hard = np.abs(forward(config, data, np.inf) - exact).max((1, 2))
    scale = np.abs(exact[:, -1]).mean()
    soft = {beta: np.abs(forward(config, data, beta) - exact)[:, -1].mean(-1) / scale for beta in config.betas}
    uniform = np.abs(forward(config, data, 0.0) - exact)[:, -1].mean(-1) / scale
    shortfall, limit = softmax_shortfall(config)
    to_optimum = {beta: distance_to_optimum(config, tables, beta) for beta in (*config.betas, np.inf, 0.0)}
    rate = config.discount ** np.arange(1, config.layers + 1)
    betas = np.array(config.betas)

    book = Book(config)
    book.measure("hard_attention_error", np.max, hard, at_most=1e-12)
    book.enter("softmax_shortfall_over_bound", (shortfall / limit).max(), at_most=1.000001)
    book.enter("slope_of_worst_shortfall_in_beta", log_slope(betas, shortfall))
    book.enter("distance_to_q_star_over_rate", (to_optimum[np.inf] / rate).max(), at_most=1.000001)
    for beta, error in soft.items():
        book.measure(f"softmax_relative_error_beta_{number(beta)}", np.mean, error)
    book.control("linear_attention_relative_error", uniform.mean())
    book.control("linear_attention_distance_to_q_star", to_optimum[0.0][:, -1].mean())
    claim = book.close(
        id="control_exact",
        claim="with hard attention over next actions a layer is a fitted-Q step; softmax attention is within "
        "W((A-1)/e)/beta of the max; linear attention cannot take it",
        source="derived here, extending Wang et al., ICLR 2025, to control",
        metric="largest |value - fitted-Q value| of hard attention; largest shortfall of the softmax over "
        "its bound; slope of that largest shortfall in beta; largest distance to Q* over gamma^layer on "
        "tabular problems (hard)",
    )
    return claim, draw(config, betas, shortfall, limit, to_optimum, rate)


def random_contexts(config):
    """Unstructured phi (R, n, F), phi' (R, n, A, F), rewards (R, n), queries (R, 4, F) and C (R, F, F)."""
    rng, d = np.random.default_rng(config.seed), config.dimension
    phi = rng.uniform(-1, 1, (config.trials, config.n, d))
    following = rng.uniform(-1, 1, (config.trials, config.n, config.actions, d))
    reward = rng.uniform(-1, 1, (config.trials, config.n))
    step = config.step * (np.eye(d) + 0.1 * rng.normal(size=(config.trials, d, d)))
    return phi, following, reward, rng.uniform(-1, 1, (config.trials, 4, d)), step


def tables_of(config):
    """Deterministic MDPs, one-hot features, every (s, a) once in the context, C = n I: value iteration."""
    rng, actions = np.random.default_rng(config.seed + 1), config.actions
    cells = config.states * actions
    goes_to = rng.integers(0, config.states, (config.trials, cells))
    one_hot = np.eye(cells)
    following = one_hot[goes_to[..., None] * actions + np.arange(actions)]
    phi, step = (np.broadcast_to(x, (config.trials, cells, cells)) for x in (one_hot, cells * one_hot))
    return phi, following, rng.uniform(0, 1 - config.discount, (config.trials, cells)), phi, step


def forward(config, data, beta: float) -> np.ndarray:
    """Values of the queries after every layer of the transformer with gate sharpness beta, (R, layers, Q)."""
    return values_after_layers(*data, config.discount, config.layers, beta)


def fitted_q(config, data) -> np.ndarray:
    """w <- w + (1/n) C sum_j (R_j + gamma max_a w^T phi'_ja - w^T phi_j) phi_j, read at the queries."""
    phi, following, reward, queries, step = data
    w, path = np.zeros(phi.shape[::2]), []
    for _ in range(config.layers):
        best = np.einsum("rnaf,rf->rna", following, w).max(-1)
        delta = reward + config.discount * best - np.einsum("rnf,rf->rn", phi, w)
        w = w + np.einsum("rfg,rn,rng->rf", step, delta, phi) / phi.shape[1]
        path.append(np.einsum("rqf,rf->rq", queries, w))
    return np.stack(path, axis=1)


def softmax_shortfall(config) -> tuple[np.ndarray, np.ndarray]:
    """Largest max_a y_a - sum_a p_a y_a found for every beta, and the bound W((A - 1) / e) / beta.

    The search scans random action values and the ties below the best action that attain the bound.
    """
    rng = np.random.default_rng(config.seed)
    random = rng.uniform(-1, 1, (20_000, config.actions))
    ties = -np.geomspace(1e-6, 10, 4000)[:, None] * np.r_[0.0, np.ones(config.actions - 1)]
    found = []
    for beta in config.betas:
        y = np.concatenate([random, ties])
        weight = np.exp(beta * (y - y.max(-1, keepdims=True)))
        found.append((y.max(-1) - (weight * y).sum(-1) / weight.sum(-1)).max())
    return np.array(found), lambertw((config.actions - 1) / np.e).real / np.array(config.betas)


def distance_to_optimum(config, tables, beta) -> np.ndarray:
    """max_sa |Q_l(s, a) - Q*(s, a)| after every layer, (R, layers); Q* by 2,000 sweeps of value iteration."""
    _, following, reward, _, _ = tables
    q = np.zeros_like(reward)
    for _ in range(2000):
        q = reward + config.discount * np.einsum("rcaf,rf->rca", following, q).max(-1)
    return np.abs(forward(config, tables, beta) - q[:, None]).max(-1)


def draw(config, betas, shortfall, limit, to_optimum, rate) -> Figure:
    figure, (left, right) = panels(2)
    left.loglog(betas, limit, color=GREY, label="bound W((A-1)/e)/$\\beta$")
    left.loglog(betas, shortfall, "o", color=BLUE, label="worst found")
    left.set(xlabel="sharpness $\\beta$", ylabel="max - softmax average", title="The price of a soft max")
    left.legend()
    layers = np.arange(1, config.layers + 1)
    for (beta, distance), color in zip(to_optimum.items(), CYCLE):
        label = {np.inf: "hard attention", 0.0: "linear attention"}.get(beta, f"softmax, $\\beta$ = {beta:g}")
        right.semilogy(layers, distance.mean(0), color=color, label=label)
    right.semilogy(layers, rate, ":", color="black", label="$\\gamma^L$")
    right.set(xlabel="layer L", ylabel="largest |Q - Q*|", title="Layers climb to Q*")
    right.legend(fontsize=7)
    return figure
