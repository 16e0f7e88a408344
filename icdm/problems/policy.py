"""The interface of all policies, and the policies that need no model."""

import dataclasses
import functools
from typing import Any, Protocol

import jax
import jax.numpy as jnp

from icdm.problems.mdp import draw

Carry = Any


class Policy(Protocol):
    """A policy for a batch of B episodes that run in parallel; its methods are pure functions.

    A policy is a pytree with its arrays as leaves, and so can be passed through `jax.jit`.
    """

    def init(self, task_B: jax.Array) -> Carry:
        """The policy's memory at the start of an episode; row i acts in problem `task_B[i]`."""

    def act(self, carry: Carry, observation_B: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array, Carry]:
        """Returns (action_B, logits_BA, carry)."""

    def observe(self, carry: Carry, action_B: jax.Array, reward_B: jax.Array) -> Carry:
        """The memory after the action and its reward."""


class Oracle(Policy, Protocol):
    """A policy that knows the values of the actions and acts greedily."""

    def assess(self, carry: Carry, observation_B: jax.Array) -> tuple[jax.Array, jax.Array, Carry]:
        """Returns (q_BA, value_B, carry), the values Q_t(i, a) and V_t(i) of the information i, with

        Q_t(i, a) = r(i, a) + gamma E[V_{t+1}(i')].

        The information i is all that the policy has observed in the episode.
        """


@functools.partial(jax.tree_util.register_dataclass, data_fields=["table", "index"], meta_fields=[])
@dataclasses.dataclass(frozen=True)
class MarkovPolicy:
    """Draws its actions from a table of probabilities.

    Attributes:
      table: (N, T, O, A) probabilities; N is 1 if the policy is the same in every task, T is 1 if the policy is
        stationary.
      index: (B,) index of the table that each row follows; None if it is the row's task.
    """

    table: jax.Array
    index: jax.Array | None = None

    def init(self, task_B: jax.Array) -> Carry:
        return (task_B if self.index is None else self.index), jnp.zeros_like(task_B)

    def act(self, carry: Carry, observation_B: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array, Carry]:
        probability_BA = _entry(self.table, carry, observation_B).astype(jnp.float32)
        action_B = draw(probability_BA, jax.random.uniform(key, observation_B.shape, jnp.float32))
        return action_B, jnp.log(probability_BA), carry

    def observe(self, carry: Carry, action_B: jax.Array, reward_B: jax.Array) -> Carry:
        index_B, t_B = carry
        return index_B, t_B + 1


@functools.partial(jax.tree_util.register_dataclass, data_fields=["table"], meta_fields=[])
@dataclasses.dataclass(frozen=True)
class TableOracle:
    """The oracle of fully observed problems.

    Attributes:
      table: (N, T, S, A) Q*.
    """

    table: jax.Array

    def init(self, task_B: jax.Array) -> Carry:
        return task_B, jnp.zeros_like(task_B)

    def assess(self, carry: Carry, observation_B: jax.Array) -> tuple[jax.Array, jax.Array, Carry]:
        q_BA = _entry(self.table, carry, observation_B)
        return q_BA, q_BA.max(-1), carry

    def act(self, carry: Carry, observation_B: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array, Carry]:
        q_BA, _, carry = self.assess(carry, observation_B)
        return q_BA.argmax(-1).astype(jnp.int32), q_BA, carry

    def observe(self, carry: Carry, action_B: jax.Array, reward_B: jax.Array) -> Carry:
        task_B, t_B = carry
        return task_B, t_B + 1


def _entry(table_NTOA: jax.Array, carry: Carry, observation_B: jax.Array) -> jax.Array:
    """The rows of a table at (index, time, observation), (B, A); larger indices and times use the last entry."""
    index_B, t_B = carry
    n, steps = table_NTOA.shape[:2]
    return table_NTOA[jnp.minimum(index_B, n - 1), jnp.minimum(t_B, steps - 1), observation_B]


@functools.partial(jax.tree_util.register_dataclass, data_fields=["policy", "epsilon"], meta_fields=[])
@dataclasses.dataclass(frozen=True)
class EpsilonGreedy:
    """Takes a uniformly random action with probability `epsilon`, () or (B,), and else another policy's action."""

    policy: Policy
    epsilon: jax.Array | float

    def init(self, task_B: jax.Array) -> Carry:
        return self.policy.init(task_B)

    def act(self, carry: Carry, observation_B: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array, Carry]:
        action_B, logits_BA, carry = self.policy.act(carry, observation_B, key)
        n_actions = logits_BA.shape[-1]
        epsilon_B1 = jnp.broadcast_to(jnp.asarray(self.epsilon, jnp.float32), action_B.shape)[:, None]
        probability_BA = (1 - epsilon_B1) * jax.nn.one_hot(action_B, n_actions) + epsilon_B1 / n_actions
        action_B = draw(probability_BA, jax.random.uniform(key, action_B.shape, jnp.float32))
        return action_B, jnp.log(probability_BA), carry

    def observe(self, carry: Carry, action_B: jax.Array, reward_B: jax.Array) -> Carry:
        return self.policy.observe(carry, action_B, reward_B)


def uniform_policy(n_observations: int, n_actions: int) -> MarkovPolicy:
    """The policy that draws every action with the same probability."""
    return MarkovPolicy(jnp.full((1, 1, n_observations, n_actions), 1 / n_actions, jnp.float32))


def greedy_policy(q_NTSA: jax.Array) -> MarkovPolicy:
    """The policy that takes the first best action of a Q-function."""
    n_actions = q_NTSA.shape[-1]
    return MarkovPolicy(jax.nn.one_hot(jnp.argmax(q_NTSA, -1), n_actions, dtype=jnp.float32))


@functools.partial(jax.tree_util.register_dataclass, data_fields=["policy"], meta_fields=[])
@dataclasses.dataclass(frozen=True)
class Sampled:
    """Draws its actions from the softmax of another policy's logits."""

    policy: Policy

    def init(self, task_B: jax.Array) -> Carry:
        return self.policy.init(task_B)

    def act(self, carry: Carry, observation_B: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array, Carry]:
        own_key, key = jax.random.split(key)
        _, logits_BA, carry = self.policy.act(carry, observation_B, own_key)
        probability_BA = jax.nn.softmax(logits_BA.astype(jnp.float32))
        action_B = draw(probability_BA, jax.random.uniform(key, observation_B.shape, jnp.float32))
        return action_B, jnp.log(probability_BA), carry

    def observe(self, carry: Carry, action_B: jax.Array, reward_B: jax.Array) -> Carry:
        return self.policy.observe(carry, action_B, reward_B)
