"""Training rows from a log, assembled by Grain; needs the extra `data`."""

import dataclasses
import functools
import sys

import grain
import jax
import numpy as np

from icdm.errors import UserError
from icdm.learning.objectives import Imitation, Lesson
from icdm.logs.log import Log
from icdm.logs.sequences import Sequences, Symmetry, sequences
from icdm.sharding import place_rows
from icdm.trajectories.trajectory import NOTHING


@dataclasses.dataclass(frozen=True)
class LogSource:
    """Sequences of a log's tasks, each task once in an epoch, with the labels of the log.

    Attributes:
      context_episodes: K.
      symmetry: relabellings to draw for each row, or None.
      independent_steps: see `icdm.logs.sequences.sequences`.

    Raises:
      UserError: a log without a label.
    """

    log: Log
    context_episodes: int
    rows: int
    seed: int
    mesh: jax.sharding.Mesh
    symmetry: Symmetry | None = None
    independent_steps: bool = False

    def __post_init__(self):
        if not (self.log.label[self.log.rows()] != NOTHING).any():
            raise UserError("there is nothing to learn: no row has an oracle_action; choose other data_labels")

    @functools.cached_property
    def dataset(self) -> grain.MapDataset:
        """Batch number i of an endless, shuffled reading, as dataset[i]: a position in the data is a number.

        `iter(dataset.to_iter_dataset())` reads on; its get_state and set_state go with a checkpoint.
        """
        tasks = grain.MapDataset.range(sys.maxsize).seed(self.seed).map(self._task_at)
        return tasks.batch(self.rows, drop_remainder=True).random_map(self._assembled)

    def batch(self, step: int) -> Sequences:
        return place_rows(self.mesh, self.dataset[step], self.rows)

    def lessons(self, batch: Sequences, key: jax.Array) -> list[Lesson]:
        del key  # everything was drawn before
        return [Lesson(batch.trajectories, Imitation(batch.label))]

    def _task_at(self, index: int) -> int:
        """Every task once in each epoch. (Grain's own shuffle takes milliseconds an index where tasks are few.)"""
        epoch, place = divmod(index, self.log.n_tasks)
        return _order(self.log.n_tasks, self.seed, epoch)[place]

    def _assembled(self, task_B: np.ndarray, rng: np.random.Generator) -> Sequences:
        own = np.asarray(task_B)
        return sequences(self.log, own, self.context_episodes, rng, self.symmetry, self.independent_steps)


@functools.lru_cache(maxsize=2)
def _order(n_tasks: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng((seed, epoch)).permutation(n_tasks)
