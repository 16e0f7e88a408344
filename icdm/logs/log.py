"""A table in memory (21 bytes per row), with its episodes and tasks, and the split into training and held-out logs.

Axis letters as in docs/axes.md: I rows of the table, E episodes of the table, F features.
"""

import dataclasses
import functools
import math
from collections.abc import Iterable

import numpy as np

from icdm.errors import UserError
from icdm.logs.features import Encoder
from icdm.logs.table import Rows, Table

HELD_OUT = 0.1  # share of the tasks, or of a single task's episodes, where a file has no test split of its own


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
      fitted: the episodes of each task to which values are fitted that label it (`icdm.logs.labels`): its own, or where
        these were held out of a single task, the others.
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
    fitted: list[np.ndarray]
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
        own = {name: [getattr(self, name)[i] for i in index] for name in ("contexts", "queries", "fitted")}
        return dataclasses.replace(self, **own)


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
    contexts = [e[steps[e] > 0] for e in episodes]
    return Log(
        observation=observation,
        action=action,
        reward=reward,
        label=label,
        behavior=behavior,
        terminal=terminal,
        first=first,
        steps=steps,
        contexts=contexts,
        queries=[e[steps[e] == 0] for e in episodes],
        fitted=contexts,
        end=n_observations,
        features=features,
    )


def hold_out(log: Log, share: float = HELD_OUT) -> tuple[Log, Log]:
    """The training log and the held-out log.

    A share of the tasks is held out, evenly spread and at least the last, or of the episodes if there is only one task:
    with 0.1 every tenth. Where it is episodes, labels of both logs rest on the training log alone (`Log.fitted`).

    Raises:
      UserError: the only task has too few episodes.
    """
    if log.n_tasks >= 2:
        held = _spread(log.n_tasks, share)
        held[-1] |= not held.any()
        return log.tasks(np.flatnonzero(~held)), log.tasks(np.flatnonzero(held))
    episodes = log.contexts[0]
    held = _spread(len(episodes), share)
    if not held.any():
        least = math.ceil(1 / share)
        raise UserError(
            f"a single task with {len(episodes)} episodes: at least {least} are needed to hold {share:.0%} out"
        )
    kept = episodes[~held]
    return tuple(dataclasses.replace(log, contexts=[part], fitted=[kept]) for part in (kept, episodes[held]))


def _spread(n: int, share: float) -> np.ndarray:
    """Which of n belong to a share that is spread over them, (n,) bool."""
    return np.diff(np.floor(np.arange(n + 1) * share + 1e-9)) > 0
