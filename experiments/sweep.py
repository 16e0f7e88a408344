"""Runs an experiment for several values of a field and several seeds, and writes one combined report.

    python -m experiments.sweep --config=experiments/configs/energy.py --workdir=runs/horizons \\
        --sweep config.horizon=5,10,15 --seeds=3

Several --sweep flags make a grid. A config may bring a grid of its own, of problems and horizons:

    python -m experiments.sweep --config=experiments/configs/paper_sweep.py --workdir=runs/paper --seeds=3

Stopped at any moment, the same command goes on where it was.
"""

import copy
import itertools
import json
import pathlib
import sys

from absl import app, flags

from experiments.flags import define_config, fields_of, parse
from experiments.run import STOPPED
from icdm.errors import UserError, one_line_errors, unknown
from icdm.memory import keep_freed_memory

if __name__ == "__main__":
    define_config()
    flags.declare_key_flag("config")
    flags.DEFINE_string("workdir", None, "directory of the sweep; each run gets one inside it")
    flags.DEFINE_multi_string("sweep", [], "config.FIELD=VALUE,VALUE,...; may be given several times")
    flags.DEFINE_integer("seeds", 1, "how many seeds, from config.seed on")


def main(_) -> None:
    with one_line_errors("experiments.sweep"):
        if not flags.FLAGS.workdir:
            raise UserError("name a directory for the sweep: --workdir=runs/NAME")
        if flags.FLAGS.seeds < 1:
            raise UserError(f"seeds {flags.FLAGS.seeds}: give at least 1")
        config = flags.FLAGS.config
        own = [(axis, list(config.sweep[axis])) for axis in ("problem", "horizon")] if "sweep" in config else []
        axes = own + [parse_axis(config, text) for text in flags.FLAGS.sweep]
        keep_freed_memory()  # before JAX starts its threads
        from icdm.learning.train import Stopped

        try:
            sweep(config, pathlib.Path(flags.FLAGS.workdir), axes, flags.FLAGS.seeds)
        except Stopped as stopped:
            print(f"{stopped}: the same command goes on from there")
            sys.exit(STOPPED)


def parse_axis(config, text: str) -> tuple[str, list]:
    """'config.horizon=5,10' -> ("horizon", [5, 10]), the values in the type of the field.

    Raises:
      UserError: text of another form, an unknown field, a value of another type.
    """
    name, equals, values = text.partition("=")
    field = name.removeprefix("config.")
    if not equals or not values:
        raise UserError(f"--sweep {text!r}: write config.FIELD=VALUE,VALUE,...")
    fields = fields_of(config)
    if field not in fields:
        raise unknown("config field", field, fields)
    return field, [_typed(field, fields[field], value) for value in values.split(",")]


def _typed(field, default, text):
    try:
        value = text if isinstance(default, str) else json.loads(text.lower())
    except json.JSONDecodeError:
        value = text
    if isinstance(default, float) and isinstance(value, int):
        value = float(value)
    if type(value) is not type(default):
        raise UserError(f"--sweep {field}={text}: give values of type {type(default).__name__}")
    return value


def sweep(config, workdir: pathlib.Path, axes: list[tuple[str, list]], n_seeds: int) -> dict:
    """Runs the grid, seeds innermost; returns what the sweep's results.json holds.

    Results and report are written anew after every problem that was run, and at the end.
    """
    import jax

    from experiments import sweep_report
    from experiments.experiment import load_results, run, share_pretraining, write_json

    # Runs compile much the same programs, most of them small.
    jax.config.update("jax_compilation_cache_dir", str(workdir.absolute() / "compiled"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    names = [name for name, _ in axes]
    points = [dict(zip(names, values)) for values in itertools.product(*(values for _, values in axes))]
    entries, begun = [], []
    for point in points:
        runs, anew = [], False
        for seed in range(config.seed, config.seed + n_seeds):
            one = config_at(config, point | {"seed": seed})
            label = ",".join(f"{name}={value}" for name, value in (point | {"seed": seed}).items())
            print(f"--- {label}", flush=True)
            directory = workdir / label.replace(":", "-")
            if load_results(directory, one) is None:
                share_pretraining(one, directory, begun)
                run(one, directory)
                anew = True
            runs.append(directory)
            begun.append((one, directory))
        entries.append(sweep_report.pool(point, runs))
        if anew or len(entries) == len(points):
            jax.clear_caches()  # the next problem has other shapes, and a process may map only so much memory
            results = {"sweep": dict(axes), "trends": sweep_report.trends(entries), "runs": entries}
            write_json(workdir / "results.json", results)
            sweep_report.write(workdir, results, config)
    print(f"results: {workdir / 'results.json'}  report: {workdir / 'report.html'}")
    return results


def config_at(config, point: dict):
    """The config of one run: fields set as the point says; `problem` may name a family with its parameters."""
    from icdm.problems.family import parse_parameters

    one, fields = copy.deepcopy(config), dict(point)
    with one.unlocked():
        if "sweep" in one:
            del one.sweep
            one.family, one.problem = parse_parameters(fields.pop("problem"))
        one.update_from_flattened_dict(fields)
    return one


if __name__ == "__main__":
    app.run(main, flags_parser=lambda argv: parse(argv, "experiments.sweep"))
