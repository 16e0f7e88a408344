"""Runs an experiment for several values of a field and several seeds, and writes one combined report.

    python -m experiments.sweep --config=experiments/configs/energy.py --workdir=runs/horizons \\
        --sweep config.horizon=5,10,15 --seeds=3

Several --sweep flags make a grid. A config may have a grid of its own, of problems and horizons:

    python -m experiments.sweep --config=experiments/configs/paper_sweep.py --workdir=runs/paper --seeds=3

A sweep may be stopped at any moment: the same command goes on from there.
"""

import pathlib
from typing import Any

from absl import app, flags

from experiments.flags import define_cache, define_config, keep_programs, parse
from icdm.errors import UserError, one_line_errors
from icdm.memory import keep_freed_memory

if __name__ == "__main__":
    define_config()
    define_cache()
    for name in ("config", "compile_cache"):
        flags.declare_key_flag(name)
    flags.DEFINE_string("workdir", None, "directory of the sweep; each run gets one inside it")
    flags.DEFINE_multi_string("sweep", [], "config.FIELD=VALUE,VALUE,...; may be given several times")
    flags.DEFINE_bool("wide", False, "print every column of the tables, however wide they get")
    flags.DEFINE_integer("seeds", 1, "how many seeds, from config.seed on")


def main(_: list[str]) -> None:
    with one_line_errors("experiments.sweep"):
        if not flags.FLAGS.workdir:
            raise UserError("name a directory for the sweep: --workdir=runs/NAME")
        if flags.FLAGS.seeds < 1:
            raise UserError(f"seeds {flags.FLAGS.seeds}: give at least 1")
        keep_programs()
        from experiments.grid import axes_of  # JAX is imported only when there is work

        config = flags.FLAGS.config
        axes = axes_of(config, flags.FLAGS.sweep)
        sweep(config, pathlib.Path(flags.FLAGS.workdir), axes, flags.FLAGS.seeds, flags.FLAGS.wide)


def sweep(config: Any, workdir: pathlib.Path, axes: dict[str, list], n_seeds: int, wide: bool = False) -> dict:
    """Runs the grid, seeds innermost; returns the content of the sweep's results.json.

    Results and report are written again after every point with a new run, and at the end. The configs of all runs are
    checked before the first begins.

    Raises:
      UserError: a config or the directory cannot be used, another process is at work there, or a run failed.
      Stopped: SIGTERM or SIGINT asked a run to stop, and it has saved.
    """
    from icdm.files import locked, write_json
    from icdm.runs.monitor import outlive_readers
    from icdm.runs.run import SWEEP

    if (workdir / "config.json").exists():
        raise UserError(f"{workdir} belongs to a run and not to a sweep: choose another directory")
    check(config, axes, n_seeds)
    outlive_readers()
    with locked(workdir):
        write_json(workdir / SWEEP, {"sweep": axes, "seeds": n_seeds})
        return _sweep(config, workdir, axes, n_seeds, wide)


def check(config: Any, axes: dict[str, list], n_seeds: int) -> None:
    """Raises UserError if a run of the grid cannot begin."""
    from experiments.grid import config_at, points_of
    from icdm.problems.family import CanSample
    from icdm.runs.settings import Settings
    from icdm.runs.sizes import check_sizes

    for point in points_of(axes):
        settings = Settings.from_config(config_at(config, point | {"seed": config.seed + n_seeds - 1}))
        if not isinstance(settings.family, CanSample):
            raise UserError(
                f"a sweep compares gaps in unseen tasks, and family {settings.family_name} has no simulator: "
                "start each run with experiments.run"
            )
        check_sizes(settings)


def _sweep(config: Any, workdir: pathlib.Path, axes: dict[str, list], n_seeds: int, wide: bool) -> dict:
    import jax

    from experiments import sweep_report
    from experiments.experiment import load_results, run, share_pretraining
    from experiments.grid import config_at, directory_of, label_of, points_of
    from icdm.files import write_json

    # Runs compile nearly the same programs, most of them small.
    jax.config.update("jax_compilation_cache_dir", str(workdir.absolute() / "compiled"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    points = points_of(axes)
    entries, begun, directories = [], [], []
    for point in points:
        runs, anew = [], False
        for seed in range(config.seed, config.seed + n_seeds):
            one, label = config_at(config, point | {"seed": seed}), label_of(point | {"seed": seed})
            print(f"--- {label}", flush=True)
            directory = workdir / directory_of(point | {"seed": seed})
            if load_results(directory, one) is None:
                share_pretraining(one, directory, begun)
                run(one, directory, wide)
                anew = True
            runs.append(directory)
            begun.append((one, directory))
        entries.append(sweep_report.pool(point, runs))
        directories.append(runs)
        if anew or len(entries) == len(points):
            jax.clear_caches()  # the next problem has other shapes, and a process may map only so much memory
            results = sweep_report.results_of(entries, axes, config, directories)
            write_json(workdir / "results.json", results)
            sweep_report.write(workdir, results, config)
    print(f"results: {workdir / 'results.json'}  report: {workdir / 'report.html'}")
    return results


if __name__ == "__main__":
    keep_freed_memory()  # before JAX starts its threads
    app.run(main, flags_parser=lambda argv: parse(argv, "experiments.sweep"))
