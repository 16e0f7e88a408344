"""A record of data as what an experiment learns from and is measured on."""

import dataclasses
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from icdm.errors import UserError
from icdm.evaluation.logged import best_action_losses, held_out_losses, held_out_sequences, logged_policies
from icdm.evaluation.references import references
from icdm.evaluation.unseen import UnseenTasks, solved_tasks
from icdm.evaluation.value import Measurement
from icdm.intervals import interval
from icdm.learning.log_source import LogSource
from icdm.learning.sources import Source
from icdm.logs.dataset import DataSet, open_dataset
from icdm.logs.labels import relabelled
from icdm.logs.log import hold_out
from icdm.logs.sequences import as_one_episode, assemble, sequence_length
from icdm.models.policy import TransformerReader
from icdm.models.transformer import Transformer
from icdm.problems.family import HasBestActionPosterior, HasSymmetry
from icdm.readers.reader import Sampling, WithoutContext
from icdm.runs.endpoints import measured_results
from icdm.runs.run import EVALUATION_KEY, Run


def open_recorded(run: Run, mesh: jax.sharding.Mesh) -> "Recorded":
    """The data file of a run, its labels as the config asks.

    Raises:
      UserError: a defect of the file, or one that does not fit the family, the layout or the model.
    """
    s = run.settings
    amounts = dict(tasks=s.evaluation.tasks, episodes=s.evaluation.episodes)
    data = open_dataset(
        pathlib.Path(s.data), s.family, run.directory, seed=s.seed, columns=s.columns, edges=s.edges, **amounts
    )
    train, test = (relabelled(log, s.data_labels, s.family) for log in (data.train, data.test))
    _check(run, data)
    return Recorded(run, mesh, dataclasses.replace(data, train=train, test=test))


def _check(run: Run, data: DataSet) -> None:
    s, log = run.settings, data.train
    n_actions = int(log.action.max()) + 1
    if log.end > s.family.n_states or n_actions > s.family.n_actions or log.longest > s.family.horizon:
        raise UserError(
            f"{s.data} has {log.end} observations, {n_actions} actions, episodes of {log.longest} steps: "
            f"family {s.family_name} has {s.family.n_states}, {s.family.n_actions}, horizon {s.family.horizon}"
        )
    if s.layout.independent_steps != (log.longest == 1 < s.family.horizon):
        raise UserError(
            f"the longest episode of {s.data} has {log.longest} steps: set config.layout to single_steps if its steps "
            "are independent of one another, to another layout if not"
        )
    length = sequence_length(log, s.context.episodes) * (log.longest + 1)
    if s.layout.independent_steps:
        length = s.context.episodes + 1
    if length * s.layout.positions > s.model.max_length:
        length *= s.layout.positions
        raise UserError(f"a sequence takes {length} positions: raise model.max_length, now {s.model.max_length}")


@dataclasses.dataclass(frozen=True)
class Recorded:
    """Rows from the training part of a log; held-out labels and, with a simulator, unseen tasks to be measured on."""

    run: Run
    mesh: jax.sharding.Mesh
    data: DataSet

    def sources(self, key: jax.Array, rows: int) -> tuple[Source, Source | None]:
        del key  # the order of a log depends on the config's seed alone
        s = self.run.settings
        symmetry = s.family.symmetry if isinstance(s.family, HasSymmetry) else None
        log, held = hold_out(self.data.train, s.validation) if s.validation else (self.data.train, None)
        source = LogSource(log, s.context.episodes, rows, s.seed, self.mesh, symmetry, s.layout.independent_steps)
        return source, held and dataclasses.replace(source, log=held)

    def evaluate(
        self, models: dict[str, Transformer], stop: Callable[[], bool]
    ) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Values of the policies, in unseen tasks or else from the log, and how well held-out labels are predicted."""
        s = self.run.settings
        if self.data.problem is None:
            policies, off_policy, arrays = logged_policies(
                models, s.layout, s.family, self.data.test, s.context.episodes, s.seed
            )
            found = {"policies": policies, "off_policy": off_policy}
        else:
            found, arrays = self._simulated(models, stop)
        held_out = held_out_sequences(self.data.test, s.context.episodes, s.seed, s.layout.independent_steps)
        found["test_cross_entropy"] = interval(held_out_losses(models["fine_tuned"], s.layout, held_out))
        if self.data.names_best_actions and isinstance(s.family, HasBestActionPosterior):
            found["bayes_cross_entropy"] = interval(best_action_losses(s.family, held_out))
        if self.data.problem is not None:
            online = "fine_tuned" if self.data.contexts is None else "no_context"
            found["online_regret"] = found["policies"][online]["regret"]
            found["online_regret_sampled"] = found["policies"][f"{online}_sampled"]["regret"]
        found["data"] = {"file": s.data, "labels": s.data_labels}
        return found, arrays

    def _simulated(
        self, models: dict[str, Transformer], stop: Callable[[], bool]
    ) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """The references and every model in unseen tasks, the fine-tuned one also drawing its actions."""
        unseen = self._unseen()
        s = self.run.settings
        readers = references(unseen) | {name: TransformerReader(model, s.layout) for name, model in models.items()}
        readers["fine_tuned_sampled"] = Sampling(readers["fine_tuned"])
        if unseen.context is not None:
            readers["no_context"] = WithoutContext(readers["fine_tuned"])
            readers["no_context_sampled"] = Sampling(readers["no_context"])
        measured = {name: Measurement(unseen, reader) for name, reader in readers.items()}
        return measured_results(self.run, unseen, measured, self.mesh, stop, {})

    def _unseen(self) -> UnseenTasks:
        s, data = self.run.settings, self.data
        key = jax.random.fold_in(self.run.key, EVALUATION_KEY)
        unseen = solved_tasks(s.family, data.problem, s.test_oracle, s.evaluation.episodes, key)
        if data.contexts is None:
            return unseen
        context = assemble(data.test, data.contexts.reshape(-1, data.contexts.shape[-1]))
        if s.layout.independent_steps:
            context = as_one_episode(context, asks=False)
        return dataclasses.replace(unseen, context=jax.tree.map(jnp.asarray, context.trajectories))
