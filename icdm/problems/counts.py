"""Sufficient statistics of a context of a tabular MDP, and Dirichlet posteriors given them."""

import dataclasses
import functools

import jax
import jax.numpy as jnp


@functools.partial(jax.tree_util.register_dataclass, data_fields=["transition", "reward_sum"], meta_fields=[])
@dataclasses.dataclass(frozen=True)
class Counts:
    """Numbers of recorded transitions, and sums of recorded rewards.

    Attributes:
      transition: (A, S, S) number of times that s' followed (s, a).
      reward_sum: (S, A) sum of the rewards after (s, a).
    """

    transition: jax.Array
    reward_sum: jax.Array

    @property
    def visits(self) -> jax.Array:
        """(S, A) number of times that a was taken in s."""
        return self.transition.sum(-1).T


def count(
    state_I: jax.Array,
    action_I: jax.Array,
    reward_I: jax.Array,
    next_state_I: jax.Array,
    valid_I: jax.Array,
    n_states: int,
    n_actions: int,
) -> Counts:
    """Counts of the recorded steps with true `valid_I`; float64 if x64 is enabled."""
    one_I = valid_I.astype(jnp.result_type(float))
    transition = jnp.zeros((n_actions, n_states, n_states)).at[action_I, state_I, next_state_I].add(one_I)
    reward_sum = jnp.zeros((n_states, n_actions)).at[state_I, action_I].add(one_I * reward_I)
    return Counts(transition, reward_sum)


def dirichlet_mean(concentration: jax.Array) -> jax.Array:
    """Mean of Dirichlet distributions, concentration_i / sum_j concentration_j along the last axis."""
    return concentration / concentration.sum(-1, keepdims=True)


def dirichlet_draw(key: jax.Array, concentration: jax.Array) -> jax.Array:
    """Dirichlet draws along the last axis, by normalised Gamma variables in log space.

    An entry with concentration 0 is 0.
    """
    support = concentration > 0
    log_gamma = jax.random.loggamma(key, jnp.where(support, concentration, 1.0), dtype=concentration.dtype)
    return jax.nn.softmax(jnp.where(support, log_gamma, -jnp.inf), axis=-1)
