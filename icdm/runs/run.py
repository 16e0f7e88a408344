"""One run: its directory, and what can be had from it without training."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import safetensors.numpy
from flax import nnx

from icdm.errors import UserError, unknown
from icdm.files import read_json, whole, write_json
from icdm.learning import checkpoint
from icdm.learning.train import TrainConfig
from icdm.logs.features import Encoder, read_encoder
from icdm.models.lora import Adapted, adapted, init_factors
from icdm.models.transformer import Transformer, with_twins
from icdm.problems.family import Family
from icdm.provenance import provenance
from icdm.runs.settings import Settings, as_json, completed, config_hash, first_difference
from icdm.sharding import gathered
from icdm.trajectories.layouts import Layout

# Each part of an experiment has its own random numbers, folded into the config's seed.
MODEL_KEY, PRETRAIN_KEY, FINE_TUNE_KEY, SCRATCH_KEY, EVALUATION_KEY = range(5)

PHASES = {"in_context": "pretrain", "fine_tuned": "fine_tune", "from_scratch": "from_scratch"}  # by their models
WEIGHTS = "weights.safetensors"
SWEEP = "sweep.json"  # by which a directory of a sweep is known
RESULTS = ("family", "config_hash", "seeds", "policies", "seconds")  # what every results.json has
REMEDY = "delete it and start the same command again, which measures what is missing"  # of results and values


def results_of(config: Any, found: dict[str, Any], seconds: dict[str, float]) -> dict[str, Any]:
    """What results.json holds: what was found, for which config, and with what it was made (`icdm.provenance`)."""
    settings = Settings.from_config(config)
    head = {"family": settings.family_name, "config_hash": config_hash(config), "seeds": [settings.seed]}
    return head | found | {"seconds": seconds, "config": as_json(config), "made_with": provenance()}


@dataclasses.dataclass(frozen=True)
class Run:
    """A run's directory.

        run = Run.open("runs/demo")
        run.family, run.layout, run.model("fine_tuned")

    Attributes:
      directory: holds config.json, checkpoints/ (a folder for each phase), weights.safetensors (the fine-tuned model),
        metrics.jsonl, results.json, values.npz and report.html, as far as the run has come.
      config: the content of config.json; fields that it lacks have their defaults.
    """

    directory: pathlib.Path
    config: dict[str, Any]

    @classmethod
    def open(cls, directory: str | pathlib.Path) -> "Run":
        """The run of a directory; nothing in it is changed.

        Raises:
          UserError: there is no run, or its config cannot be read.
        """
        path = pathlib.Path(directory) / "config.json"
        remedy = "write it anew with the run's config, or take another directory"
        try:
            return cls(pathlib.Path(directory), completed(read_json(path, remedy)))
        except OSError:
            raise UserError(f"{directory} is not a run: {path} is missing") from None

    @classmethod
    def prepared(cls, directory: pathlib.Path, config: Any) -> "Run":
        """The run of this config in a directory that is free or its own; nothing is written.

        Raises:
          UserError: the directory belongs to a run of another config, or holds a sweep.
        """
        if not (directory / "config.json").exists():
            for name in (SWEEP, "results.json"):
                if (directory / name).exists():
                    raise UserError(f"{directory} holds a sweep ({name}) and not a run: choose another directory")
            return cls(directory, completed(as_json(config)))
        try:
            run = cls.open(directory)
        except UserError:
            path = directory / "config.json"
            raise UserError(f"{path} cannot be read: choose another directory") from None
        difference = first_difference(completed(as_json(config)), run.config)
        if difference:
            raise UserError(f"{directory} belongs to another config: {difference}; choose another directory")
        return run

    @classmethod
    def claim(cls, directory: pathlib.Path, config: Any) -> "Run":
        """The same, and the directory becomes its own.

        Raises:
          UserError: as `prepared`, or the directory cannot be used.
        """
        run = cls.prepared(directory, config)
        try:
            directory.mkdir(parents=True, exist_ok=True)
            if not run.is_claimed:
                write_json(directory / "config.json", as_json(config))
        except OSError as error:
            raise UserError(f"cannot use --workdir {directory}: {error.strerror}") from None
        return run

    @property
    def is_claimed(self) -> bool:
        """Whether the directory belongs to the run."""
        return (self.directory / "config.json").exists()

    @functools.cached_property
    def settings(self) -> Settings:
        return Settings.from_config(self.config)

    @property
    def family(self) -> Family:
        return self.settings.family

    @property
    def layout(self) -> Layout:
        return self.settings.layout

    @functools.cached_property
    def encoder(self) -> Encoder | None:
        """How observations of several features are read, if the run learned from such."""
        return read_encoder(self.directory)

    @property
    def key(self) -> jax.Array:
        """Of all random numbers of the run."""
        return jax.random.key(self.settings.seed)

    def start(
        self, place: Callable[[str, np.ndarray], jax.Array] = lambda name, array: jax.numpy.asarray(array)
    ) -> Transformer:
        """The model before training: published weights, those of an exported model, or random ones.

        Args:
          place: puts the array of a published weight, given its name, onto devices.
        """
        s = self.settings
        if s.starts_published:
            from icdm.published.model import load, open_published  # needs the packages of the extra `language`

            return load(open_published(s.weights), s.model, place)
        if s.first_weights:
            from icdm.runs.pretrained import exported_weights  # which needs this module

            named = exported_weights(self)
            return self.described().with_weights(lambda name: place(name, named[name]))
        key = jax.random.fold_in(self.key, MODEL_KEY)
        model = Transformer(s.model, self.layout.size, nnx.Rngs(key), self.layout.numbers)
        return with_twins(model, *self.layout.twins, jax.random.fold_in(key, 0)) if s.mixture else model

    @property
    def trained(self) -> dict[str, TrainConfig]:
        """The models that the run trains, in order, and how; `from_scratch` starts anew."""
        s = self.settings
        phases = {"in_context": s.pretrain, "fine_tuned": s.fine_tune}
        phases |= {"from_scratch": s.equal_tokens} if s.from_scratch else {}
        return {name: training for name, training in phases.items() if training.steps}

    @property
    def measured(self) -> list[str]:
        """The models whose policies the run measures; without pretraining a published model is measured as it is."""
        s = self.settings
        reads = s.pretrain.steps or s.starts_published
        return [*(["in_context"] if reads else []), "fine_tuned", *(["from_scratch"] if s.from_scratch else [])]

    def model(self, name: str = "fine_tuned") -> Transformer:
        """A model of the run by its name: start, in_context (pretrained), fine_tuned or from_scratch.

        Its weights are read without an optimizer. A phase without steps leaves the model as it was before.

        Raises:
          UserError: an unknown name, or the run has not got to that model yet.
        """
        if name not in ("start", *PHASES):
            raise unknown("model", name, ("start", *PHASES))
        before = self._before(name)
        if name in self.trained:
            return self._trained(name, before)
        return self._trained(before, self._before(before)) if before in self.trained else self._untrained

    @functools.cached_property
    def _untrained(self) -> Transformer:
        """`start`, read once: published weights are large, and several models rest on them."""
        return self.start()

    def kept(self, name: str, model: Transformer | Adapted) -> Transformer | Adapted:
        """A trained model as the run keeps it: adapters stay beside published weights, into others they are merged."""
        return model if self._rests_on_published(name) else model.merged()

    def save_weights(self, model: Transformer) -> None:
        """Writes the fine-tuned weights, so that they can be read without this library; config.json lies beside.

        Of a model that is kept as adapters these alone are written.
        """
        named = {name: gathered(weight) for name, weight in model.named_weights().items()}
        with whole(self.directory / WEIGHTS) as fresh:
            safetensors.numpy.save_file(named, fresh)

    def results(self) -> dict | None:
        """The content of results.json, or None if the run has not ended.

        Raises:
          UserError: the file is damaged, or lacks a field.
        """
        path = self.directory / "results.json"
        if not path.exists() or not (self.directory / "values.npz").exists():
            return None
        found = read_json(path, REMEDY)
        if missing := [name for name in RESULTS if name not in found]:
            raise UserError(f"{path} lacks {', '.join(missing)}: {REMEDY}")
        return found

    def _before(self, name: str) -> str:
        """The model from which another is trained."""
        return "in_context" if name == "fine_tuned" and "in_context" in self.trained else "start"

    def _rests_on_published(self, name: str) -> bool:
        s = self.settings
        return s.starts_published and self._before(name) == "start" and self.trained[name].lora_rank > 0

    def _trained(self, name: str, before: str) -> Transformer | Adapted:
        """A trained model, from the weights file or from the newest checkpoint."""
        lora, is_whole = self.trained[name].lora, not self._rests_on_published(name)
        if not lora.rank or (is_whole and name == "fine_tuned" and (self.directory / WEIGHTS).exists()):
            described = self.described()
            return described.with_weights(self._arrays(name, described.named_weights()))
        base = self.model(before).merged()
        like = jax.eval_shape(lambda: init_factors(base, lora, jax.random.key(0)))
        named = {f"{weight}.{part}": leaf for weight, pair in like.items() for part, leaf in pair.items()}
        arrays = self._arrays(name, named)
        factors = {weight: {part: arrays(f"{weight}.{part}") for part in pair} for weight, pair in like.items()}
        return self.kept(name, adapted(base, factors, lora))

    def _arrays(self, name: str, wanted: dict[str, Any]) -> Callable[[str], jax.Array]:
        """What was trained, by name: from the weights file, or from the newest checkpoint; sizes as those wanted."""
        path = self.directory / WEIGHTS
        if name == "fine_tuned" and path.exists():
            try:
                named = safetensors.numpy.load_file(path)
            except safetensors.SafetensorError as error:
                raise UserError(f"{path} is damaged ({error}): delete it, the checkpoints hold the weights") from None
        else:
            path = self.directory / "checkpoints" / PHASES[name]
            step, arrays = checkpoint.read(path)
            if step == 0:
                missing = "holds no checkpoint" if path.is_dir() else "is missing"
                raise UserError(f"{path} {missing}: the run has not got there yet; start it again to go on")
            named = checkpoint.trainable(arrays)
        checkpoint.check_shapes(path, named, wanted)
        return lambda weight: jax.numpy.asarray(named[weight], wanted[weight].dtype)

    def described(self) -> Transformer:
        """The model with shapes in the place of weights."""
        return Transformer.described(self.settings.model, self.layout.size, self.layout.numbers)
