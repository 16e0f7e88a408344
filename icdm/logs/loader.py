"""Sequences for training out of a table: columns in memory (20 bytes a row), assembled by Grain, resumable.

B rows of a batch, E episodes of a sequence, T steps of the longest episode.
"""

import dataclasses
import functools
import sys
from collections.abc import Iterable

import grain
import jax
import numpy as np

from icdm.errors import UserError
from icdm.logs.table import NOTHING, Rows, Table
from icdm.trajectories.rollout import Trajectories


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=["trajectories", "label", "present"], meta_fields=["kept"]
)
@dataclasses.dataclass(frozen=True)
class Sequences:
    """Recorded episodes side by side, with what should have been done.

    Attributes:
      trajectories: (B, E, T ...) steps; what was seen after an episode's last step, where the table does not
        say, is the observation END.
      label: (B, E, T + 1) int32 action to be learned on each observation, the last one included; NOTHING
        where there is none.
      present: (B, E, T + 1) bool, observations that there are.
      kept: of the E (T + 1) observations of a row, which the model reads; None: all.
    """

    trajectories: Trajectories
    label: jax.Array
    present: jax.Array
    kept: tuple[int, ...] | None = None


@dataclasses.dataclass(frozen=True)
class Log:
    """The columns of a table, its episodes and tasks.

    Attributes:
      observation, action, label: (X,) int32; reward: (X,) float32.
      behavior: (X,) float32 probability of the recorded action; nan where it is not known.
      first: (N + 1,) row where each of N episodes begins, and the end.
      steps: (N,) how many steps each has; 0 is a query: an observation and what should be done on it.
      contexts, queries: for each task, its episodes with steps, and those without.
      end: the observation END.
    """

    observation: np.ndarray
    action: np.ndarray
    reward: np.ndarray
    label: np.ndarray
    behavior: np.ndarray
    first: np.ndarray
    steps: np.ndarray
    contexts: list[np.ndarray]
    queries: list[np.ndarray]
    end: int

    @property
    def n_tasks(self) -> int:
        return len(self.contexts)

    @property
    def longest(self) -> int:
        return int(self.steps.max())

    @functools.cached_property
    def asks(self) -> bool:
        """Whether some task has a query."""
        return any(len(q) for q in self.queries)

    def tasks(self, index) -> "Log":
        """The log of some of the tasks."""
        return dataclasses.replace(
            self, contexts=[self.contexts[i] for i in index], queries=[self.queries[i] for i in index]
        )


def load(table: Table) -> Log:
    """Reads a table, row group by row group, into a log whose labels are the oracle's actions."""
    return log_of(table.chunks(), table.n_observations)


def log_of(chunks: Iterable[Rows], n_observations: int) -> Log:
    """The log of rows that come as whole episodes."""
    parts, firsts, steps, tasks, row = [], [], [], [], 0
    for rows in chunks:
        columns = (rows.observation, rows.action, rows.oracle_action)
        numbers = (rows.reward, rows.behavior_probability)
        parts.append([x.astype(np.int32) for x in columns] + [x.astype(np.float32) for x in numbers])
        firsts.append(rows.starts + row)
        steps.append(np.add.reduceat(rows.acted.astype(np.int32), rows.starts))
        tasks.append(rows.task_id[rows.starts])
        row += rows.n
    observation, action, label, reward, behavior = (np.concatenate(column) for column in zip(*parts))
    first, steps, task = np.append(np.concatenate(firsts), row), np.concatenate(steps), np.concatenate(tasks)
    _, task = np.unique(task, return_inverse=True)
    episodes = np.split(np.argsort(task, kind="stable"), np.cumsum(np.bincount(task))[:-1])
    return Log(
        observation=observation,
        action=action,
        reward=reward,
        label=label,
        behavior=behavior,
        first=first,
        steps=steps,
        contexts=[e[steps[e] > 0] for e in episodes],
        queries=[e[steps[e] == 0] for e in episodes],
        end=n_observations,
    )


def sequence_length(log: Log, context_episodes: int) -> int:
    """E: with queries, one is asked before the first and after each of the K context episodes; without, the
    K context episodes and one more follow one another."""
    return 2 * context_episodes + 1 if log.asks else context_episodes + 1


