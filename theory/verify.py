"""Checks the claims about Q* and attention one by one and writes a ledger of the measurements.

    python -m theory.verify --config=theory/configs/quick.py --workdir=runs/theory [--only=slopes,shift]
    [--strict]

Writes DIR/claims.json (after every claim), DIR/report.html and DIR/figures/CLAIM.{png,pdf}. Claims about trained
transformers first train those that are missing, into DIR/runs. The exit code is 0 if all claims were evaluated,
whatever the verdicts; with --strict it is 1 if one of them does not hold.
"""

import dataclasses
import importlib
import pathlib
import sys
import time

from absl import app, flags, logging

from experiments.flags import define_config, parse
from icdm.errors import UserError, one_line_errors, unknown
from icdm.memory import keep_freed_memory

if __name__ == "__main__":
    define_config()
    flags.DEFINE_string("workdir", "runs/theory", "folder for the ledger, the report and the figures")
    flags.DEFINE_list("only", None, "check only these claims")
    flags.DEFINE_bool("strict", False, "exit with 1 when a claim does not hold")


def main(_) -> None:
    given = flags.FLAGS
    logging.set_verbosity(logging.WARNING)  # the libraries log much
    keep_freed_memory()  # before JAX starts its threads
    with one_line_errors("theory.verify"):
        claims = verify(given.config, pathlib.Path(given.workdir), given.only)
    if given.strict and not all(claim.holds for claim in claims):
        sys.exit(1)


def verify(config, workdir: pathlib.Path, only: list[str] | None = None) -> list:
    """Checks the claims that the config has settings for, in its order; returns them.

    Raises:
      UserError: an unknown claim, settings that a claim cannot use, a folder that cannot be written.
    """
    names = list(config) if only is None else only
    for name in names:
        if name not in config:
            raise unknown("claim", name, config)
    figures = workdir / "figures"
    try:
        figures.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--workdir {workdir}: {error.strerror}; give a folder that can be written") from None

    from theory import ledger, report  # heavy imports wait until there is work

    claims = []
    console = report.console()
    for i, name in enumerate(names, 1):
        if "runs" in config[name]:
            train_missing(config[name], workdir, console)
        with console.status(f"[{i}/{len(names)}] {name}"):
            claim = check(name, config[name], figures)
        claims.append(claim)
        ledger.write(workdir / "claims.json", claims)
        report.write(workdir / "report.html", claims, figures)
        report.print_claim(console, claim, f"{i}/{len(names)}")
    report.print_summary(console, claims, workdir)
    return claims


def train_missing(config, workdir: pathlib.Path, console) -> None:
    """Trains the runs that a claim examines, in WORKDIR/runs unless its settings name another folder."""
    import jax

    from theory.circuits import trained

    config.runs = config.runs or str(workdir / "runs")
    if not jax.config.jax_compilation_cache_dir:  # seeds are runs of the same programs
        jax.config.update("jax_compilation_cache_dir", str(pathlib.Path(config.runs) / "compiled"))
    trained.train_missing(config, console.print)


def check(name: str, config, figures: pathlib.Path):
    """Runs one claim's module and saves its figure; returns the claim with the seconds it took."""
    from icdm import pages

    started = time.perf_counter()
    claim, figure = importlib.import_module(f"theory.claims.{name}").check(config)
    pages.save(figures, name, figure)
    return dataclasses.replace(claim, seconds=round(time.perf_counter() - started, 2))


if __name__ == "__main__":
    app.run(main, flags_parser=lambda argv: parse(argv, "theory.verify"))
