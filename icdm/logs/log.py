"""A table in memory (21 bytes per row), with its episodes and tasks, and the split into training and held-out logs.

Axis letters as in docs/axes.md: I rows of the table, E episodes of the table, F features.
"""

import dataclasses
import functools
from collections.abc import Iterable

import numpy as np

from icdm.errors import UserError
from icdm.logs.features import Encoder
from icdm.logs.table import Rows, Table

HELD_OUT = 10  # without a test split of its own, every tenth task (or episode of a single task) is held out


@dataclasses.dataclass(frozen=True)
class Log:
    """The columns of a table, its episodes and tasks.

    Attributes:
      observation, action, label: (I,) int32; reward: (I,) float32.
      behavior: (I,) float32 probability of the recorded action; nan if unknown.
      terminal: (I,) bool, whether the episode ended after this step, by itself and not because recording stopped.
      first: (E + 1,) first row of each episode, and the number of rows.
      steps: (E,) number of steps of each episode; an episode with 0 steps is a query, an observation with a label.
      contexts, queries: the episodes of each task with steps, and those without.
      end: the observation code END.
      features: (I, F) float64, where observations have several; their codes are then states (`with_states`).
      encoder: how a model reads the features, if it does.
    """

    observation: np.ndarray
    action: np.ndarray
    reward: np.ndarray
    label: np.ndarray
    behavior: np.ndarray
    terminal: np.ndarray
    first: np.ndarray
    steps: np.ndarray
    contexts: list[np.ndarray]
    queries: list[np.ndarray]
    end: int
    features: np.ndarray
    encoder: Encoder | None = None

    @property
    def n_tasks(self) -> int:
        return len(self.contexts)

    @property
    def longest(self) -> int:
        return int(self.steps.max())

    @functools.cached_property
    def asks(self) -> bool:
        """Whether a task has a query."""
        return any(len(q) for q in self.queries)

    @property
    def coded(self) -> "Log":
        """The log whose observations are codes, if a model reads features in their place."""
        return dataclasses.replace(self, encoder=None)

    def with_states(self, encoder: Encoder) -> "Log":
        """The log whose codes are the encoder's states, and whose features are read if the encoder says how."""
        states = encoder.states(self.features)
        return dataclasses.replace(
            self, observation=states, end=encoder.n, encoder=encoder if encoder.most_edges else None
        )

    def rows(self) -> np.ndarray:
        """The rows of all episodes of its tasks, (I,)."""
        episodes = np.concatenate([*self.contexts, *self.queries])
        return np.concatenate([np.arange(self.first[e], self.first[e + 1]) for e in episodes])

    def tasks(self, index: np.ndarray) -> "Log":
        """The log of the tasks `index`."""
        return dataclasses.replace(
            self, contexts=[self.contexts[i] for i in index], queries=[self.queries[i] for i in index]
        )


def load(table: Table) -> Log:
    """Reads a table into a log; the labels are the oracle's actions."""
    return log_of(table.chunks(), table.n_observations)


def log_of(chunks: Iterable[Rows], n_observations: int) -> Log:
    """The log of chunks of whole episodes."""
    parts, firsts, steps, tasks, row = [], [], [], [], 0
    for rows in chunks:
        columns = (rows.observation, rows.action, rows.oracle_action)
        numbers = (rows.reward, rows.behavior_probability)
        terminal = rows.terminal.copy()
        closing = np.setdiff1d(np.flatnonzero(~rows.acted & rows.terminal), rows.starts)
        terminal[closing - 1] = True  # marked where the episode's last observation is, not at its last step
        recorded = [*(x.astype(np.int32) for x in columns), *(x.astype(np.float32) for x in numbers)]
        parts.append([*recorded, terminal, rows.features])
        firsts.append(rows.starts + row)
        steps.append(np.add.reduceat(rows.acted.astype(np.int32), rows.starts))
        tasks.append(rows.task_id[rows.starts])
        row += rows.n
    observation, action, label, reward, behavior, terminal, features = map(np.concatenate, zip(*parts))
    first, steps, task = np.append(np.concatenate(firsts), row), np.concatenate(steps), np.concatenate(tasks)
    _, task = np.unique(task, return_inverse=True)
    episodes = np.split(np.argsort(task, kind="stable"), np.cumsum(np.bincount(task))[:-1])
    return Log(
        observation=observation,
        action=action,
        reward=reward,
        label=label,
        behavior=behavior,
        terminal=terminal,
        first=first,
        steps=steps,
        contexts=[e[steps[e] > 0] for e in episodes],
        queries=[e[steps[e] == 0] for e in episodes],
        end=n_observations,
        features=features,
    )


def hold_out(log: Log) -> tuple[Log, Log]:
    """The training log and the held-out log.

    Every tenth task is held out, or the last task if there are fewer than ten, or every tenth episode if there is
    only one task.

    Raises:
      UserError: the only task has fewer than ten episodes.
    """
    if log.n_tasks >= 2:
        index = np.arange(log.n_tasks)
        held = index % HELD_OUT == HELD_OUT - 1 if log.n_tasks >= HELD_OUT else index == log.n_tasks - 1
        return log.tasks(index[~held]), log.tasks(index[held])
    episodes = log.contexts[0]
    held = np.arange(len(episodes)) % HELD_OUT == HELD_OUT - 1
    if not held.any():
        raise UserError(f"a single task with {len(episodes)} episodes: at least {HELD_OUT} are needed to hold some out")
    return tuple(dataclasses.replace(log, contexts=[episodes[part]]) for part in (~held, held))