def sequences(
    log: Log, task_B: np.ndarray, context_episodes: int, rng: np.random.Generator, symmetry=None
) -> Sequences:
    """One sequence of each of some tasks.

    Which episodes are shown, and which queries are asked, is drawn anew each time; all of a task's are shown in
    their order where there are no more than the sequence holds. Steps keep their order always: a behaviour
    that learned while it was recorded would be misread otherwise.

    Args:
      symmetry: rng -> (relabelling of observations, of actions), drawn for each sequence.
    """
    episode_BE = draw_episodes(log, task_B, context_episodes, rng)
    relabel = None if symmetry is None else [symmetry(rng) for _ in task_B]
    found = assemble(log, episode_BE, relabel)
    if log.asks and log.longest == 1:  # a query, the end of a step, which tells its beginning too, a query, ...
        return dataclasses.replace(found, kept=tuple(2 * e + e % 2 for e in range(episode_BE.shape[1])))
    return found


def draw_episodes(log: Log, task_B: np.ndarray, context_episodes: int, rng: np.random.Generator) -> np.ndarray:
    """(B, E) which episodes a sequence of each task shows."""
    E = sequence_length(log, context_episodes)
    places = np.arange(1, E, 2) if log.asks else np.arange(E)
    episode_BE = np.full((len(task_B), E), NOTHING)
    for row, task in enumerate(task_B):
        shown = log.contexts[task]
        if len(shown) > len(places):
            shown = shown[rng.choice(len(shown), len(places), replace=False)]
        episode_BE[row, places[: len(shown)]] = shown
        if len(log.queries[task]):
            asked = np.arange(0, 2 * len(shown) + 1, 2)
            episode_BE[row, asked] = log.queries[task][rng.integers(len(log.queries[task]), size=len(asked))]
    return episode_BE


def assemble(log: Log, episode_BE: np.ndarray, relabel=None) -> Sequences:
    """The sequences of these episodes (NOTHING leaves a place empty), each relabelled in its own way."""
    T = log.longest
    there_BE1 = (episode_BE != NOTHING)[..., None]
    steps_BE1 = np.where(there_BE1, log.steps[episode_BE][..., None], 0)
    rows_BE1 = np.where(there_BE1, (log.first[episode_BE + 1] - log.first[episode_BE])[..., None], 0)
    t = np.arange(T + 1)
    row_BEU = np.minimum(log.first[episode_BE][..., None] + t, len(log.action) - 1)
    recorded_BEU = t < rows_BE1

    def column(values, nothing):
        return np.where(recorded_BEU, values[row_BEU], nothing)

    observation, label = column(log.observation, log.end), column(log.label, NOTHING)
    action = np.maximum(column(log.action, 0), 0)
    if relabel is not None:
        seen = np.stack([np.append(np.arange(log.end), log.end)] * len(relabel))
        seen[:, : relabel[0][0].size] = [o for o, _ in relabel]
        done = np.stack([np.append(a, NOTHING) for _, a in relabel])  # its last entry, at -1, is NOTHING's
        row = np.arange(len(relabel))[:, None, None]
        observation, action, label = seen[row, observation], done[row, action], done[row, label]
    valid = t[:-1] < steps_BE1
    reward = np.where(valid, column(log.reward, 0)[..., :-1], 0)
    trajectories = Trajectories(
        observation.astype(np.int32), action[..., :-1].astype(np.int32), reward.astype(np.float32), valid
    )
    present = there_BE1 & (t <= steps_BE1)
    return Sequences(trajectories, np.where(present, label, NOTHING).astype(np.int32), present)


def batches(log: Log, batch: int, context_episodes: int, seed: int, symmetry=None) -> grain.MapDataset:
    """Batch number i of an endless, shuffled reading, as dataset[i]: a position in the data is a number.

    `iter(dataset.to_iter_dataset())` reads on; its get_state and set_state go with a checkpoint.

    Raises:
      UserError: a log without a label.
    """
    if not (log.label != NOTHING).any():
        raise UserError("there is nothing to learn: no row has an oracle_action; choose other data_labels")
    tasks = grain.MapDataset.range(sys.maxsize).seed(seed).map(functools.partial(_task_at, log.n_tasks, seed))
    assembled = functools.partial(_assembled, log, context_episodes, symmetry)
    return tasks.batch(batch, drop_remainder=True).random_map(assembled)


def _task_at(n_tasks: int, seed: int, index: int) -> int:
    """Every task once in each epoch. (Grain's own shuffle takes milliseconds an index where tasks are few.)"""
    epoch, place = divmod(index, n_tasks)
    return _order(n_tasks, seed, epoch)[place]


@functools.lru_cache(maxsize=2)
def _order(n_tasks: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng((seed, epoch)).permutation(n_tasks)


def _assembled(log, context_episodes, symmetry, task_B, rng):
    return sequences(log, np.asarray(task_B), context_episodes, rng, symmetry)
