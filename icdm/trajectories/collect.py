"""Collecting trajectories: tasks with their oracle in float64, episodes in float32."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from icdm.errors import UserError
from icdm.oracles.backward_induction import backward_induction
from icdm.oracles.certify import OracleConfig, oracle_of
from icdm.problems.counts import Counts, count
from icdm.problems.family import Family, sample_tasks
from icdm.problems.policy import MarkovPolicy, Oracle, greedy_policy
from icdm.trajectories.behavior import LEARNS, behavior_policy, check_behavior
from icdm.trajectories.rollout import assess_along, rollout
from icdm.trajectories.trajectory import Trajectories, episodes_per_row, join_episodes

LABELLING = OracleConfig()  # how exactly hidden states are solved for labels, unless a config says otherwise


@dataclasses.dataclass(frozen=True)
class ContextConfig:
    """What a decider reads of a task before it acts.

    Attributes:
      episodes: K, how many.
      behavior: who acted in them, one of `icdm.trajectories.behavior.BEHAVIORS`.
      epsilon: of epsilon_greedy.
    """

    episodes: int = 2
    behavior: str = "oracle"
    epsilon: float = 0.2

    def check(self, family: Family) -> None:
        if self.episodes < 1:
            raise UserError(f"context.episodes {self.episodes}: show at least 1 episode")
        if not 0 <= self.epsilon <= 1:
            raise UserError(f"context.epsilon {self.epsilon}: give a number in [0, 1]")
        check_behavior(self.behavior, family)


@functools.partial(jax.tree_util.register_dataclass, data_fields=["problem", "oracle"], meta_fields=[])
@dataclasses.dataclass(frozen=True)
class Tasks:
    """N problems and their oracle, float32 copies of what was computed in float64."""

    problem: Any
    oracle: Oracle

    @property
    def n(self) -> int:
        return jax.tree.leaves(self.problem)[0].shape[0]


def draw_tasks(
    family: Family, key: jax.Array, n: int, precision: OracleConfig = LABELLING, own: np.ndarray | None = None
) -> Tasks:
    """n tasks of the family and their oracle, as exact as `precision` asks where states are hidden.

    Args:
      own: the numbers of those that are drawn, by default all n; each is the same whichever others are drawn.
    """
    problem = draw_problems(family, key, n, own)
    return to_float32(Tasks(problem, oracle_of(problem, precision, jax.random.fold_in(key, n))))


def draw_problems(family: Family, key: jax.Array, n: int, own: np.ndarray | None = None):
    """n problems of the family in float64, or those of them whose numbers are given."""
    with jax.enable_x64(True):
        return _sample(family, key, n, own)


@functools.partial(jax.jit, static_argnums=(0, 2))
def _sample(family: Family, key: jax.Array, n: int, own: jax.Array | None):
    keys = jax.random.split(key, n)
    return sample_tasks(family, keys if own is None else keys[own])


def play(
    family: Family, tasks: Tasks, task_B: jax.Array, key: jax.Array, behavior: str, n_episodes: int, epsilon: float
) -> Trajectories:
    """n_episodes of a behavior in each row's task, without labels: (B, E, ...)."""
    return episodes_per_row(_play(family, tasks, task_B, key, behavior, n_episodes, epsilon)[1], n_episodes)


def record(
    family: Family, tasks: Tasks, task_B: jax.Array, key: jax.Array, behavior: str, n_episodes: int, epsilon: float
) -> Trajectories:
    """n_episodes of a behavior in each row's task, with the oracle's Q beside them: (B, E, ...)."""
    task_I, episodes = _play(family, tasks, task_B, key, behavior, n_episodes, epsilon)
    q_ITA, _ = assess_along(tasks.oracle, task_I, episodes)
    return episodes_per_row(dataclasses.replace(episodes, q=q_ITA), n_episodes)


def _play(
    family: Family, tasks: Tasks, task_B: jax.Array, key: jax.Array, behavior: str, n_episodes: int, epsilon: float
) -> tuple[jax.Array, Trajectories]:
    """The task of each episode, and the episodes side by side: (I,), (I, ...)."""
    policy_key, key = jax.random.split(key)
    task_I = jnp.repeat(task_B, n_episodes)
    if behavior == LEARNS:
        return task_I, _learned(family, tasks, task_B, key, n_episodes)
    policy = behavior_policy(behavior, family, tasks.oracle, policy_key, task_I.size, epsilon)
    return task_I, rollout(tasks.problem, task_I, policy, key)


def _learned(family: Family, tasks: Tasks, task_B: jax.Array, key: jax.Array, n_episodes: int) -> Trajectories:
    """n_episodes in which posterior sampling learns each row's task, side by side: (I, ...).

    Before each episode a task is drawn from the posterior given the row's episodes so far, and the episode follows the
    policy that is optimal there.

    Source: Osband, Russo, Van Roy, "(More) Efficient Reinforcement Learning via Posterior Sampling" (NeurIPS 2013).
    """

    def episode(counts: Counts, key: jax.Array):
        draw_key, key = jax.random.split(key)
        draws = jax.vmap(family.posterior_sample)(jax.random.split(draw_key, B), counts)
        q_BTSA = jax.vmap(backward_induction)(draws)[0]
        policy = MarkovPolicy(greedy_policy(q_BTSA).table, index=jnp.arange(B))
        played = rollout(tasks.problem, task_B, policy, key)
        more = jax.vmap(counted)(*played.steps, played.valid)
        return jax.tree.map(jnp.add, counts, more), played

    B, S, A = task_B.size, family.n_states, family.n_actions
    counted = functools.partial(count, n_states=S, n_actions=A)
    nothing = Counts(jnp.zeros((B, A, S, S)), jnp.zeros((B, S, A)))
    _, episodes = jax.lax.scan(episode, nothing, jax.random.split(key, n_episodes))
    return jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1).reshape(-1, *x.shape[2:]), episodes)


def record_with_context(
    family: Family, tasks: Tasks, task_B: jax.Array, key: jax.Array, context: ContextConfig, query_behavior: str
) -> Trajectories:
    """K context episodes and one more, recorded by the query behavior: (B, K + 1, ...).

    Where both are the same behavior, all are of one recording, so that a behavior that learns goes on learning.
    """
    if query_behavior == context.behavior:
        return record(family, tasks, task_B, key, query_behavior, context.episodes + 1, context.epsilon)
    context_key, query_key = jax.random.split(key)
    read = record(family, tasks, task_B, context_key, context.behavior, context.episodes, context.epsilon)
    query = record(family, tasks, task_B, query_key, query_behavior, 1, context.epsilon)
    return join_episodes(read, query)


def to_float32(tree: Any):
    """The tree with its float64 arrays rounded to float32."""
    return jax.tree.map(lambda x: x.astype(np.float32) if x.dtype == np.float64 else x, tree)
