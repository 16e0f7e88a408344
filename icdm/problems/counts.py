"""What a context says of a tabular MDP: sufficient statistics, and conjugate posteriors over them."""

import dataclasses
import functools

import jax
import jax.numpy as jnp


@functools.partial(jax.tree_util.register_dataclass, data_fields=["transition", "reward_sum"], meta_fields=[])
@dataclasses.dataclass(frozen=True)
class Counts:
    """How often each transition was seen, and what was paid.

    Attributes:
      transition: (A, S, S) number of times s' followed (s, a).
      reward_sum: (S, A) sum of the rewards seen at (s, a).
    """

    transition: jax.Array
    reward_sum: jax.Array

    @property
    def visits(self) -> jax.Array:
        """(S, A) number of times a was taken in s."""
        return self.transition.sum(-1).T


def count(
    state_X: jax.Array,
    action_X: jax.Array,
    reward_X: jax.Array,
    next_state_X: jax.Array,
    valid_X: jax.Array,
    n_states: int,
    n_actions: int,
) -> Counts:
    """Counts of X recorded steps, those with `valid_X` false left out; float64 where x64 is enabled."""
    one_X = valid_X.astype(jnp.result_type(float))
    transition = jnp.zeros((n_actions, n_states, n_states)).at[action_X, state_X, next_state_X].add(one_X)
    reward_sum = jnp.zeros((n_states, n_actions)).at[state_X, action_X].add(one_X * reward_X)
    return Counts(transition, reward_sum)


def dirichlet_mean(concentration_X: jax.Array) -> jax.Array:
    return concentration_X / concentration_X.sum(-1, keepdims=True)


def dirichlet_draw(key: jax.Array, concentration_X: jax.Array) -> jax.Array:
    """A draw by normalised Gamma variables in log space; entries of concentration 0 stay 0."""
    support_X = concentration_X > 0
    log_gamma_X = jax.random.loggamma(key, jnp.where(support_X, concentration_X, 1.0), dtype=concentration_X.dtype)
    return jax.nn.softmax(jnp.where(support_X, log_gamma_X, -jnp.inf), axis=-1)
