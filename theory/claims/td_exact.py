"""A linear transformer with the constructed weights is temporal-difference learning, one step a layer."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from icdm.models.linear_attention import linear_transformer, td_layer, td_prompt, td_values, trace_mask
from theory.book import Book
from theory.figures import BLUE, GREEN, GREY, ORANGE, panels
from theory.ledger import Claim
from theory.linear.closed_forms import check_lengths
from theory.linear.markov_rewards import sample_chain, walk


def check(config) -> tuple[Claim, Figure]:
    check_lengths(config.dimension, config.n)
    data = trials(config)
    decay = config.discount * config.trace
    with jax.enable_x64(True):
        plain, traces = trace_mask(config.n, 1, 0.0), trace_mask(config.n, 1, decay)
        attended_query = jnp.eye(config.n + 1)
        errors = {
            "td_0": layer_errors(config, data, plain, reference(config, data)),
            "td_lambda": layer_errors(config, data, traces, reference(config, data, decay=decay)),
            "residual_gradient": layer_errors(
                config, data, plain, reference(config, data, residual=True), residual=True
            ),
        }
        control = {
            "query_attended_to": layer_errors(config, data, attended_query, reference(config, data)),
            "traces_backwards": layer_errors(config, data, traces.T, reference(config, data, decay=decay)),
        }
    book = Book(config)
    for name, error in errors.items():
        book.measure(name, np.max, error.max(1), at_most=1e-12)
    for name, error in control.items():
        book.control(name, np.median(error[:, -1]))
    claim = book.close(
        id="td_exact",
        claim="L constructed layers equal L steps of batch TD(0), TD(lambda) and residual-gradient TD",
        source="Wang et al., ICLR 2025, Thm 1 and section 5",
        metric="largest |value of the query - w_l^T phi_q| over trials and layers, w_l from the algorithm "
        "written out, values of order 1, float64",
    )
    return claim, draw(errors, control)


def trials(config):
    """Contexts from walks on Boyan chains and a step-size matrix for every layer; leading axis trials."""

    def one(key):
        chain_key, walk_key, step_key, query_key = jax.random.split(key, 4)
        chain = sample_chain(chain_key, 10, config.dimension)
        states = walk(chain, walk_key, config.n)
        phi = chain.features[states]
        noise = jax.random.normal(step_key, (config.layers, config.dimension, config.dimension))
        step = config.step * (jnp.eye(config.dimension)[None] + 0.1 * noise)
        query = jax.random.normal(query_key, (1, config.dimension))
        return phi[:-1], phi[1:], chain.reward[states[:-1]], query, step

    with jax.enable_x64(True):
        return jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(config.seed), config.trials))


def layer_errors(config, data, mask, weights_RLF, residual=False) -> np.ndarray:
    """|transformer's value - w^T phi_q| after every layer, (trials, layers)."""

    values = np.asarray(transformer_values(data, mask, config.discount, residual))
    return np.abs(values - np.einsum("rlf,rf->rl", weights_RLF, np.asarray(data[3])[:, 0]))


@functools.partial(jax.jit, static_argnames="residual")
def transformer_values(data, mask, discount, residual):
    """Value of the query after every layer, (trials, layers)."""

    def one(phi, following, reward, query, step):
        layers = jax.vmap(lambda c: td_layer(c, residual))(step)
        prompt = td_prompt(phi, following, reward, query, discount)
        return td_values(linear_transformer(layers, prompt, len(reward), mask), 1)[:, 0]

    return jax.vmap(one)(*data)


def reference(config, data, decay=0.0, residual=False) -> np.ndarray:
    """w_{l+1} = w_l + (1/n) C_l sum_j delta_j e_j, with e_j = phi_j + decay e_{j-1}, or phi_j - gamma phi'_j.

    delta_j = R_j + gamma w_l^T phi'_j - w_l^T phi_j; returns w_1 .. w_L, (trials, layers, F).
    """
    phi, following, reward, _, step = map(np.asarray, data)
    advance = phi - config.discount * following
    eligible = advance.copy() if residual else phi.copy()
    for j in range(1, config.n):
        eligible[:, j] += decay * eligible[:, j - 1]
    w, path = np.zeros((len(phi), config.dimension)), []
    for layer in range(config.layers):
        delta = reward - np.einsum("rnf,rf->rn", advance, w)
        w = w + np.einsum("rfg,rn,rng->rf", step[:, layer], delta, eligible) / config.n
        path.append(w)
    return np.stack(path, axis=1)


def draw(errors, control) -> Figure:
    figure, (axis,) = panels()
    for (name, error), color in zip(errors.items(), (BLUE, ORANGE, GREEN)):
        label = {"td_0": "TD(0)", "td_lambda": "TD($\\lambda$)"}.get(name, "residual gradient")
        axis.semilogy(np.maximum(error.max(0), 1e-18), color=color, label=label)
    for (name, error), style in zip(control.items(), ("--", ":")):
        axis.semilogy(error.max(0), style, color=GREY, label=f"{name.replace('_', ' ')} (control)")
    axis.axhline(1e-12, color="black", linewidth=0.6)
    axis.set(xlabel="layer", ylabel="largest error of the value", title="Layers are TD steps")
    axis.legend(loc="center right", fontsize=7)
    return figure
