"""One experiment from its config to its report; it goes on from where an earlier start stopped."""

import hashlib
import pathlib
import shutil
from typing import Any

from experiments import report
from icdm.errors import UserError
from icdm.evaluation.table import print_results
from icdm.files import locked, write_arrays, write_json
from icdm.runs.monitor import StopRequest, outlive_readers
from icdm.runs.phases import Phases
from icdm.runs.run import Run, results_of
from icdm.runs.settings import Settings, as_json, completed, first_difference
from icdm.runs.sizes import check_sizes, with_sizes_of_data


def run(config: Any, workdir: pathlib.Path, wide: bool = False, traced: tuple[int, int] | None = None) -> dict:
    """Runs (what is left of) an experiment in workdir; returns what results.json holds.

    The directory becomes the run's own once its config and its data have been checked.

    Args:
      wide: prints every column of the table, however wide it gets.
      traced: the first step of each phase whose trace is written, and the one after the last.

    Raises:
      UserError: the config or the directory cannot be used, another process is at work there, or training failed.
      Stopped: SIGTERM or SIGINT asked it to stop, and it has saved.
    """
    if "sweep" in config:
        raise UserError("this config holds a sweep: run it with python -m experiments.sweep")
    config = with_sizes_of_data(config)
    s = Settings.from_config(config)
    check_sizes(s)
    outlive_readers()
    with locked(workdir):
        phases = Phases(Run.prepared(workdir, config), StopRequest(), traced)  # reads the data
        Run.claim(workdir, config)
        models = phases.train_all()
        found, arrays = phases.evaluate(models)
        results = results_of(config, found, phases.seconds)
        write_arrays(workdir / "values.npz", arrays)
        write_json(workdir / "results.json", results)
        title = f"{s.family_name}, horizon {s.family.horizon}, {s.context.episodes} context episodes"
        print_results(results, s.published, title, wide)
        for name, answers in results.get("invalid_answers", {}).items():
            print(
                f"{name}: {answers['invalid']} of {answers['decisions']} answers were no action, a random one was "
                f"taken; log-probabilities decided {answers['by_logprobs']}"
            )
        report.write(workdir, results, config, title)
    print(f"results: {workdir / 'results.json'}  report: {workdir / 'report.html'}")
    return results


def pretrain(config: Any, workdir: pathlib.Path) -> None:
    """The pretraining of a config alone, in a directory from which runs that share it take it.

    Raises:
      UserError, Stopped: as `run`.
    """
    outlive_readers()
    with locked(workdir):
        phases = Phases(Run.prepared(workdir, config), StopRequest())
        Run.claim(workdir, config)
        phases.pretrain()


def pretraining_hash(config: Any) -> str:
    """A short fingerprint of everything that the pretrained model depends on."""
    return hashlib.sha256(repr(_pretraining(config)).encode()).hexdigest()[:12]


def share_pretraining(config: Any, workdir: pathlib.Path, others: list[tuple[Any, pathlib.Path]]) -> None:
    """Takes the pretrained model from another run in which pretraining is the same, to the last random number.

    Args:
      others: (config, directory) of runs that may have pretrained already.
    """
    Run.prepared(workdir, config)  # the directory is free, or its own
    ours = workdir / "checkpoints" / "pretrain"
    for other, directory in others:
        theirs = directory / "checkpoints" / "pretrain"
        if not ours.exists() and theirs.exists() and _pretraining(other) == _pretraining(config):
            partial = ours.with_suffix(".partial")
            if partial.is_symlink():
                partial.unlink()
            shutil.copytree(theirs, partial, dirs_exist_ok=True)
            partial.replace(ours)


def _pretraining(config: Any) -> tuple:
    """Everything that the pretrained model depends on."""
    s = Settings.from_config(config)
    data = s.pretrain, s.pretrain_mixture, s.pretrain_behavior, s.context.episodes, s.context.epsilon
    return s.seed, s.model, s.layout, s.mesh_model, s.mesh_fsdp, *data


def load_results(workdir: pathlib.Path, config: Any) -> dict | None:
    """The results of a run of this very config that has ended, or None."""
    if not (workdir / "config.json").exists():
        return None
    run = Run.open(workdir)
    return None if first_difference(completed(as_json(config)), run.config) else run.results()
