"""What an experiment learns from and is measured on: its family's simulator, or a record of data."""

import dataclasses
from collections.abc import Callable
from typing import Any, Protocol

import jax
import numpy as np

from icdm.evaluation.references import references
from icdm.evaluation.summary import results_of
from icdm.evaluation.unseen import draw_unseen
from icdm.evaluation.value import Measured, measure_all
from icdm.learning.sources import Labelled, Source, labelled_tasks
from icdm.models.policy import TransformerReader
from icdm.models.transformer import Transformer
from icdm.readers.reader import WithoutContext
from icdm.runs.endpoints import endpoint_readers, measured_of
from icdm.runs.run import EVALUATION_KEY, Run


class Data(Protocol):
    """Where the rows of fine-tuning come from, and on what models are measured."""

    def source(self, key: jax.Array, rows: int) -> Source: ...

    def evaluate(
        self, models: dict[str, Transformer], stop: Callable[[], bool]
    ) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """(what results.json says of the models, what values.npz holds)."""


def open_data(run: Run, mesh: jax.sharding.Mesh) -> Data:
    """The data of a run.

    Raises:
      UserError: a data file that cannot be used.
      ModuleNotFoundError: the extra `data` is not installed.
    """
    if not run.settings.data:
        return Simulated(run, mesh)
    from icdm.runs.recorded import open_recorded  # needs the packages of the extra `data`

    return open_recorded(run, mesh)


@dataclasses.dataclass(frozen=True)
class Simulated:
    """Rows and unseen tasks are drawn from the family."""

    run: Run
    mesh: jax.sharding.Mesh

    def source(self, key: jax.Array, rows: int) -> Source:
        s = self.run.settings
        recorder = Labelled(s.context, s.query_behavior, s.labels)
        return labelled_tasks(s.family, recorder, rows, key, self.mesh, s.label_oracle, s.pool)

    def evaluate(
        self, models: dict[str, Transformer], stop: Callable[[], bool]
    ) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Every policy in every unseen task."""
        s = self.run.settings
        key = jax.random.fold_in(self.run.key, EVALUATION_KEY)
        unseen = draw_unseen(s.family, s.context, s.evaluation, s.test_oracle, key)
        readers = references(unseen) | {name: TransformerReader(model, s.layout) for name, model in models.items()}
        readers["no_context"] = WithoutContext(readers["fine_tuned"])
        measured = {name: Measured(unseen, reader) for name, reader in readers.items()}
        if unseen.tasks.n > 1:
            others = jax.tree.map(lambda x: np.roll(x, s.evaluation.episodes, axis=0), unseen.context)
            measured["wrong_context"] = Measured(dataclasses.replace(unseen, context=others), readers["fine_tuned"])
        asked = endpoint_readers(self.run, stop)
        values = measure_all(measured | measured_of(unseen, asked), s.evaluation, self.mesh, stop)
        return results_of(unseen, *values, {name: reader.answers for name, reader in asked.items()})
