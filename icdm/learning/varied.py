"""Rows for one model of many families: the number of context episodes varies, names of states mean nothing, and a row
with large Q-values counts no more than another."""

import dataclasses

import jax
import jax.numpy as jnp

from icdm.learning.objectives import Advantage, Lesson, Weighted
from icdm.learning.sources import Recorder
from icdm.problems.family import Family
from icdm.trajectories.collect import Tasks
from icdm.trajectories.layouts import Layout
from icdm.trajectories.trajectory import NOTHING, Trajectories


@dataclasses.dataclass(frozen=True)
class Shortened:
    """Rows of another recorder, without labels. Half of them keep all K context episodes, the others a number that is
    uniform in 0, ..., K."""

    rows: Recorder

    def __call__(self, family: Family, tasks: Tasks, task_B: jax.Array, key: jax.Array) -> Lesson:
        key, own_key, number_key = jax.random.split(key, 3)
        trajectories = self.rows(family, tasks, task_B, key).trajectories
        B, E = trajectories.action.shape[:2]
        all_B = jax.random.bernoulli(own_key, shape=(B,))
        dropped_B = jnp.where(all_B, 0, jax.random.randint(number_key, (B,), 0, E))
        kept_BE1 = (jnp.arange(E)[None] >= dropped_B[:, None])[..., None]
        observation = jnp.where(kept_BE1, trajectories.observation, NOTHING)
        return Lesson(
            Trajectories(observation, trajectories.action, trajectories.reward, trajectories.valid & kept_BE1), None
        )


@dataclasses.dataclass(frozen=True)
class Levelled:
    """Rows of another recorder whose targets are `Advantage`, with each target's losses in row b times

        1 / (1 + s_b^2 / temperature^2),    s_b^2 the mean of (Q - mean Q)^2 over the row:

    the share of the row's variance that is left, where much is at stake."""

    rows: Recorder

    def __call__(self, family: Family, tasks: Tasks, task_B: jax.Array, key: jax.Array) -> Lesson:
        lesson = self.rows(family, tasks, task_B, key)
        target, *iterates = (Weighted(target, _level(target)) for target in (lesson.target, *lesson.iterates))
        return dataclasses.replace(lesson, target=target, iterates=tuple(iterates))


def _level(target: Advantage) -> jax.Array:
    """The weight of each row, (B,)."""
    square_BEU = target.losses(jnp.zeros_like(target.q))  # of logits that say nothing: the variance that there is
    count_B = target.counts.sum((1, 2))
    return 1 / (1 + jnp.where(target.counts, square_BEU, 0).sum((1, 2)) / jnp.maximum(count_B, 1))


@dataclasses.dataclass(frozen=True)
class Renamed:
    """Rows of another recorder, each state under one of n names that is drawn anew in every row.

    Attributes:
      layout: how they are written; it says how many names there are.
    """

    rows: Recorder
    layout: Layout

    def __call__(self, family: Family, tasks: Tasks, task_B: jax.Array, key: jax.Array) -> Lesson:
        key, own_key = jax.random.split(key)
        lesson = self.rows(family, tasks, task_B, key)
        trajectories = lesson.trajectories
        draw_BO = jax.random.uniform(own_key, (task_B.size, self.layout.n_observations))
        name_BS = jnp.argsort(draw_BO, axis=-1)[:, : family.observation_space.n]
        row_B11 = jnp.arange(task_B.size)[:, None, None]
        observation = trajectories.observation
        renamed = jnp.where(observation == NOTHING, NOTHING, name_BS[row_B11, observation]).astype(jnp.int32)
        return dataclasses.replace(
            lesson, trajectories=dataclasses.replace(trajectories, observation=renamed), layout=self.layout
        )
