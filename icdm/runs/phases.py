"""The phases of one run: pretrain, fine-tune, evaluate; each goes on from wherever an earlier start got to."""

import functools
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from icdm.errors import UserError
from icdm.learning.checkpoint import Checkpoints
from icdm.learning.objectives import action_loss, next_token_loss
from icdm.learning.sources import Mixture, Played, Source, played_tasks
from icdm.learning.train import TrainConfig, train
from icdm.models.lora import Adapted
from icdm.models.placement import check_divides, place_state, weight_sharding
from icdm.models.transformer import Transformer
from icdm.oracles.certify import OracleConfig
from icdm.processes import are_several
from icdm.runs.data import Data, open_data
from icdm.runs.monitor import Monitor
from icdm.runs.run import FINE_TUNE_KEY, PHASES, PRETRAIN_KEY, SCRATCH_KEY, Run
from icdm.runs.trace import Trace
from icdm.sharding import check_rows, make_mesh, placed
from icdm.trajectories.layouts import Layout

# Oracles of hidden states that act in what is pretrained on, but do not label it.
BEHAVING = OracleConfig(tolerance=1.0, points=1)
VALIDATION_BATCHES = 4


class Phase(NamedTuple):
    """One phase of training.

    Attributes:
      name: of the model that it trains.
      key: of its random numbers.
      source: the rows that are learned from, and held_out, those of held-out tasks, if there are any.
      objective: (model, layout, lessons) -> (mean loss, number of positions).
      row_length: positions of the longest row.
    """

    name: str
    config: TrainConfig
    key: jax.Array
    source: Source
    objective: Callable
    held_out: Source | None
    row_length: int

    def loss(self, layout: Layout, mesh: jax.sharding.Mesh) -> Callable:
        """(model, batch, key) -> (mean loss, number of positions); pure. Rows stay split over the mesh."""

        def loss(model: Transformer | Adapted, batch: Any, key: jax.Array):
            with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
                return self.objective(model, layout, self.source.lessons(batch, key))

        return loss


def pretraining(run: Run, mesh: jax.sharding.Mesh) -> Phase:
    """The prediction of what comes next, in episodes of the pretraining mixture."""
    s = run.settings
    key = jax.random.fold_in(run.key, PRETRAIN_KEY)
    rows = s.pretrain.batch // len(s.pretrain_mixture)
    check_rows(mesh, "pretrain rows of each family", rows)
    recorder = Played(s.pretrain_behavior, s.context.episodes + 1, s.context.epsilon)
    source = Mixture(
        [
            played_tasks(family, recorder, rows, jax.random.fold_in(key, i), mesh, BEHAVING)
            for i, family in enumerate(s.pretrain_mixture)
        ]
    )
    length = max(s.positions(family, s.context.episodes) for family in s.pretrain_mixture)
    return Phase("in_context", s.pretrain, key, source, next_token_loss, None, length)


def fine_tuning(run: Run, data: Data, mesh: jax.sharding.Mesh, name: str = "fine_tuned") -> Phase:
    """Fine-tuning of the model before it, or of random weights: from_scratch."""
    s = run.settings
    config, key_index = {
        "fine_tuned": (s.fine_tune, FINE_TUNE_KEY),
        "from_scratch": (s.equal_tokens, SCRATCH_KEY),
    }[name]
    key = jax.random.fold_in(run.key, key_index)
    check_rows(mesh, "fine_tune.batch", config.batch)
    source, held_out = data.sources(key, config.batch)
    objective = next_token_loss if s.labels.labels == "tokens" else action_loss
    parts = [(part.family, part.context) for part in s.mixture] or [(s.family, s.context)]
    length = max(s.positions(family, context.episodes) for family, context in parts)
    return Phase(name, config, key, source, objective, held_out, length)


class Phases:
    """What is left to do of a run.

    Attributes:
      traced: the first step of each phase that is traced, and the one after the last; None for none.
      seconds: of each phase, over all starts.
    """

    def __init__(self, run: Run, stop: Callable[[], bool] = lambda: False, traced: tuple[int, int] | None = None):
        self.run, self.settings, self.stop, self.traced = run, run.settings, stop, traced
        s = run.settings
        if s.policies and are_several():
            raise UserError("policies: only a run of one process asks servers; leave them out, or --distributed=off")
        self.mesh = make_mesh(s.mesh_model)
        check_divides(s.model, self.mesh.shape, s.mesh_fsdp)
        self.data = open_data(run, self.mesh)
        self.start = run.start(self._placed)
        self.seconds: dict[str, float] = {}

    def train_all(self) -> dict[str, Transformer]:
        """The trained models by the names of their policies."""
        s = self.settings
        models = {}
        model = start = self.start
        if s.starts_published:
            models["in_context"] = start
        if s.pretrain.steps:
            model = models["in_context"] = self.pretrain()
        models["fine_tuned"] = self._train(model, fine_tuning(self.run, self.data, self.mesh))
        self.run.save_weights(models["fine_tuned"])
        if s.from_scratch:
            models["from_scratch"] = self._train(start, fine_tuning(self.run, self.data, self.mesh, "from_scratch"))
        return models

    def pretrain(self) -> Transformer:
        """The pretrained model."""
        return self._train(self.start, pretraining(self.run, self.mesh))

    def evaluate(self, models: dict[str, Transformer]) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """What results.json says of the models, and what values.npz holds."""
        began = time.perf_counter()
        found, arrays = self.data.evaluate(models, self.stop)
        self.seconds["evaluate"] = time.perf_counter() - began
        return found, arrays

    def _placed(self, name: str, weight: np.ndarray) -> jax.Array:
        return placed(weight, weight_sharding(self.mesh, name, weight.ndim, self.settings.mesh_fsdp))

    def _train(self, model: Transformer | Adapted, phase: Phase) -> Transformer | Adapted:
        name, config = PHASES[phase.name], phase.config
        if not config.steps:
            self.seconds[name] = 0.0
            return model
        loss = phase.loss(self.settings.layout, self.mesh)
        batch_loss = jax.jit(loss)

        def validate(model: Transformer | Adapted) -> float:
            """The mean loss over VALIDATION_BATCHES batches of held-out tasks, always the same."""
            batches = range(VALIDATION_BATCHES)
            losses = [batch_loss(model, phase.held_out.batch(i), phase.key)[0] for i in batches]
            return sum(x.item() for x in losses) / VALIDATION_BATCHES

        checkpoints = Checkpoints(self.run.directory / "checkpoints" / name)
        events = self.run.directory / "tensorboard" / name if self.settings.tensorboard else None
        monitor = Monitor(self.run.directory / "metrics.jsonl", name, config.steps, events)
        trace = Trace(self.run.directory / "trace" / name, self.traced)
        try:
            with monitor, trace:
                trained = train(
                    model,
                    loss,
                    phase.source.batch,
                    config,
                    phase.key,
                    place=functools.partial(place_state, self.mesh, fsdp=self.settings.mesh_fsdp),
                    checkpoints=checkpoints,
                    log=monitor,
                    stop=self.stop,
                    validate=validate,
                    row_length=phase.row_length,
                    trace=trace,
                )
                return self.run.kept(phase.name, trained)
        except UserError as error:
            raise UserError(f"{name}: {error}") from error
        finally:
            checkpoints.close()
            self.seconds[name] = monitor.seconds
