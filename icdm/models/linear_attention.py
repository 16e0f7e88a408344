"""Linear self-attention: a layer, a stack of layers, and the weights that make them TD learning.

A prompt is a matrix E whose L columns are tokens of D numbers; the last rows of the columns hold labels and
the last column(s) the query. One layer computes

    f(E) = E + (1/n) W_PV (E M E^T) W_KQ E

with M (L, L) saying which columns are attended to. M = I is the layer of Zhang, Frei, Bartlett, "Trained
Transformers Learn Linear Models In-Context", JMLR 25(49), 2024; M = diag(1, ..., 1, 0) and the constructions
below are those of Wang, Blaser, Daneshmand, Zhang, "Transformers Can Learn Temporal Difference Methods for
In-Context Reinforcement Learning", ICLR 2025. The products are taken from the middle, so that a layer costs
O(L D^2) and not O(L^2 D).
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp


@functools.partial(jax.tree_util.register_dataclass, data_fields=["value", "key_query"], meta_fields=[])
@dataclasses.dataclass(frozen=True)
class LinearAttention:
    """Weights of one layer, or of a stack of layers along a leading axis.

    Attributes:
      value: (D, D) W_PV, projection times value matrix.
      key_query: (D, D) W_KQ, key matrix transposed times query matrix.
    """

    value: jax.Array
    key_query: jax.Array


def linear_attention(layer: LinearAttention, prompt_DL: jax.Array, n: int, mask: jax.Array | None = None) -> jax.Array:
    """f(E) = E + (1/n) W_PV (E M E^T) W_KQ E, (D, L).

    The mask M is (L, L), or (L,) where it is diagonal; without one every column attends to every column.
    """
    attended_DL = prompt_DL
    if mask is not None:
        attended_DL = prompt_DL * mask[None] if mask.ndim == 1 else prompt_DL @ mask
    return prompt_DL + layer.value @ (attended_DL @ prompt_DL.T) @ layer.key_query @ prompt_DL / n


def linear_transformer(
    layers: LinearAttention, prompt_DL: jax.Array, n: int, mask: jax.Array | None = None
) -> jax.Array:
    """The prompt after each of a stack of layers (leading axis of the weights), (depth, D, L)."""

    def layer(prompt: jax.Array, weights: LinearAttention):
        prompt = linear_attention(weights, prompt, n, mask)
        return prompt, prompt

    return jax.lax.scan(layer, prompt_DL, layers)[1]


def regression_prompt(x_LF: jax.Array, y_L: jax.Array, query_F: jax.Array) -> jax.Array:
    """E = [[x_1 .. x_n, x_q], [y_1 .. y_n, 0]], (F + 1, n + 1)."""
    columns = jnp.concatenate([x_LF, query_F[None]])
    return jnp.concatenate([columns, jnp.append(y_L, 0.0)[:, None]], axis=1).T


def regression_prediction(layer: LinearAttention, x_LF: jax.Array, y_L: jax.Array, query_F: jax.Array) -> jax.Array:
    """What one layer predicts for the query: last row, last column of f(E), every column attended to.

    sum_i (W_PV[last] e_i) (e_i^T W_KQ e_q) / n: values weighted by scores, the rest of f(E) never formed.
    """
    prompt_DL = regression_prompt(x_LF, y_L, query_F)
    score_L = (layer.key_query @ prompt_DL[:, -1]) @ prompt_DL
    return (layer.value[-1] @ prompt_DL) @ score_L / y_L.shape[0]


def td_prompt(
    phi_LF: jax.Array, next_LF: jax.Array, reward_L: jax.Array, queries_BF: jax.Array, discount: jax.Array | float
) -> jax.Array:
    """Columns [phi_i; discount phi'_i; R_i] and, for every query, [phi_q; 0; 0]; (2F + 1, n + Q)."""
    context = jnp.concatenate([phi_LF, discount * next_LF, reward_L[:, None]], axis=1)
    queries = jnp.pad(queries_BF, ((0, 0), (0, queries_BF.shape[1] + 1)))
    return jnp.concatenate([context, queries]).T


def td_layer(step_FF: jax.Array, residual_gradient: bool = False) -> LinearAttention:
    """The layer whose forward pass is one step of batch TD with the step-size matrix C.

    W_PV = diag(0, .., 0, 1), W_KQ = [[-C^T, C^T, 0], [0, 0, 0], [0, 0, 0]]; for the residual gradient
    the second row of blocks is [C^T, -C^T, 0].
    """
    size = step_FF.shape[0]
    row = jnp.concatenate([-step_FF.T, step_FF.T], axis=1)
    second = -row if residual_gradient else jnp.zeros_like(row)
    key_query = jnp.pad(jnp.concatenate([row, second]), ((0, 1), (0, 1)))
    value = jnp.zeros((2 * size + 1, 2 * size + 1), step_FF.dtype).at[-1, -1].set(1.0)
    return LinearAttention(value, key_query)


def context_mask(n: int, n_queries: int) -> jax.Array:
    """diag(1, .., 1, 0, .., 0) as a vector: queries are attended to by nobody, (n + Q,)."""
    return jnp.pad(jnp.ones(n), (0, n_queries))


def trace_mask(n: int, n_queries: int, decay: float) -> jax.Array:
    """M[j, k] = decay^(j - k) for k <= j <= n, else 0: eligibility traces e_j = phi_j + decay e_{j-1}.

    TD(lambda) has decay = discount * lambda. (n + Q, n + Q).
    """
    lag = jnp.arange(n)[:, None] - jnp.arange(n)[None, :]
    traces = jnp.where(lag >= 0, jnp.asarray(decay, float) ** jnp.maximum(lag, 0), 0.0)
    return jnp.pad(traces, ((0, n_queries), (0, n_queries)))


def td_values(prompt_DL: jax.Array, n_queries: int) -> jax.Array:
    """The values of a prompt's queries, which are its last columns: minus their last row, (..., Q)."""
    return -prompt_DL[..., -1, -n_queries:]
