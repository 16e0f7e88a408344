"""The one rollout, for every policy, and the oracle's values along recorded episodes."""

from typing import Any

import jax
import jax.numpy as jnp

from icdm.problems.policy import Carry, Oracle, Policy
from icdm.trajectories.trajectory import Trajectories


def rollout(problem: Any, task_B: jax.Array, policy: Policy, key: jax.Array) -> Trajectories:
    """One episode for each of B rows, row i in problem `task_B[i]` of a batch of N.

    The environment and the policy draw from separate keys: two policies that are given the same key meet the same
    random numbers at every step (common random numbers).

    Args:
      problem: N problems, for instance an MDP whose arrays have a leading axis N.

    Returns:
      Trajectories with leading axis B, without Q-values.
    """
    world_key, policy_key = jax.random.split(key)
    state_B, observation_B = problem.reset(task_B, jax.random.fold_in(world_key, problem.horizon))

    def step(carry: Carry, t: jax.Array):
        state_B, observation_B, done_B, memory = carry
        action_B, _, memory = policy.act(memory, observation_B, jax.random.fold_in(policy_key, t))
        next_state_B, reward_B, next_observation_B, now_done_B = problem.step(
            task_B, state_B, action_B, jax.random.fold_in(world_key, t)
        )
        reward_B = jnp.where(problem.shows_reward, reward_B, 0).astype(jnp.float32)
        memory = policy.observe(memory, action_B, reward_B)
        record = (observation_B, action_B, reward_B, ~done_B)
        return (next_state_B, next_observation_B, done_B | now_done_B, memory), record

    none_B = jnp.zeros(task_B.shape, bool)
    start = (state_B, observation_B, none_B, policy.init(task_B))
    (_, last_B, _, _), records = jax.lax.scan(step, start, jnp.arange(problem.horizon))
    observation_BT, action_BT, reward_BT, valid_BT = jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1), records)
    observation_BT = jnp.concatenate([observation_BT, last_B[:, None]], axis=1)
    return Trajectories(observation_BT, action_BT, reward_BT, valid_BT)


def assess_along(oracle: Oracle, task_B: jax.Array, trajectories: Trajectories) -> tuple[jax.Array, jax.Array]:
    """The oracle's Q (B, T, A) and V (B, T) at every step of B recorded episodes, whoever acted in them."""

    def step(carry: Carry, recorded: tuple[jax.Array, ...]):
        observation_B, action_B, reward_B = recorded
        q_BA, value_B, carry = oracle.assess(carry, observation_B)
        return oracle.observe(carry, action_B, reward_B), (q_BA, value_B)

    steps = (trajectories.observation[:, :-1], trajectories.action, trajectories.reward)
    steps = jax.tree.map(lambda x: jnp.moveaxis(x, 1, 0), steps)
    _, values = jax.lax.scan(step, oracle.init(task_B), steps)
    return jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1), values)
