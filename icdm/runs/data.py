"""What an experiment learns from and is measured on: its family's simulator, or a record of data."""

import dataclasses
import time
from collections.abc import Callable
from typing import Any, Protocol

import jax
import numpy as np

from icdm.errors import UserError
from icdm.evaluation.references import references
from icdm.evaluation.summary import arrays_of, summaries
from icdm.evaluation.unseen import UnseenTasks, draw_unseen
from icdm.evaluation.value import measure, measure_members
from icdm.intervals import interval
from icdm.learning.sources import Labelled, Source, labelled_tasks
from icdm.learning.train import Stopped
from icdm.models.policy import TransformerReader
from icdm.models.transformer import Transformer
from icdm.readers.reader import Reader, WithoutContext
from icdm.runs.run import EVALUATION_KEY, Run

Evaluation = tuple[dict[str, Any], dict[str, np.ndarray], float]
"""(what results.json says, what values.npz holds, seconds)."""


class Data(Protocol):
    """Where the rows of fine-tuning come from, and on what models are measured."""

    def source(self, key: jax.Array, rows: int) -> Source: ...

    def evaluate(self, models: dict[str, Transformer], stop: Callable[[], bool]) -> Evaluation: ...


def open_data(run: Run, mesh: jax.sharding.Mesh) -> Data:
    """The data of a run.

    Raises:
      UserError: a data file that cannot be used, or packages that it needs are not installed.
    """
    if not run.settings.data:
        return Simulated(run, mesh)
    try:
        from icdm.runs.recorded import open_recorded  # needs the packages of the extra `data`
    except ImportError as error:
        raise UserError(f"--config.data needs the package {error.name}: pip install 'icdm[data]'") from None
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

    def evaluate(self, models: dict[str, Transformer], stop: Callable[[], bool]) -> Evaluation:
        """Every policy in every unseen task."""
        s, began = self.run.settings, time.perf_counter()
        key = jax.random.fold_in(self.run.key, EVALUATION_KEY)
        unseen = draw_unseen(s.family, s.context, s.evaluation, s.test_oracle, key)
        readers = references(unseen) | {name: TransformerReader(model, s.layout) for name, model in models.items()}
        readers["no_context"] = WithoutContext(readers["fine_tuned"])
        measured = {name: (unseen, reader) for name, reader in readers.items()}
        if unseen.tasks.n > 1:
            others = jax.tree.map(lambda x: np.roll(x, s.evaluation.episodes, axis=0), unseen.context)
            measured["wrong_context"] = (dataclasses.replace(unseen, context=others), readers["fine_tuned"])
        return measure_all(self.run, self.mesh, unseen, measured, stop, began)


def measure_all(
    run: Run,
    mesh: jax.sharding.Mesh,
    unseen: UnseenTasks,
    measured: dict[str, tuple[UnseenTasks, Reader]],
    stop: Callable[[], bool],
    began: float,
) -> Evaluation:
    """The evaluation of readers in unseen tasks, each in its own variant of them.

    Raises:
      Stopped: the run was asked to stop.
    """
    config = run.settings.evaluation
    values, members = {}, {}
    for name, (tasks, reader) in measured.items():
        if stop():
            raise Stopped("stopped during the evaluation")
        values[name] = measure(tasks, reader, config, mesh)
        if unseen.is_ambiguous:
            members[name] = measure_members(tasks, reader, config, mesh, values[name])
    arrays = arrays_of(unseen, values, members)
    oracle = {"method": unseen.certified.method}
    if unseen.certified.error_N.any():
        oracle["estimated_error"] = interval(unseen.certified.error_N)
    return {"oracle": oracle} | summaries(arrays), arrays, time.perf_counter() - began
