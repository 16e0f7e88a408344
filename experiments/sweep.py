"""Runs an experiment for several values of a field and several seeds, and writes one combined report.

    python -m experiments.sweep --config=experiments/configs/energy.py --workdir=runs/horizons \\
        --sweep config.horizon=5,10,15 --seeds=3

Several --sweep flags make a grid. A config may have a grid of its own, of problems and horizons:

    python -m experiments.sweep --config=experiments/configs/paper_sweep.py --workdir=runs/paper --seeds=3

A sweep may be stopped at any moment: the same command goes on from there.

On a cluster the same command with --sbatch=runs.sh writes a Slurm array script of its runs, and with --collect it makes
the combined report of those that have finished, and says what became of the others.
"""

import pathlib
import sys
from typing import Any, NamedTuple

from absl import app, flags

from experiments.flags import configs_and_fields, define_config, parse
from icdm.errors import UserError, one_line_errors
from icdm.memory import keep_freed_memory

if __name__ == "__main__":
    define_config()
    flags.declare_key_flag("config")
    flags.DEFINE_string("workdir", None, "directory of the sweep; each run gets one inside it")
    flags.DEFINE_multi_string("sweep", [], "config.FIELD=VALUE,VALUE,...; may be given several times")
    flags.DEFINE_bool("wide", False, "print every column of the tables, however wide they get")
    flags.DEFINE_integer("seeds", 1, "how many seeds, from config.seed on")
    flags.DEFINE_string("sbatch", None, "write a Slurm array script, one task for each run, and run nothing")
    flags.DEFINE_string("partition", None, "of --sbatch")
    flags.DEFINE_string("time", None, "of --sbatch: time limit of a run, as sbatch writes it")
    flags.DEFINE_integer("gpus", 0, "of --sbatch: GPUs of a run", lower_bound=0)
    flags.DEFINE_integer("parallel", 0, "of --sbatch: how many runs at a time; 0 for all", lower_bound=0)
    flags.DEFINE_integer("task", None, "one run alone, by its number, without a report: what a task of --sbatch does")
    flags.DEFINE_integer("pretrain", None, "the pretraining alone that several runs share, by its number")
    flags.DEFINE_bool("collect", False, "the combined report of the runs that have finished; runs nothing")


def main(_: list[str]) -> None:
    with one_line_errors("experiments.sweep"):
        asked = flags.FLAGS
        if not asked.workdir:
            raise UserError("name a directory for the sweep: --workdir=runs/NAME")
        if asked.seeds < 1:
            raise UserError(f"seeds {asked.seeds}: give at least 1")
        ways = {
            "sbatch": asked.sbatch,
            "task": asked.task,
            "pretrain": asked.pretrain,
            "collect": asked.collect or None,
        }
        given = [f"--{name}" for name, value in ways.items() if value is not None]
        if len(given) > 1:
            raise UserError(f"{' and '.join(given)}: give one of them at a time")
        from experiments.grid import axes_of  # JAX is imported only when there is work

        grid = Grid(asked.config, pathlib.Path(asked.workdir), axes_of(asked.config, asked.sweep), asked.seeds)
        if asked.sbatch:
            submit(grid, pathlib.Path(asked.sbatch))
        elif asked.task is not None:
            run_task(grid, asked.task, asked.wide)
        elif asked.pretrain is not None:
            run_pretraining(grid, asked.pretrain)
        elif asked.collect:
            collect(grid)
        else:
            sweep(grid, asked.wide)


