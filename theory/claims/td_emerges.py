"""A linear transformer that is trained from random weights to predict values becomes temporal-difference learning.

Every seed trains one shared layer, applied `layers` times, with semi-gradient TD: an update for each of the
`walks` walks on a Boyan chain, then on to the next chain; all seeds run side by side. It is compared, on
unseen chains, with batch TD(0) of as many steps whose single step size is trained along with it on the same
loss. Measures, all of Wang et al., ICLR 2025:

    VD   sum_s d(s) (v_TF(s) - v_TD(s))^2 / sum_s d(s) v_TD(s)^2, d the stationary distribution
    IWS  cosine of w_TF, the d-weighted least-squares fit of v_TF on the features, and w_TD
    SS   sum_s d(s) cosine(grad_phi v_TF(s), w_TD)

VD is relative, as both values are near 0 before training. Linear attention's value is linear in the query,
to which no position attends, so IWS and SS agree here.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure

from icdm.errors import UserError
from icdm.intervals import mean_interval
from icdm.models.linear_attention import (
    LinearAttention,
    context_mask,
    linear_attention,
    td_layer,
    td_prompt,
    td_values,
)
from theory.book import Book
from theory.figures import BLUE, GREEN, ORANGE, panels
from theory.ledger import Claim
from theory.linear.closed_forms import check_lengths
from theory.linear.devices import spread
from theory.linear.markov_rewards import sample_chain, stationary, walk


def check(config) -> tuple[Claim, Figure]:
    check_lengths(config.dimension, config.n)
    if config.processes * config.walks % config.checkpoints:
        raise UserError(f"{config.checkpoints} checkpoints: give a divisor of processes * walks")
    keys = jax.vmap(jax.random.key)(config.seed + jnp.arange(config.seeds))
    (layer, _), scores = jax.jit(jax.vmap(functools.partial(train, config)))(spread(keys))
    first, last = ({name: np.asarray(x[:, i]) for name, x in scores.items()} for i in (0, -1))
    vd_ratio = last["vd"] / first["vd"]

    book = Book(config)
    book.enter("iws", last["iws"].mean(), mean_interval(last["iws"])[1], at_least=0.9)
    book.enter("ss", last["ss"].mean(), mean_interval(last["ss"])[1], at_least=0.9)
    book.enter("vd", last["vd"].mean(), mean_interval(last["vd"])[1])
    book.enter("vd_last_over_first", vd_ratio.mean(), mean_interval(vd_ratio)[1], at_most=0.5)
    book.enter("seeds", config.seeds)
    for name, values in first.items():
        book.control(f"{name}_before_training", values.mean())
    claim = book.close(
        id="td_emerges",
        claim="a linear transformer trained on many Markov reward processes does TD in its forward pass",
        source="Wang et al., ICLR 2025, section 6",
        metric="mean over seeds, on unseen processes after the last update, of the cosine of implicit "
        "weights (IWS), of sensitivities (SS), and of the relative value difference to batch TD (VD), also "
        "over its value before training",
    )
    return claim, draw(config, scores, layer)


def train(config, key):
    """(layer, step size) after all updates, and the scores before training and at every checkpoint."""
    start_key, data_key, walks_key, test_key = jax.random.split(key, 4)
    size = 2 * config.dimension + 1
    start = [config.start_scale * jax.random.normal(k, (size, size)) for k in jax.random.split(start_key)]
    learner = (LinearAttention(*start), jnp.float32(0.1))
    n_updates = config.processes * config.walks
    optimizer = optax.adam(optax.cosine_decay_schedule(config.learning_rate, n_updates))

    def update(carry, i):
        learner, state = carry
        chain_key, walk_key = (
            jax.random.fold_in(data_key, i // config.walks),
            jax.random.fold_in(walks_key, i),
        )
        slope = jax.grad(functools.partial(td_loss, config))(learner, chain_key, walk_key)
        updates, state = optimizer.update(slope, state)
        return (optax.apply_updates(learner, updates), state), None

    def stage(carry, updates):
        carry, _ = jax.lax.scan(update, carry, updates)
        return carry, scores(config, carry[0], test_key)

    before = scores(config, learner, test_key)
    stages = jnp.arange(n_updates).reshape(config.checkpoints, -1)
    (learner, _), after = jax.lax.scan(stage, (learner, optimizer.init(learner)), stages)
    return learner, jax.tree.map(lambda one, rest: jnp.concatenate([one[None], rest]), before, after)


def td_loss(config, learner, chain_key, walk_key) -> jax.Array:
    """Mean squared TD error over windows of one walk, bootstrapping from the next window's own value.

    A window is n transitions and, as the query, the state that follows them.

    Summed over the transformer and the TD learner it is compared with, whose parameters are apart.
    """
    chain = sample_chain(chain_key, config.states, config.dimension)
    states = walk(chain, walk_key, config.n + config.windows + 2)
    phi, reward = chain.features[states], chain.reward[states]

    def window_values(start):
        window = jax.lax.dynamic_slice_in_dim(phi, start, config.n + 2)
        rewards = jax.lax.dynamic_slice_in_dim(reward, start, config.n)
        prompt = td_prompt(window[:-2], window[1:-1], rewards, window[-1:], config.discount)
        return jnp.stack([td_values(model, 1)[0] for model in run_both(config, learner, prompt, 1)])

    value_W2 = jax.vmap(window_values)(jnp.arange(config.windows + 1))
    left = reward[config.n + 1 : config.n + 1 + config.windows, None]
    error = left + config.discount * jax.lax.stop_gradient(value_W2[1:]) - value_W2[:-1]
    return jnp.sum(jnp.mean(error**2, axis=0))


def run_both(config, learner, prompt, n_queries: int):
    """The prompt after all layers of the transformer, and of TD(0) with the learned step size."""
    layer, step = learner
    mask = context_mask(config.n, n_queries)
    td = td_layer(step * jnp.eye(config.dimension))
    trained = constructed = prompt
    for _ in range(config.layers):
        trained = linear_attention(layer, trained, config.n, mask)
        constructed = linear_attention(td, constructed, config.n, mask)
    return trained, constructed


def scores(config, learner, key) -> dict[str, jax.Array]:
    """VD, IWS and SS, averaged over unseen processes."""

    def one(key):
        chain_key, walk_key = jax.random.split(key)
        chain = sample_chain(chain_key, config.states, config.dimension)
        states = walk(chain, walk_key, config.n)
        phi, weight = chain.features[states], stationary(chain)

        def values(queries):
            prompt = td_prompt(phi[:-1], phi[1:], chain.reward[states[:-1]], queries, config.discount)
            return tuple(td_values(model, len(queries)) for model in run_both(config, learner, prompt, len(queries)))

        value, value_td = values(chain.features)
        slope = jax.vmap(jax.grad(lambda query: values(query[None])[0][0]))(chain.features)
        slope_td = jax.grad(lambda query: values(query[None])[1][0])(chain.features[0])
        root = jnp.sqrt(weight)
        fit = jnp.linalg.lstsq(root[:, None] * chain.features, root * value)[0]
        return {
            "vd": jnp.sum(weight * (value - value_td) ** 2) / jnp.sum(weight * value_td**2),
            "iws": cosine(fit, slope_td),
            "ss": jnp.sum(weight * jax.vmap(cosine, (0, None))(slope, slope_td)),
        }

    return jax.tree.map(jnp.mean, jax.vmap(one)(jax.random.split(key, config.test_processes)))


def cosine(a, b):
    return jnp.sum(a * b) / jnp.maximum(jnp.linalg.norm(a) * jnp.linalg.norm(b), 1e-12)


def draw(config, scores, layer) -> Figure:
    figure, (curves, left, right) = panels(3)
    seen = np.linspace(0, config.processes, config.checkpoints + 1)
    for name, color in (("iws", BLUE), ("ss", ORANGE), ("vd", GREEN)):
        runs = np.asarray(scores[name])
        curves.plot(seen, runs.T, color=color, alpha=0.2, linewidth=0.8)
        curves.plot(seen, runs.mean(0), color=color, label=name.upper())
    curves.axhline(0.9, color="black", linewidth=0.6)
    curves.set(xlabel="processes seen", title="TD emerges", ylim=(-0.2, 1.2))
    curves.legend()
    sign = np.sign(np.asarray(layer.value)[:, -1:, -1:])
    for axis, matrix, title in ((left, layer.value, "learned P"), (right, layer.key_query, "learned Q")):
        mean = (sign * np.asarray(matrix)).mean(0)
        limit = np.abs(mean).max()
        picture = axis.imshow(mean, cmap="RdBu_r", vmin=-limit, vmax=limit)
        axis.set(title=f"{title}, mean over seeds")
        axis.grid(False)
        figure.colorbar(picture, ax=axis, shrink=0.8)
    return figure
