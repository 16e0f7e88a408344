"""Measures a finished run again, without training: on more tasks, another seed, other contexts or another problem.

    python -m experiments.evaluate runs/language out_of_range problem.lowest=0.3 problem.highest=0.5
    python -m experiments.evaluate runs/demo many evaluation.tasks=1000 seed=7
    python -m experiments.evaluate runs/tabular energy family=energy horizon=5 context.behavior=oracle

A model of a mixture of families (the config tabular) is measured in any family whose sizes its vocabulary has. So is a
model of the package, by its name; there --out says where to write:

    python -m experiments.evaluate tabular energy family=energy horizon=5 --out runs/tabular_evaluations

Writes evaluations/NAME/ inside the run, or NAME/ inside OUT: config.json, results.json, values.npz and report.html. The
run's own results stay. A stopped evaluation goes on with the same command.
"""

import argparse
import pathlib
import time

from experiments.grid import typed
from icdm.errors import UserError, one_line_errors, unknown
from icdm.memory import keep_freed_memory

CHANGEABLE = (  # what training is done without
    "evaluation",
    "context",
    "family",
    "horizon",
    "problem",
    "test_oracle",
    "seed",
    "policies",
)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m experiments.evaluate", description=__doc__.split("\n")[0])
    parser.add_argument("run", help="directory of a finished run or an exported model, or tabular")
    parser.add_argument("name", help="of the evaluation: a directory inside OUT")
    parser.add_argument("--out", metavar="DIR", help="where evaluations are written (RUN/evaluations)")
    parser.add_argument("--wide", action="store_true", help="print every column of the table, however wide it gets")
    parser.add_argument("changes", nargs="*", metavar="FIELD=VALUE", help=f"of {', '.join(CHANGEABLE)}")
    arguments = parser.parse_intermixed_args()  # fields before or after the flags
    with one_line_errors("experiments.evaluate"):
        out = arguments.out and pathlib.Path(arguments.out)
        evaluate(pathlib.Path(arguments.run), arguments.name, arguments.changes, arguments.wide, out)


def evaluate(
    directory: pathlib.Path, name: str, changes: list[str], wide: bool = False, out: pathlib.Path | None = None
) -> dict:
    """What results.json of the evaluation holds.

    Args:
      directory: of a run or an exported model, or the name of a model of the package.
      out: where evaluations are written, if not inside the run.
      wide: prints every column of the table, however wide it gets.

    Raises:
      UserError: not a finished run, a field that only training can change, another vocabulary, data that have changed.
      Stopped: SIGTERM or SIGINT asked it to stop; what has been measured is kept.
    """
    from experiments import report  # JAX is imported only when there is work
    from icdm.evaluation.table import print_results
    from icdm.files import locked, write_arrays, write_json
    from icdm.runs.data import check_unchanged, open_data
    from icdm.runs.monitor import StopRequest, outlive_readers
    from icdm.runs.pretrained import of_package
    from icdm.runs.run import Run, results_of
    from icdm.runs.sizes import check_sizes
    from icdm.sharding import make_mesh

    if name in ("", ".", "..") or pathlib.PurePath(name).name != name:
        raise UserError(f"evaluation {name!r}: give a plain name")
    packaged = of_package(directory)
    if packaged and not out:
        raise UserError(f"{directory} belongs to the package: say with --out where to write")
    run = Run.open(packaged or directory)
    config = run.config
    for change in changes:
        config = changed(config, change)
    own = Run.prepared((out or directory / "evaluations") / name, config)
    if own.layout != run.layout and not own.settings.mixture:
        raise UserError("the changed problem is written with another vocabulary: train a run of its own")
    check_sizes(own.settings)
    check_unchanged(run)
    models = {model: run.model(model) for model in run.measured}
    outlive_readers()
    with locked(own.directory):
        data = open_data(own, make_mesh(own.settings.mesh_model))
        Run.claim(own.directory, config)
        started = time.perf_counter()
        found, arrays = data.evaluate(models, StopRequest())
        results = results_of(config, found, {"evaluate": time.perf_counter() - started})
        write_arrays(own.directory / "values.npz", arrays)
        write_json(own.directory / "results.json", results)
        title = f"{directory.name}: {name}"
        print_results(results, {}, title, wide)
        report.write(own.directory, results, config, title)
    print(f"results: {own.directory / 'results.json'}  report: {own.directory / 'report.html'}")
    return results


def changed(config: dict, change: str) -> dict:
    """The config with one field set, as `evaluation.tasks=500` says; another family has the parameters of its own."""
    field, equals, value = change.partition("=")
    group, _, inner = field.partition(".")
    known = config.get(group)
    if not equals or group not in CHANGEABLE or known is None or (inner and not isinstance(known, dict)):
        raise UserError(f"{change!r}: write FIELD=VALUE with a field of {', '.join(CHANGEABLE)}; others need training")
    if not inner:
        return config | {group: typed(field, known, value)} | ({"problem": {}} if group == "family" else {})
    if group != "problem" and inner not in known:
        raise unknown(f"field of {group}", inner, known)
    return config | {group: known | {inner: typed(field, known.get(inner), value)}}


if __name__ == "__main__":
    keep_freed_memory()  # before JAX starts its threads
    main()
