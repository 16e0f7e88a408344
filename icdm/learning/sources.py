"""Where training rows come from, behind one door.

A source gives the rows of every step in two parts: `batch(step)` on the host, a pure function of the step, so that
a resumed run reads on where it stopped; and `lessons(batch, key)` inside the compiled step, which may still play
episodes. A lesson is rows of episodes with what should be learned from them.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, Protocol

import jax
import numpy as np

from icdm.learning.objectives import LabelConfig, Lesson, target_of
from icdm.oracles.certify import OracleConfig
from icdm.problems.family import Family
from icdm.sharding import everywhere, join_rows, own_rows, place_copies, place_rows
from icdm.trajectories.collect import ContextConfig, Tasks, draw_tasks, play, record, record_with_context
from icdm.trajectories.trajectory import Trajectories, join_episodes

HIDDEN_POOL = 512  # tasks of a family that hides its state
EPISODES = 32  # of each task and behavior in a pool of episodes
SIDE_BY_SIDE = 64  # tasks played at a time


class Source(Protocol):
    """Training rows; `batch` runs on the host, `lessons` inside the compiled step."""

    def batch(self, step: int) -> Any:
        """What the rows of a step are made of, placed on the devices; the same for the same step."""

    def lessons(self, batch: Any, key: jax.Array) -> list[Lesson]:
        """The rows, one lesson for each kind of them."""


class Recorder(Protocol):
    """How rows are recorded in tasks: (family, tasks, task of each row, key) -> lesson; pure."""

    def __call__(self, family: Family, tasks: Tasks, task_B: jax.Array, key: jax.Array) -> Lesson: ...


@dataclasses.dataclass(frozen=True)
class Labelled:
    """K context episodes and one more of the query behavior, with the oracle's labels at every step."""

    context: ContextConfig
    query_behavior: str
    labels: LabelConfig

    def __call__(self, family: Family, tasks: Tasks, task_B: jax.Array, key: jax.Array) -> Lesson:
        trajectories = record_with_context(family, tasks, task_B, key, self.context, self.query_behavior)
        return Lesson(trajectories, target_of(self.labels, trajectories))


@dataclasses.dataclass(frozen=True)
class Played:
    """So many episodes of a behavior, without labels."""

    behavior: str
    episodes: int
    epsilon: float

    def __call__(self, family: Family, tasks: Tasks, task_B: jax.Array, key: jax.Array) -> Lesson:
        return Lesson(play(family, tasks, task_B, key, self.behavior, self.episodes, self.epsilon), None)


@dataclasses.dataclass(frozen=True)
class FreshTasks:
    """A task of its own for every row, drawn and solved anew at every step; rows are split over the devices."""

    family: Family
    recorder: Recorder
    rows: int
    key: jax.Array
    mesh: jax.sharding.Mesh
    precision: OracleConfig

    def batch(self, step: int) -> tuple[Tasks, jax.Array]:
        key = jax.random.fold_in(self.key, step + 1)
        tasks = draw_tasks(self.family, key, self.rows, self.precision, self._own)
        return join_rows(self.mesh, (tasks, self._own), self.rows)

    @functools.cached_property
    def _own(self) -> np.ndarray:
        """The numbers of the rows that this process draws."""
        return own_rows(self.mesh, self.rows).astype(np.int32)

    def lessons(self, batch: tuple[Tasks, jax.Array], key: jax.Array) -> list[Lesson]:
        tasks, task_B = batch
        return [self.recorder(self.family, everywhere(tasks), task_B, key)]


@dataclasses.dataclass(frozen=True)
class TaskPool:
    """Tasks that are drawn and solved once; episodes are played anew at every step.

    For families that have only so many tasks, or whose tasks are expensive. The pool is copied to every device.
    """

    family: Family
    recorder: Recorder
    rows: int
    key: jax.Array
    mesh: jax.sharding.Mesh
    precision: OracleConfig
    n_tasks: int

    @functools.cached_property
    def _tasks(self) -> Tasks:
        return pool_tasks(self.family, self.key, self.mesh, self.precision, self.n_tasks)

    def batch(self, step: int, among: tuple[int, int] | None = None) -> tuple[Tasks, jax.Array]:
        """Rows of random tasks, of those from the first to before the last of `among` if it is given."""
        key = jax.random.fold_in(self.key, step + 1)
        task_B = jax.random.randint(key, (self.rows,), *(among or (0, self.n_tasks)))
        return self._tasks, place_rows(self.mesh, task_B, self.rows)

    def lessons(self, batch: tuple[Tasks, jax.Array], key: jax.Array) -> list[Lesson]:
        return [self.recorder(self.family, *batch, key)]


def pool_tasks(family: Family, key: jax.Array, mesh: jax.sharding.Mesh, precision: OracleConfig, n_tasks: int) -> Tasks:
    """The tasks of a `TaskPool` with that key, solved, on every device."""
    return place_copies(mesh, draw_tasks(family, jax.random.fold_in(key, 0), n_tasks, precision))


