"""The constructed transformer whose layers take fitted-Q steps (claim `control_exact`).

Axis letters: R trials, N transitions, A next actions, F features, Q queries.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from icdm.models.linear_attention import linear_attention, td_layer, td_prompt, td_values


def values_after_layers(
    phi_RNF: np.ndarray,
    next_RNAF: np.ndarray,
    reward_RN: np.ndarray,
    queries_RQF: np.ndarray,
    step_RFF: np.ndarray,
    discount: float,
    layers: int,
    beta: float,
) -> np.ndarray:
    """Values of the queries after every layer, (R, layers, Q) float64.

    Args:
      step_RFF: the step-size matrix C.
      beta: sharpness of the attention to next actions (`gate_of`).
    """
    forward = functools.partial(_values, discount=discount, layers=layers, beta=beta)
    with jax.enable_x64(True):
        return np.asarray(jax.jit(jax.vmap(forward))(phi_RNF, next_RNAF, reward_RN, queries_RQF, step_RFF))


def gate_of(error_NA: jax.Array, beta: float) -> jax.Array:
    """Softmax over the next actions of each transition; beta = 0 is uniform, infinity the first largest."""
    if np.isinf(beta):
        return jax.nn.one_hot(jnp.argmax(error_NA, -1), error_NA.shape[-1], dtype=error_NA.dtype)
    return jax.nn.softmax(beta * error_NA, -1)


def _values(phi_NF, next_NAF, reward_N, queries_QF, step_FF, discount: float, layers: int, beta: float):
    (n, actions, _), n_queries = next_NAF.shape, queries_QF.shape[0]
    columns = jnp.repeat(phi_NF, actions, 0), next_NAF.reshape(n * actions, -1), jnp.repeat(reward_N, actions)
    layer = td_layer(step_FF)

    def block(prompt, _):
        gate = gate_of(prompt[-1, : n * actions].reshape(n, actions), beta)
        prompt = linear_attention(layer, prompt, n, jnp.pad(gate.ravel(), (0, n_queries)))
        return prompt, td_values(prompt, n_queries)

    return jax.lax.scan(block, td_prompt(*columns, queries_QF, discount), None, layers)[1]