class Grid(NamedTuple):
    """A sweep: a config, the values of its axes, and how many seeds of each point; the runs lie in workdir."""

    config: Any
    workdir: pathlib.Path
    axes: dict[str, list]
    n_seeds: int

    def runs(self, point: dict[str, Any]) -> list[tuple[Any, pathlib.Path]]:
        """(config, directory) of the run of each seed."""
        from experiments.grid import config_at, directory_of

        seeds = range(self.config.seed, self.config.seed + self.n_seeds)
        at = [point | {"seed": seed} for seed in seeds]
        return [(config_at(self.config, one), self.workdir / directory_of(one)) for one in at]

    def all_runs(self) -> list[tuple[Any, pathlib.Path]]:
        """Those of all points, seeds innermost."""
        from experiments.grid import points_of

        return [run for point in points_of(self.axes) for run in self.runs(point)]

    def pretraining(self) -> list[tuple[Any, pathlib.Path]]:
        """(config, directory) of each pretraining that several runs share, named by the hash of its settings."""
        shared: dict[pathlib.Path, list] = {}
        for one, _ in self.all_runs():
            if one.pretrain.steps:
                shared.setdefault(self.pretrained(one), []).append(one)
        return [(configs[0], directory) for directory, configs in shared.items() if configs[1:]]

    def pretrained(self, config: Any) -> pathlib.Path:
        """Where the pretraining of a run lies, if it shares it."""
        from experiments.experiment import pretraining_hash

        return self.workdir / f"pretrained-{pretraining_hash(config)}"


def sweep(grid: Grid, wide: bool = False) -> dict:
    """Runs the grid, seeds innermost; returns the content of the sweep's results.json.

    Results and report are written again after every point with a new run, and at the end. The configs of all runs are
    checked before the first begins.

    Raises:
      UserError: a config or the directory cannot be used, another process is at work there, or a run failed.
      Stopped: SIGTERM or SIGINT asked a run to stop, and it has saved.
    """
    from icdm.files import locked
    from icdm.runs.monitor import outlive_readers

    check(grid)
    outlive_readers()
    with locked(grid.workdir):
        _claim(grid)
        return _sweep(grid, wide)


def check(grid: Grid) -> None:
    """Raises UserError if a run of the grid cannot begin."""
    from experiments.grid import config_at, points_of
    from icdm.problems.family import CanSample
    from icdm.runs.settings import Settings
    from icdm.runs.sizes import check_sizes

    if (grid.workdir / "config.json").exists():
        raise UserError(f"{grid.workdir} belongs to a run and not to a sweep: choose another directory")
    if not points_of(grid.axes):
        raise UserError("the sweep has no runs: give every axis a value")
    for point in points_of(grid.axes):
        last = grid.config.seed + grid.n_seeds - 1
        settings = Settings.from_config(config_at(grid.config, point | {"seed": last}))
        if not isinstance(settings.family, CanSample):
            raise UserError(
                f"a sweep compares gaps in unseen tasks, and family {settings.family_name} has no simulator: "
                "start each run with experiments.run"
            )
        check_sizes(settings)


def submit(grid: Grid, script: pathlib.Path) -> None:
    """Writes the array script of the grid's runs, and says how to submit it.

    Raises:
      UserError: a config or the directory cannot be used, or the script would replace another file.
    """
    from experiments.slurm import check_script, without_own, write_scripts

    asked = flags.FLAGS
    resources = {"partition": asked.partition, "time": asked.time, "gpus": asked.gpus}
    check_script(script, resources)
    check(grid)
    _claim(grid)
    command = [sys.executable, "-m", "experiments.sweep", *without_own(sys.argv[1:])]
    n_runs, n_pretrained = len(grid.all_runs()), len(grid.pretraining())
    lines = write_scripts(script, grid.workdir, command, n_runs, n_pretrained, asked.parallel, resources)
    print(
        f"{n_runs} runs, {n_pretrained} times pretraining that several of them share. Submit them with",
        *lines,
        sep="\n    ",
    )


def run_task(grid: Grid, number: int, wide: bool) -> None:
    """One run of the grid; pretraining that has been done for several runs is taken from there."""
    from experiments.experiment import load_results, run, share_pretraining

    one, directory = _numbered(grid.all_runs(), "task", number)
    _keep_programs(grid)
    if load_results(directory, one) is None:
        share_pretraining(one, directory, [(one, grid.pretrained(one))])
        run(one, directory, wide)