@dataclasses.dataclass(frozen=True)
class EpisodePool:
    """Tasks that are solved once and episodes that are played and labelled once, where asking the oracle is expensive.

    EPISODES context episodes and as many query episodes of each task. A row is K random context episodes and one
    random query episode of a random task; which ones depends on the key and the step alone. The pool is made when
    the first step asks for it, and copied to every device.
    """

    family: Family
    recorder: Labelled
    rows: int
    key: jax.Array
    mesh: jax.sharding.Mesh
    precision: OracleConfig
    n_tasks: int

    def batch(self, step: int, among: tuple[int, int] | None = None) -> Trajectories:
        """Rows of random tasks, of those from the first to before the last of `among` if it is given."""
        key = jax.random.fold_in(self.key, step + 1)
        n_context = self.recorder.context.episodes
        picked = _pick(*self._episodes, key, self.rows, n_context, among or (0, self.n_tasks))
        return place_rows(self.mesh, picked, self.rows)

    def lessons(self, batch: Trajectories, key: jax.Array) -> list[Lesson]:
        del key  # everything was drawn before
        return [Lesson(batch, target_of(self.recorder.labels, batch))]

    @functools.cached_property
    def _episodes(self) -> tuple[Trajectories, Trajectories]:
        task_key, context_key, query_key = jax.random.split(jax.random.fold_in(self.key, 0), 3)
        tasks = draw_tasks(self.family, task_key, self.n_tasks, self.precision)
        context = self._recorded(tasks, context_key, self.recorder.context.behavior)
        return place_copies(self.mesh, (context, self._recorded(tasks, query_key, self.recorder.query_behavior)))

    def _recorded(self, tasks: Tasks, key: jax.Array, behavior: str) -> Trajectories:
        """EPISODES of every task, (N, EPISODES, ...), a part of the tasks at a time."""
        size, epsilon = min(SIDE_BY_SIDE, tasks.n), self.recorder.context.epsilon
        parts = [
            _record(self.family, tasks, np.arange(start, start + size) % tasks.n, key, behavior, epsilon)
            for start in range(0, tasks.n, size)
        ]
        return jax.tree.map(lambda *leaves: np.concatenate(leaves)[: tasks.n], *parts)


@dataclasses.dataclass(frozen=True)
class Part:
    """The rows of some of a pool's tasks.

    Attributes:
      among: the first of the tasks, and the one after the last.
    """

    pool: TaskPool | EpisodePool
    among: tuple[int, int]

    def batch(self, step: int) -> Any:
        return self.pool.batch(step, self.among)

    def lessons(self, batch: Any, key: jax.Array) -> list[Lesson]:
        return self.pool.lessons(batch, key)


def held_out(pool: TaskPool | EpisodePool, n: int) -> tuple[Part, Part]:
    """(the rows of all tasks of a pool but the last n, the rows of those)."""
    first = pool.n_tasks - n
    return Part(pool, (0, first)), Part(pool, (first, pool.n_tasks))


@dataclasses.dataclass(frozen=True)
class Mixture:
    """The rows of several sources side by side."""

    sources: Sequence[Source]

    def batch(self, step: int) -> list[Any]:
        return [source.batch(step) for source in self.sources]

    def lessons(self, batch: list[Any], key: jax.Array) -> list[Lesson]:
        return [
            lesson
            for i, (source, own) in enumerate(zip(self.sources, batch))
            for lesson in source.lessons(own, jax.random.fold_in(key, i))
        ]


def played_tasks(
    family: Family,
    recorder: Recorder,
    rows: int,
    key: jax.Array,
    mesh: jax.sharding.Mesh,
    precision: OracleConfig,
    pool: int = 0,
) -> Source:
    """Rows of episodes that are played anew at every step: in fresh tasks, or in a pool of tasks.

    There is a pool where the family has only so many tasks, where `pool` asks for one, and where states are hidden,
    since their oracles are expensive.
    """
    n_tasks = family.n_tasks or pool or (HIDDEN_POOL if family.hides_state else 0)
    if n_tasks:
        return TaskPool(family, recorder, rows, key, mesh, precision, n_tasks)
    return FreshTasks(family, recorder, rows, key, mesh, precision)


def labelled_tasks(
    family: Family,
    recorder: Recorder,
    rows: int,
    key: jax.Array,
    mesh: jax.sharding.Mesh,
    precision: OracleConfig,
    pool: int = 0,
) -> Source:
    """Rows with labels: where states are hidden a pool of episodes (by a recorder `Labelled`), else `played_tasks`."""
    if family.hides_state:
        return EpisodePool(family, recorder, rows, key, mesh, precision, pool or HIDDEN_POOL)
    return played_tasks(family, recorder, rows, key, mesh, precision, pool)


@functools.partial(jax.jit, static_argnums=(0, 4))
def _record(family: Family, tasks: Tasks, task_B: jax.Array, key: jax.Array, behavior: str, epsilon: float):
    return record(family, tasks, task_B, jax.random.fold_in(key, task_B[0]), behavior, EPISODES, epsilon)


@functools.partial(jax.jit, static_argnums=(3, 4, 5))
def _pick(
    context: Trajectories, query: Trajectories, key: jax.Array, rows: int, n_context: int, among: tuple[int, int]
) -> Trajectories:
    task_key, query_key, context_key = jax.random.split(key, 3)
    task_B = jax.random.randint(task_key, (rows,), *among)
    draw_BE = jax.random.uniform(context_key, (rows, EPISODES))
    context_BK = jax.lax.top_k(draw_BE, n_context)[1]  # without replacement
    query_B1 = jax.random.randint(query_key, (rows, 1), 0, EPISODES)

    def taken(episodes: Trajectories, which_BK: jax.Array):
        return jax.tree.map(lambda leaf: leaf[task_B[:, None], which_BK], episodes)

    return join_episodes(taken(context, context_BK), taken(query, query_B1))
