"""Prompts of labelled features, and the error of the reduced layer on them by simulation."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from theory.devices import simulate
from theory.laws import Law

CHUNK = 500  # prompts drawn at a time


def sample_prompts(features: Law, tasks: Law, query: Law, noise, key, batch: int, n: int):
    """Draws x (B, n, F), y = <w, x> + noise N(0, 1) (B, n), x_q (B, F) and <w, x_q> (B,), w ~ tasks."""
    x_key, query_key, w_key, noise_key = jax.random.split(key, 4)
    x_BNF, query_BF = features.sample(x_key, (batch, n)), query.sample(query_key, (batch,))
    w_BF = tasks.sample(w_key, (batch,))
    y_BN = jnp.einsum("bnf,bf->bn", x_BNF, w_BF) + noise * jax.random.normal(noise_key, (batch, n), jnp.float32)
    return x_BNF, y_BN, query_BF, jnp.einsum("bf,bf->b", query_BF, w_BF)


def predict(u: jax.Array, x_BNF: jax.Array, y_BN: jax.Array, query_BF: jax.Array) -> jax.Array:
    """Qhat(x_q) = x_q^T U (1/n) sum_i y_i x_i, (B,)."""
    moment_BF = jnp.einsum("bn,bnf->bf", y_BN, x_BNF) / y_BN.shape[1]
    return jnp.einsum("bf,fg,bg->b", query_BF, u, moment_BF)


def simulated_errors(features, tasks, u, m: int, n_prompts: int, key, noise=0.0, query=None) -> np.ndarray:
    """(Qhat(x_q) - <w, x_q>)^2 on n_prompts fresh prompts of length m.

    The laws, u (R, F, F) and noise (R,) carry a leading axis of R settings of equal shape, which share
    their random numbers; returns (R, n_prompts).
    """
    query = features if query is None else query
    rows = (features, tasks, query, jnp.asarray(u, jnp.float32), jnp.broadcast_to(noise, len(u)))
    chunks = simulate(functools.partial(_errors, rows, m), key, -(-n_prompts // CHUNK))
    return chunks.swapaxes(0, 1).reshape(len(u), -1).astype(np.float64)


def _errors(rows, m, key):
    def one(features, tasks, query, u, noise):
        x, y, x_query, target = sample_prompts(features, tasks, query, noise, key, CHUNK, m)
        return (predict(u, x, y, x_query) - target) ** 2

    return jax.vmap(one)(*rows)


def stack(laws: list[Law]) -> Law:
    """Laws of one kind and shape as one law with a leading axis."""
    return jax.tree.map(lambda *leaves: np.stack(leaves), *laws)