def run_pretraining(grid: Grid, number: int) -> None:
    """The pretraining that several runs share, in a directory of its own."""
    from experiments.experiment import pretrain

    _keep_programs(grid)
    pretrain(*_numbered(grid.pretraining(), "pretrain", number))


def collect(grid: Grid) -> None:
    """Writes results and report of the runs that have finished, and says of the others whether they are at work, or
    what they said last."""
    from experiments import sweep_report
    from experiments.experiment import load_results
    from experiments.grid import points_of
    from experiments.slurm import logs_of
    from icdm.files import is_locked

    entries, directories, missing, number = [], [], [], 0
    for point in points_of(grid.axes):
        finished = []
        for one, directory in grid.runs(point):
            if load_results(directory, one) is not None:
                finished.append(directory)
            else:
                log = logs_of(grid.workdir) / f"task-{number}.log"
                said = log.read_text(errors="replace").split("\n") if log.exists() else []
                last = next((line for line in reversed(said) if line.strip()), "")
                state = "running" if is_locked(directory) else "not finished" if said else "not started"
                missing.append(f"{number} {directory.name}: {state}" + (f": {last}" if last else ""))
            number += 1
        if finished:
            entries.append(sweep_report.pool(point, finished))
            directories.append(finished)
    if entries:
        _report(grid, entries, directories)
        print(f"{sum(map(len, directories))} of {number} runs have finished. {_written(grid)}")
    print(f"{len(missing)} of {number} runs have no results" + (":" if missing else ""), *missing, sep="\n  ")
    if not entries:
        raise UserError(f"{grid.workdir} has no finished run: wait, or look at what they said last")


def _claim(grid: Grid) -> None:
    from icdm.files import write_json
    from icdm.runs.run import SWEEP

    grid.workdir.mkdir(parents=True, exist_ok=True)
    write_json(grid.workdir / SWEEP, {"sweep": grid.axes, "seeds": grid.n_seeds})


def _numbered(runs: list, flag: str, number: int) -> Any:
    if not 0 <= number < len(runs):
        raise UserError(f"--{flag}={number}: there are {len(runs)}, counted from 0")
    return runs[number]


def _keep_programs(grid: Grid) -> None:
    """Runs compile nearly the same programs, most of them small."""
    from icdm.compiled import keep_programs

    keep_programs(grid.workdir / "compiled", seconds=0)


def _report(grid: Grid, entries: list[dict], directories: list[list[pathlib.Path]]) -> dict:
    from experiments import sweep_report
    from icdm.files import write_json

    results = sweep_report.results_of(entries, grid.axes, grid.config, directories)
    write_json(grid.workdir / "results.json", results)
    sweep_report.write(grid.workdir, results, grid.config)
    return results


def _written(grid: Grid) -> str:
    return f"results: {grid.workdir / 'results.json'}  report: {grid.workdir / 'report.html'}"


def _sweep(grid: Grid, wide: bool) -> dict:
    import jax

    from experiments import sweep_report
    from experiments.experiment import load_results, run, share_pretraining
    from experiments.grid import points_of

    _keep_programs(grid)
    points = points_of(grid.axes)
    entries, begun, directories = [], [], []
    for point in points:
        runs, anew = grid.runs(point), False
        for one, directory in runs:
            print(f"--- {directory.name}", flush=True)
            if load_results(directory, one) is None:
                share_pretraining(one, directory, begun)
                run(one, directory, wide)
                anew = True
            begun.append((one, directory))
        directories.append([directory for _, directory in runs])
        entries.append(sweep_report.pool(point, directories[-1]))
        if anew or len(entries) == len(points):
            jax.clear_caches()  # the next problem has other shapes, and a process may map only so much memory
            results = _report(grid, entries, directories)
    print(_written(grid))
    return results


if __name__ == "__main__":
    keep_freed_memory()  # before JAX starts its threads
    app.run(main, flags_parser=lambda argv: parse(argv, "experiments.sweep", configs_and_fields))
