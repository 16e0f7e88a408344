"""The phases of one run: pretrain, fine-tune, evaluate; each goes on from wherever an earlier start got to."""

import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from icdm.errors import UserError
from icdm.learning.checkpoint import Checkpoints
from icdm.learning.objectives import action_loss, next_token_loss
from icdm.learning.sources import Mixture, Played, Source, played_tasks
from icdm.learning.train import TrainConfig, train
from icdm.models.lora import Adapted
from icdm.models.transformer import Transformer
from icdm.oracles.certify import OracleConfig
from icdm.runs.data import open_data
from icdm.runs.monitor import Monitor
from icdm.runs.run import FINE_TUNE_KEY, PHASES, PRETRAIN_KEY, SCRATCH_KEY, Run
from icdm.runs.trace import Trace
from icdm.sharding import check_rows, make_mesh, place_state

# Oracles of hidden states that act in what is pretrained on, but do not label it.
BEHAVING = OracleConfig(tolerance=1.0, points=1)
VALIDATION_BATCHES = 4


class Phases:
    """What is left to do of a run.

    Attributes:
      traced: the first step of each phase that is traced, and the one after the last; None for none.
      seconds: of each phase, over all starts.
    """

    def __init__(self, run: Run, stop: Callable[[], bool] = lambda: False, traced: tuple[int, int] | None = None):
        self.run, self.settings, self.stop, self.traced = run, run.settings, stop, traced
        self.mesh = make_mesh(run.settings.mesh_model)
        self.data = open_data(run, self.mesh)
        self.start = run.start(lambda weight: place_state(self.mesh, weight))
        self.seconds: dict[str, float] = {}

    def train_all(self) -> dict[str, Transformer]:
        """The trained models by the names of their policies."""
        s = self.settings
        models = {}
        model = start = self.start
        if s.starts_published:
            models["in_context"] = start
        if s.pretrain.steps:
            model = models["in_context"] = self._pretrain(start)
        models["fine_tuned"] = self._fine_tune(model, "fine_tuned", s.fine_tune, FINE_TUNE_KEY)
        self.run.save_weights(models["fine_tuned"])
        if s.from_scratch:
            models["from_scratch"] = self._fine_tune(start, "from_scratch", s.equal_tokens, SCRATCH_KEY)
        return models

    def evaluate(self, models: dict[str, Transformer]) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """What results.json says of the models, and what values.npz holds."""
        began = time.perf_counter()
        found, arrays = self.data.evaluate(models, self.stop)
        self.seconds["evaluate"] = time.perf_counter() - began
        return found, arrays

    def _pretrain(self, model: Transformer) -> Transformer:
        s = self.settings
        key = jax.random.fold_in(self.run.key, PRETRAIN_KEY)
        rows = s.pretrain.batch // len(s.pretrain_mixture)
        check_rows(self.mesh, "pretrain rows of each family", rows)
        recorder = Played(s.pretrain_behavior, s.context.episodes + 1, s.context.epsilon)
        source = Mixture(
            [
                played_tasks(family, recorder, rows, jax.random.fold_in(key, i), self.mesh, BEHAVING)
                for i, family in enumerate(s.pretrain_mixture)
            ]
        )
        length = max(s.positions(family, s.context.episodes) for family in s.pretrain_mixture)
        return self._train(model, "in_context", s.pretrain, key, source, next_token_loss, None, length)

    def _fine_tune(self, model: Transformer, name: str, config: TrainConfig, key_index: int) -> Transformer:
        key = jax.random.fold_in(self.run.key, key_index)
        check_rows(self.mesh, "fine_tune.batch", config.batch)
        source, held_out = self.data.sources(key, config.batch)
        objective = next_token_loss if self.settings.labels.labels == "tokens" else action_loss
        parts = [(part.family, part.context) for part in self.settings.mixture]
        parts = parts or [(self.settings.family, self.settings.context)]
        length = max(self.settings.positions(family, context.episodes) for family, context in parts)
        return self._train(model, name, config, key, source, objective, held_out, length)

    def _train(
        self,
        model: Transformer | Adapted,
        name: str,
        config: TrainConfig,
        key: jax.Array,
        source: Source,
        objective: Callable,
        held_out: Source | None,
        row_length: int,
    ) -> Transformer | Adapted:
        layout, phase = self.settings.layout, PHASES[name]
        if not config.steps:
            self.seconds[phase] = 0.0
            return model

        def loss(model: Transformer | Adapted, batch: Any, key: jax.Array):
            return objective(model, layout, source.lessons(batch, key))

        batch_loss = jax.jit(loss)

        def validate(model: Transformer | Adapted) -> float:
            """The mean loss over VALIDATION_BATCHES batches of held-out tasks, always the same."""
            losses = [batch_loss(model, held_out.batch(i), key)[0] for i in range(VALIDATION_BATCHES)]
            return sum(x.item() for x in losses) / VALIDATION_BATCHES

        checkpoints = Checkpoints(self.run.directory / "checkpoints" / phase)
        monitor = Monitor(self.run.directory / "metrics.jsonl", phase, config.steps)
        trace = Trace(self.run.directory / "trace" / phase, self.traced)
        try:
            with monitor, trace:
                trained = train(
                    model,
                    loss,
                    source.batch,
                    config,
                    key,
                    mesh=self.mesh,
                    checkpoints=checkpoints,
                    log=monitor,
                    stop=self.stop,
                    validate=validate,
                    row_length=row_length,
                    trace=trace,
                )
                return self.run.kept(name, trained)
        except UserError as error:
            raise UserError(f"{phase}: {error}") from error
        finally:
            checkpoints.close()
            self.seconds[phase] = monitor.seconds
