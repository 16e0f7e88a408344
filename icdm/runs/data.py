"""What an experiment learns from and is measured on: its family's simulator, or a record of data."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import jax
import numpy as np

from icdm.errors import UserError
from icdm.evaluation.exploration import explorers
from icdm.evaluation.references import references
from icdm.evaluation.unseen import UnseenTasks, draw_unseen, with_context
from icdm.evaluation.value import Measurement
from icdm.files import checksum, read_json, write_json
from icdm.learning.planned import Planned
from icdm.learning.sources import Labelled, Mixture, Source, held_out, labelled_tasks, played_tasks, pool_tasks
from icdm.learning.varied import Levelled, Renamed, Shortened
from icdm.models.policy import TransformerReader
from icdm.models.transformer import Transformer
from icdm.readers.memoriser import Memoriser
from icdm.readers.reader import Reader, WithoutContext
from icdm.runs.endpoints import measured_results
from icdm.runs.mixture import MixturePart
from icdm.runs.run import EVALUATION_KEY, FINE_TUNE_KEY, Run

CHECKSUM = "data.json"  # of the data file, in the run's directory


class Data(Protocol):
    """Where the rows of fine-tuning come from, and on what models are measured."""

    def sources(self, key: jax.Array, rows: int) -> tuple[Source, Source | None]:
        """Rows to learn from, and rows of held-out tasks if the config asks for them."""

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

    check_unchanged(run)
    recorded = open_recorded(run, mesh)
    write_json(run.directory / CHECKSUM, {"file": run.settings.data, "sha256": checksum(Path(run.settings.data))})
    return recorded


def check_unchanged(run: Run) -> None:
    """Raises UserError if the data file, if there is one, is another than the one that the run began with."""
    kept, path = run.directory / CHECKSUM, Path(run.settings.data)
    if run.settings.data and run.is_claimed and kept.exists() and path.exists():
        began = read_json(kept, "delete it if the data file is still the same")
        if began.get("sha256") != checksum(path):
            raise UserError(f"{path} has changed since {run.directory} began: restore it, or choose another directory")


@dataclasses.dataclass(frozen=True)
class Simulated:
    """Rows and unseen tasks are drawn from the family."""

    run: Run
    mesh: jax.sharding.Mesh

    def sources(self, key: jax.Array, rows: int) -> tuple[Source, Source | None]:
        s = self.run.settings
        if s.mixture:
            sources = [self._part(i, part, key) for i, part in enumerate(s.mixture) if part.rows]
            if not s.n_held_out:
                return Mixture(sources), None
            learned, others = zip(*(held_out(source, s.n_held_out) for source in sources))
            return Mixture(learned), Mixture(others)
        recorder = Labelled(s.context, s.query_behavior, s.labels)
        if s.is_planned:
            recorder = Planned(recorder, s.labels, s.teacher, s.ahead)
        source = labelled_tasks(s.family, recorder, rows, key, self.mesh, s.label_oracle, s.pool)
        return held_out(source, s.n_held_out) if s.n_held_out else (source, None)

    def _part(self, i: int, part: MixturePart, key: jax.Array) -> Source:
        """The rows of one part of the mixture."""
        s = self.run.settings
        rows = Shortened(Labelled(part.context, s.query_behavior, s.labels))
        rows = Planned(rows, s.labels, part.teacher, s.ahead)
        recorder = Renamed(Levelled(rows) if s.labels.labels == "advantage" else rows, part.layout)
        key = jax.random.fold_in(key, i)
        return played_tasks(part.family, recorder, part.rows, key, self.mesh, s.label_oracle, s.pool)

    def _memoriser(self, unseen: UnseenTasks) -> dict[str, Reader]:
        """The reader that knows the training tasks, where there are only so many and states are observed."""
        s = self.run.settings
        parts = [i for i, part in enumerate(s.mixture) if part.rows and part.family == s.family]
        if not s.pool or s.family.hides_state or unseen.tasks.n == 1 or (s.mixture and not parts):
            return {}
        key = jax.random.fold_in(self.run.key, FINE_TUNE_KEY)
        if s.mixture:
            key = jax.random.fold_in(key, parts[0])
        tasks = pool_tasks(s.family, key, self.mesh, s.label_oracle, s.pool)
        return {"memoriser": Memoriser(jax.tree.map(lambda x: x[: s.pool - s.n_held_out], tasks))}

    def evaluate(
        self, models: dict[str, Transformer], stop: Callable[[], bool]
    ) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Every policy in every unseen task."""
        s = self.run.settings
        key = jax.random.fold_in(self.run.key, EVALUATION_KEY)
        unseen = draw_unseen(s.family, s.context, s.evaluation, s.test_oracle, key)
        learned = {name: TransformerReader(model, s.layout) for name, model in models.items()}
        readers = references(unseen, s.evaluation.planners) | learned | self._memoriser(unseen)
        readers["no_context"] = WithoutContext(readers["fine_tuned"])
        measured = {name: Measurement(unseen, reader) for name, reader in readers.items()}
        if unseen.tasks.n > 1:
            others = jax.tree.map(lambda x: np.roll(x, s.evaluation.episodes, axis=0), unseen.context)
            measured["wrong_context"] = Measurement(dataclasses.replace(unseen, context=others), readers["fine_tuned"])
        for i, (text, context) in enumerate(s.evaluation.further(s.context).items()):
            variant = with_context(unseen, context, jax.random.fold_in(key, i + 1))
            for name in readers.keys() & {*models, "copy"}:
                measured[f"{name}@{text}"] = Measurement(variant, readers[name])
        exploring = explorers(unseen, learned) if s.evaluation.own_episodes else {}
        return measured_results(self.run, unseen, measured, self.mesh, stop, exploring)
