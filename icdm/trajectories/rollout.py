"""The one rollout, for every policy, and the oracle's values along recorded episodes."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from icdm.problems.policy import Carry, Oracle, Policy
from icdm.trajectories.trajectory import NOTHING, Trajectories


class _World(NamedTuple):
    """Where B episodes stand: key is that of all random numbers of the problem, observation and done are (B,)."""

    key: jax.Array
    state: Any
    observation: jax.Array
    done: jax.Array


def rollout(problem: Any, task_B: jax.Array, policy: Policy, key: jax.Array) -> Trajectories:
    """One episode for each of B rows, row i in problem `task_B[i]` of a batch of N.

    The environment and the policy draw from separate keys: two policies that are given the same key meet the same
    random numbers at every step (common random numbers).

    Args:
      problem: N problems, for instance an MDP whose arrays have a leading axis N.

    Returns:
      Trajectories with leading axis B, without Q-values.
    """
    world, policy_key = _begin(problem, task_B, key)

    def step(carry: Carry, t: jax.Array):
        world, memory = carry
        action_B, _, memory = policy.act(memory, world.observation, jax.random.fold_in(policy_key, t))
        world, record = _step(problem, task_B, world, action_B, t)
        return (world, policy.observe(memory, action_B, record[2])), record

    (world, _), records = jax.lax.scan(step, (world, policy.init(task_B)), jnp.arange(problem.horizon))
    return _episodes(jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1), records), world)


def rollout_on_host(problem: Any, task_B: jax.Array, policy: Policy, key: jax.Array) -> Trajectories:
    """`rollout` of a policy that cannot be compiled, with the same random numbers.

    The policy acts between two compiled steps of the problem. It is given arrays of numpy, and NOTHING as the
    observation of a row whose episode is over.
    """
    world, policy_key = jax.jit(_begin)(problem, task_B, key)
    memory, records = policy.init(np.asarray(task_B)), []
    for t in range(problem.horizon):
        shown_B = np.where(world.done, NOTHING, world.observation)
        action_B, _, memory = policy.act(memory, shown_B, jax.random.fold_in(policy_key, t))
        world, record = _compiled_step(problem, task_B, world, action_B, t)
        memory = policy.observe(memory, action_B, np.asarray(record[2]))
        records.append(record)
    return _episodes(jax.tree.map(lambda *steps: jnp.stack(steps, 1), *records), world)


def _begin(problem: Any, task_B: jax.Array, key: jax.Array) -> tuple[_World, jax.Array]:
    """The world at the start of the episodes, and the key of the policy."""
    world_key, policy_key = jax.random.split(key)
    state_B, observation_B = problem.reset(task_B, jax.random.fold_in(world_key, problem.horizon))
    return _World(world_key, state_B, observation_B, jnp.zeros(task_B.shape, bool)), policy_key


def _step(problem: Any, task_B: jax.Array, world: _World, action_B: jax.Array, t: jax.Array):
    """(the world after an action, (observation, action, reward, valid) of the step)."""
    state_B, reward_B, observation_B, done_B = problem.step(
        task_B, world.state, action_B, jax.random.fold_in(world.key, t)
    )
    reward_B = jnp.where(problem.shows_reward, reward_B, 0).astype(jnp.float32)
    record = (world.observation, action_B, reward_B, ~world.done)
    return _World(world.key, state_B, observation_B, world.done | done_B), record


_compiled_step = jax.jit(_step)


def _episodes(records_BT: tuple[jax.Array, ...], world: _World) -> Trajectories:
    observation_BT, action_BT, reward_BT, valid_BT = records_BT
    observation_BT = jnp.concatenate([observation_BT, world.observation[:, None]], axis=1)
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
