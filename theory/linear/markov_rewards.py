"""Boyan's chains with random features: the Markov reward processes on which in-context TD is trained.

State i < S - 2 moves to i + 1 or i + 2, state S - 2 to S - 1, and the last one anywhere. Source: the set-up
of Wang, Blaser, Daneshmand, Zhang, ICLR 2025 (after Boyan, ICML 1999).
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from icdm.problems.mdp import draw


class Chain(NamedTuple):
    """transition (S, S), reward (S,) on leaving a state, features (S, F), initial (S,)."""

    transition: jax.Array
    reward: jax.Array
    features: jax.Array
    initial: jax.Array


def sample_chain(key: jax.Array, states: int, dimension: int) -> Chain:
    """Transition odds ~ U(0.01, 0.99), rewards and features ~ U(-1, 1), start odds ~ U(0.01, 0.99)."""
    step_key, last_key, reward_key, feature_key, start_key = jax.random.split(key, 5)
    odds = jax.random.uniform(step_key, (states - 2,), minval=0.01, maxval=0.99)
    i = jnp.arange(states - 2)
    transition = jnp.zeros((states, states)).at[i, i + 1].set(odds).at[i, i + 2].set(1 - odds).at[-2, -1].set(1.0)
    last = jax.random.uniform(last_key, (states,), minval=0.01, maxval=0.99)
    start = jax.random.uniform(start_key, (states,), minval=0.01, maxval=0.99)
    return Chain(
        transition=transition.at[-1].set(last / last.sum()),
        reward=jax.random.uniform(reward_key, (states,), minval=-1.0, maxval=1.0),
        features=jax.random.uniform(feature_key, (states, dimension), minval=-1.0, maxval=1.0),
        initial=start / start.sum(),
    )


@functools.partial(jax.jit, static_argnums=2)
def walk(chain: Chain, key: jax.Array, steps: int) -> jax.Array:
    """The states visited in `steps` steps, (steps + 1,)."""
    uniform = jax.random.uniform(key, (steps + 1,))
    first = draw(chain.initial[None], uniform[:1])[0]

    def step(state, u):
        following = draw(chain.transition[state][None], u[None])[0]
        return following, following

    return jnp.concatenate([first[None], jax.lax.scan(step, first, uniform[1:])[1]])


def stationary(chain: Chain) -> jax.Array:
    """The stationary distribution d = d P, (S,)."""
    size = chain.transition.shape[0]
    balance = (jnp.eye(size) - chain.transition.T).at[-1].set(1.0)
    return jnp.linalg.solve(balance, jnp.zeros(size).at[-1].set(1.0))
