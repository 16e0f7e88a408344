"""Runs one experiment.

    python -m experiments.run --config=experiments/configs/demo.py --workdir=runs/demo [--config.horizon=10 ...]

It pretrains, fine-tunes, evaluates and reports. A run may be stopped at any moment: the same command goes on from
the last checkpoint and ends with the same numbers.
"""

import pathlib

from absl import app, flags

from experiments.flags import configs_and_fields, define_cache, define_config, parse
from icdm.errors import UserError, one_line_errors
from icdm.memory import keep_freed_memory
from icdm.processes import AUTO, OFF, joined

if __name__ == "__main__":
    define_config()
    define_cache()
    for name in ("config", "compile_cache"):
        flags.declare_key_flag(name)
    flags.DEFINE_string("workdir", None, "directory of the run: config, metrics, checkpoints, results and report")
    flags.DEFINE_bool("wide", False, "print every column of the table, however wide it gets")
    flags.DEFINE_list(
        "profile_steps", None, "FIRST,END: trace these steps of each phase into WORKDIR/trace, for Perfetto and xprof"
    )
    flags.DEFINE_enum("distributed", AUTO, [AUTO, OFF], "work with the other processes that the environment names")


def main(_: list[str]) -> None:
    with one_line_errors("experiments.run"):
        if not flags.FLAGS.workdir:
            raise UserError("name a directory for the run: --workdir=runs/NAME")
        traced = steps_of(flags.FLAGS.profile_steps)
        if flags.FLAGS.compile_cache:
            from icdm.compiled import keep_programs  # JAX is imported only when there is work

            keep_programs()
        with joined(flags.FLAGS.distributed, "experiments.run"):
            from experiments.experiment import run

            run(flags.FLAGS.config, pathlib.Path(flags.FLAGS.workdir), flags.FLAGS.wide, traced)


def steps_of(given: list[str] | None) -> tuple[int, int] | None:
    """The two numbers of --profile_steps.

    Raises:
      UserError: they are none, or there are no steps between them.
    """
    if given is None:
        return None
    if len(given) != 2 or not all(x.isdecimal() for x in given) or int(given[0]) >= int(given[1]):
        raise UserError(f"--profile_steps={','.join(given)}: give the first step and the one after the last, as 10,13")
    return int(given[0]), int(given[1])


if __name__ == "__main__":
    keep_freed_memory()  # before JAX starts its threads
    app.run(main, flags_parser=lambda argv: parse(argv, "experiments.run", configs_and_fields))
