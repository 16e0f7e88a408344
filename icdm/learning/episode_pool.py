"""Episodes that are recorded once and learned from again and again, where asking the oracle is expensive."""

import functools

import jax
import numpy as np

from icdm.problems.family import Family
from icdm.sharding import place_copies, place_rows
from icdm.trajectories.collect import ContextConfig, Tasks, draw_tasks, record
from icdm.trajectories.rollout import Trajectories, join_episodes

EPISODES = 32  # of each task and behavior
SIDE_BY_SIDE = 64  # tasks played at a time


class EpisodePool:
    """EPISODES context episodes and as many query episodes of each of N tasks, with the oracle's Q beside them.

    `pool(step, rows)` gives rows of K random context episodes and one random query episode of a random
    task, (B, K + 1, ...); which ones depends on the key and the step alone. The tasks are drawn, solved and
    played when the first step asks for them, and copied to every device, once.
    """

    def __init__(
        self,
        family: Family,
        key: jax.Array,
        mesh: jax.sharding.Mesh,
        n_tasks: int,
        context: ContextConfig,
        query_behavior: str,
    ):
        self.family, self.key, self.mesh, self.n_tasks = family, key, mesh, n_tasks
        self.context, self.query_behavior = context, query_behavior

    def __call__(self, step: int, rows: int) -> Trajectories:
        key = jax.random.fold_in(self.key, step + 1)
        return place_rows(self.mesh, _pick(*self._episodes, key, rows, self.context.episodes), rows)

    @functools.cached_property
    def _episodes(self) -> tuple[Trajectories, Trajectories]:
        task_key, shown_key, query_key = jax.random.split(jax.random.fold_in(self.key, 0), 3)
        tasks = draw_tasks(self.family, task_key, self.n_tasks)
        shown = self._recorded(tasks, shown_key, self.context.behavior)
        return place_copies(self.mesh, (shown, self._recorded(tasks, query_key, self.query_behavior)))

    def _recorded(self, tasks: Tasks, key: jax.Array, behavior: str) -> Trajectories:
        """EPISODES of every task, (N, EPISODES, ...), a part of the tasks at a time."""
        size = min(SIDE_BY_SIDE, tasks.n)
        parts = [
            _record(self.family, tasks, np.arange(start, start + size) % tasks.n, key, behavior, self.context.epsilon)
            for start in range(0, tasks.n, size)
        ]
        return jax.tree.map(lambda *leaves: np.concatenate(leaves)[: tasks.n], *parts)


@functools.partial(jax.jit, static_argnums=(0, 4))
def _record(family, tasks, task_B, key, behavior, epsilon):
    return record(family, tasks, task_B, jax.random.fold_in(key, task_B[0]), behavior, EPISODES, epsilon)


@functools.partial(jax.jit, static_argnums=(3, 4))
def _pick(shown: Trajectories, query: Trajectories, key, rows: int, n_context: int) -> Trajectories:
    task_key, query_key, shown_key = jax.random.split(key, 3)
    task_B = jax.random.randint(task_key, (rows,), 0, query.action.shape[0])
    luck_BE = jax.random.uniform(shown_key, (rows, EPISODES))
    shown_BK = jax.lax.top_k(luck_BE, n_context)[1]  # without replacement
    query_B1 = jax.random.randint(query_key, (rows, 1), 0, EPISODES)

    def taken(episodes, which_BK):
        return jax.tree.map(lambda leaf: leaf[task_B[:, None], which_BK], episodes)

    return join_episodes(taken(shown, shown_BK), taken(query, query_B1))
