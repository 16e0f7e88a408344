"""Checks the claims about Q* and attention one by one and writes a ledger of the measurements.

    python -m theory.verify --config=theory/configs/quick.py --workdir=runs/theory [--only=slopes,shift]
    [--strict] [--seed=N]

Writes DIR/claims.json (after every claim), DIR/report.html and DIR/figures/CLAIM.{png,pdf}. Claims that DIR holds stay
there, and one whose settings have not changed is not computed again. Claims about trained transformers first train
those that are missing, into DIR/runs. The exit code is 0 if all claims were evaluated, whatever the verdicts; with
--strict it is 1 if one of them does not hold. --seed draws all claims anew, trained transformers excepted.
"""

import dataclasses
import importlib
import pathlib
import sys
import time

from absl import app, flags, logging

from experiments.flags import define_config, parse
from icdm.errors import one_line_errors, unknown
from icdm.memory import check_fits, keep_freed_memory

if __name__ == "__main__":
    define_config()
    flags.declare_key_flag("config")
    flags.DEFINE_string("workdir", "runs/theory", "folder for the ledger, the report and the figures")
    flags.DEFINE_list("only", None, "check only these claims")
    flags.DEFINE_bool("strict", False, "exit with 1 when a claim does not hold")
    flags.DEFINE_integer("seed", None, "of the draws of every claim, instead of those in the config", lower_bound=0)


def main(_) -> None:
    given = flags.FLAGS
    logging.set_verbosity(logging.WARNING)  # the libraries log much
    keep_freed_memory()  # before JAX starts its threads
    with one_line_errors("theory.verify"):
        for group in given.config.values() if given.seed is not None else ():
            group.seed = given.seed
        claims = verify(given.config, pathlib.Path(given.workdir), given.only)
    if given.strict and not all(claim.holds for claim in claims):
        sys.exit(1)


def verify(config, workdir: pathlib.Path, only: list[str] | None = None) -> list:
    """Checks the claims that the config has settings for, in its order; returns them.

    Those that the folder's ledger holds with the same settings are taken from there; its other claims stay in it.

    Raises:
      UserError: an unknown claim, settings that a claim cannot use, a folder that cannot be written or is in use.
    """
    names = list(config) if only is None else only
    for name in names:
        if name not in config:
            raise unknown("claim", name, config)
        check_size(name, config[name])

    from icdm.files import locked

    with locked(workdir):
        return _verify(config, workdir, names)


def _verify(config, workdir: pathlib.Path, names: list[str]) -> list:
    from theory import ledger, report  # heavy imports wait until there is work

    figures = workdir / "figures"
    figures.mkdir(exist_ok=True)
    kept = {claim.id: claim for claim in ledger.read(workdir / "claims.json")}
    console = report.console()
    for i, name in enumerate(names, 1):
        if "runs" in config[name]:
            config[name].runs = config[name].runs or str(workdir / "runs")
        place = f"{i}/{len(names)}"
        if name in kept and ledger.same_settings(kept[name], config[name]) and (figures / f"{name}.png").exists():
            report.print_claim(console, kept[name], f"{place} (as before)")
            continue
        if "runs" in config[name]:
            train_missing(config[name], console)
        with console.status(f"[{place}] {name}"):
            kept[name] = check(name, config[name], figures)
        order = [*config, *sorted(kept.keys() - set(config))]
        claims = [kept[each] for each in order if each in kept]
        ledger.write(workdir / "claims.json", claims)
        drawn = [claim for claim in claims if (figures / f"{claim.id}.png").exists()]
        report.write(workdir / "report.html", drawn, figures)
        report.print_claim(console, kept[name], place)
    report.print_summary(console, [kept[name] for name in names], workdir)
    return [kept[name] for name in names]


CASES = ("prompts", "problems", "processes", "trials", "tasks", "trajectories", "tables")  # each has numbers of its own


def check_size(name: str, config) -> None:
    """Raises UserError if the cases of a claim would not fit the memory.

    Each case has at least one number at each of the claim's lengths, a table of states and actions, and a vector of
    features.
    """
    longest = max((len(value) for value in config.values() if isinstance(value, tuple)), default=1)
    numbers = longest + config.get("states", 0) * config.get("actions", 1) + config.get("dimension", 0)
    for case in CASES:
        check_fits(f"{name}.{case} {config.get(case)}", 8 * config.get(case, 0) * numbers, "lower it")


def train_missing(config, console) -> None:
    """Trains the runs that a claim examines, in the folder that its settings name."""
    from icdm.compiled import keep_programs
    from theory.circuits import trained

    keep_programs(pathlib.Path(config.runs) / "compiled")  # seeds are runs of the same programs
    trained.train_missing(config, console.print)


def check(name: str, config, figures: pathlib.Path):
    """Runs one claim's module and saves its figure; returns the claim with the seconds it took."""
    from icdm import pages
    from icdm.provenance import provenance

    started = time.perf_counter()
    claim, figure = importlib.import_module(f"theory.claims.{name}").check(config)
    pages.save(figures, name, figure)
    seconds = round(time.perf_counter() - started, 2)
    return dataclasses.replace(claim, seconds=seconds, made_with=provenance())


if __name__ == "__main__":
    app.run(main, flags_parser=lambda argv: parse(argv, "theory.verify"))
