"""Exported models of a mixture of families: weights that act in a new problem without any training."""

import dataclasses
import pathlib
from typing import Any

import ml_dtypes
import numpy as np

import icdm
from icdm.errors import UserError
from icdm.files import file_checksum, read_json, write_json, write_tensors
from icdm.models.transformer import Transformer
from icdm.runs.run import WEIGHTS, Run

SHIPPED = pathlib.Path(icdm.__file__).parent / "shipped"  # models that come with the package, by name
CHECKSUM = "checksum.json"


def pretrained_run(
    directory: str | pathlib.Path, states: int, actions: int, horizon: int, reward_low: float, reward_high: float
) -> Run:
    """A run of a model of a mixture (`fine_tune.mixture`) that acts in a problem of these sizes.

    Args:
      directory: what `icdm export --model` wrote, or the name of a model that comes with the package: tabular.
      horizon: decisions in an episode.
      reward_low, reward_high: of one step; rewards are divided by the larger of the two in absolute value.

    Raises:
      UserError: there is no such model, its files are not what was written, it has no names for so many states or
        actions, or it does not read so long episodes.
    """
    directory = _checked(pathlib.Path(directory))
    sizes = dict(states=states, actions=actions, reward_low=reward_low, reward_high=reward_high)
    run = Run.open(directory)
    s = run.settings
    longest = s.model.max_length // (s.layout.positions * (s.context.episodes + 1)) - 1
    if horizon > longest:
        raise UserError(
            f"{horizon:,} decisions in an episode: model {directory} reads {s.context.episodes} context episodes of at "
            f"most {longest:,}: give shorter ones, or train a run of its own"
        )
    run = dataclasses.replace(run, config=run.config | {"family": "recorded", "horizon": horizon, "problem": sizes})
    if not run.settings.mixture:
        raise UserError(f"{directory} is no model for problems of any size: use icdm decide --run")
    return run


def write_pretrained(run: Run, out: pathlib.Path) -> None:
    """Writes what `pretrained_run` reads: the config, the fine-tuned weights as bfloat16, and their checksums.

    Raises:
      UserError: a run of one family, or without a trained model.
    """
    if not run.settings.mixture:
        raise UserError(f"{run.directory} was trained for one family: only a model of fine_tune.mixture acts in others")
    named = {name: np.asarray(weight) for name, weight in run.model("fine_tuned").named_weights().items()}
    out.mkdir(parents=True, exist_ok=True)
    write_tensors(out / WEIGHTS, {name: x.astype(ml_dtypes.bfloat16) for name, x in named.items()})
    stands_alone = run.config | {"fine_tune": run.config["fine_tune"] | {"start": ""}}
    write_json(out / "config.json", stands_alone)
    write_json(out / CHECKSUM, {name: file_checksum(out / name) for name in (WEIGHTS, "config.json")})


def exported_weights(run: Run) -> dict[str, np.ndarray]:
    """The weights, float32 by name, of the exported model that a run starts from (`fine_tune.start`).

    Raises:
      UserError: there is no such model, its files are not what was written, or its shapes or names differ from the
        run's.
    """
    directory = _checked(pathlib.Path(run.settings.first_weights))
    exported = Run.open(directory)
    theirs, ours = (each.settings.mixture[0].layout for each in (exported, run))
    for what in ("n_observations", "n_actions", "horizon", "reward_bins"):
        if getattr(theirs, what) != getattr(ours, what):
            raise UserError(
                f"fine_tune.start {directory} has {what} {getattr(theirs, what)}, this mixture {getattr(ours, what)}: "
                "make fine_tune.names and the largest sizes of its parts the same"
            )
    named = exported.model("fine_tuned").named_weights()
    described = Transformer.described(run.settings.model, run.layout.size, run.layout.numbers).named_weights()
    for name, weight in described.items():
        if name not in named or named[name].shape != weight.shape:
            raise UserError(f"fine_tune.start {directory} has a model of another shape ({name}): set model.* as there")
    return {name: np.asarray(named[name]) for name in described}


def of_package(directory: pathlib.Path, file: str = "config.json") -> pathlib.Path | None:
    """Where the model of the package with this name is, if there is one, and no directory of that name has the file."""
    if (directory / file).exists() or str(directory) not in (path.name for path in SHIPPED.iterdir()):
        return None
    return SHIPPED / directory


def _checked(directory: pathlib.Path) -> pathlib.Path:
    """The directory of a model, or else of the one with this name in the package, whose files are those that were
    written."""
    packaged = of_package(directory, CHECKSUM)
    remedy = "install the package again" if packaged else "export it again"
    directory = packaged or directory
    if not (directory / CHECKSUM).exists():
        raise UserError(f"{directory} is no exported model: icdm export RUN --model DIR writes one; or take tabular")
    checksums: dict[str, Any] = read_json(directory / CHECKSUM, remedy)
    for name in (WEIGHTS, "config.json"):
        if not (directory / name).exists():
            raise UserError(f"{directory / name} is missing: {remedy}")
        if file_checksum(directory / name) != checksums.get(name):
            raise UserError(f"{directory / name} is not the file that was written (its checksum differs): {remedy}")
    return directory
