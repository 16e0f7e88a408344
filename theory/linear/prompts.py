"""Prompts of labelled features, and the error of the reduced layer on them by simulation."""

import jax
import jax.numpy as jnp
import numpy as np

from icdm.errors import UserError
from theory.linear.devices import simulate
from theory.linear.laws import Law

CHUNK, BLOCK = 1000, 20  # prompts drawn at a time, and their pairs


def sample_prompts(features: Law, tasks: Law, query: Law, noise, key, batch: int, n: int):
    """Draws x (B, n, F), y = <w, x> + noise N(0, 1) (B, n), x_q (B, F) and <w, x_q> (B,), w ~ tasks."""
    x_key, query_key, w_key, noise_key = jax.random.split(key, 4)
    x_BNF, query_BF = features.sample(x_key, (batch, n)), query.sample(query_key, (batch,))
    w_BF = tasks.sample(w_key, (batch,))
    y_BN = jnp.einsum("bnf,bf->bn", x_BNF, w_BF) + noise * jax.random.normal(noise_key, (batch, n), jnp.float32)
    return x_BNF, y_BN, query_BF, jnp.einsum("bf,bf->b", query_BF, w_BF)


def simulated_errors(features, tasks, u, m: int, n_prompts: int, key, noise=0.0, query=None) -> np.ndarray:
    """(Qhat(x_q) - <w, x_q>)^2 of the reduced layer on n_prompts fresh prompts of length m; (n_prompts,).

    Qhat(x_q) = x_q^T U (1/m) sum_i y_i x_i. Pairs are drawn a block at a time, so that prompts of any
    length run the same compiled program.

    Raises:
      UserError: a length that is not a multiple of BLOCK.
    """
    if m % BLOCK:
        raise UserError(f"prompt length {m}: simulations need a multiple of {BLOCK}")
    query = features if query is None else query
    numbers = jnp.asarray(u, jnp.float32), jnp.float32(noise), jnp.int32(m // BLOCK)
    chunks = simulate(_errors, key, -(-n_prompts // CHUNK), features, tasks, query, *numbers)
    return chunks.reshape(-1)[:n_prompts].astype(np.float64)


def _errors(key, features, tasks, query, u, noise, n_blocks):
    query_key, w_key, pair_key = jax.random.split(key, 3)
    w_BF, query_BF = tasks.sample(w_key, (CHUNK,)), query.sample(query_key, (CHUNK,))

    def add_block(i, moment_BF):
        x_key, noise_key = jax.random.split(jax.random.fold_in(pair_key, i))
        x_BNF = features.sample(x_key, (CHUNK, BLOCK))
        y_BN = jnp.einsum("bnf,bf->bn", x_BNF, w_BF) + noise * jax.random.normal(noise_key, (CHUNK, BLOCK))
        return moment_BF + jnp.einsum("bn,bnf->bf", y_BN, x_BNF)

    moment_BF = jax.lax.fori_loop(0, n_blocks, add_block, jnp.zeros_like(w_BF)) / (n_blocks * BLOCK)
    prediction_B = jnp.einsum("bf,fg,bg->b", query_BF, u, moment_BF)
    return (prediction_B - jnp.einsum("bf,bf->b", query_BF, w_BF)) ** 2
