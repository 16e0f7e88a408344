"""A made-up hospital: its log, what is learned from it by three commands, and what that is worth in truth.

    python -m benchmarks.hospital --workdir runs/hospital [--stays 2000] [--out results/features/hospital.json]

The patients are those of ICU-Sepsis (extra `clinical`), 20 decisions at most. Who treats them knows their state; the
log shows 12 measurements of it, noisy, rounded and partly missing. The 25 treatments of ICU-Sepsis, 5 doses of fluids
by 5 of vasopressors, become 8: fluids none, low (the lowest quarter), medium (the two in the middle) or high (the
highest), with or without vasopressors. One of the 8 acts as the clinicians act who give it,

    P(s' | s, c) = sum_{a in c} b(a | s) P(s' | s, a) / sum_{a in c} b(a | s),

b being their policy; where they never give it, as all doses of it on average. So the log's own policy keeps its value,
and that of any other is known. What was trained is kept in the work directory: the same command goes on.
"""

import argparse
import json
import pathlib
import subprocess
import sys
from typing import Any

import jax
import numpy as np

from benchmarks.worlds import Knowing, Learned, World, columns, optimum, play, value_of, write_log
from icdm.errors import UserError
from icdm.families.icu_sepsis import AFTER, DEATH, STATES, SURVIVAL, ICUSepsis, icu_arrays
from icdm.files import write_json
from icdm.intervals import mean_interval
from icdm.problems.mdp import make_mdp
from icdm.runs.decider import Decider
from icdm.runs.ope import ope

HORIZON = 20
FLUIDS = {"none": (0,), "low": (1,), "medium": (2, 3), "high": (4,)}  # of the five doses
PRESSORS = {"": (0,), "+vasopressor": (1, 2, 3, 4)}
TREATMENTS = {f + p: [5 * i + j for i in FLUIDS[f] for j in PRESSORS[p]] for f in FLUIDS for p in PRESSORS}
# The place of each measurement among the 47 of a state's centre, where it is in standard deviations; a typical value
# and the standard deviation (of some the logarithm's); how often it is missing. Units and scales are made up.
MEASURED = {
    "gcs": (6, 12.0, 3.0, 0.05),
    "heart_rate": (7, 87.0, 18.0, 0.03),
    "mean_pressure": (9, 78.0, 15.0, 0.03),
    "respiratory_rate": (11, 20.0, 5.0, 0.05),
    "wbc": (21, 12.0, 6.0, 0.3),
    "platelets": (22, 210.0, 100.0, 0.3),
    "bicarbonate": (29, 24.0, 5.0, 0.3),
    "pao2_fio2": (34, 250.0, 110.0, 0.4),
    "lactate": (30, 2.0, 1.2, 0.4),
    "creatinine": (38, 1.2, 0.6, 0.3),
    "bilirubin": (41, 1.0, 0.8, 0.5),
    "urine": (46, 300.0, 0.9, 0.1),
}
LOGARITHMIC = ("creatinine", "bilirubin", "urine")
NOISE = 0.4  # standard deviations of a measurement around that of its state
PLAYED, AT_ONCE = 20_000, 4000  # episodes by which a learned policy is valued


def hospital() -> World:
    """The made-up hospital."""
    arrays, family = icu_arrays(), ICUSepsis(HORIZON)
    b_SA, transition_SAS = family.expert, arrays["tx_mat"]
    lumped = []
    for group in TREATMENTS.values():
        weight_SA = np.where(b_SA[:, group].sum(1, keepdims=True) > 0, b_SA[:, group], 1.0)
        weight_SA = weight_SA / weight_SA.sum(1, keepdims=True)
        lumped.append(np.einsum("sa,sax->sx", weight_SA, transition_SAS[:, group]))
    mdp = make_mdp(
        transition=np.stack(lumped),
        reward=np.zeros((STATES, len(TREATMENTS))),
        arrival_reward=np.arange(STATES) == SURVIVAL,
        initial=arrays["d_0"],
        terminal=np.isin(np.arange(STATES), [DEATH, SURVIVAL, AFTER]),
        discount=1.0,
        horizon=HORIZON,
    )
    place = [place for place, *_ in MEASURED.values()]
    return World(
        mdp=jax.tree.map(lambda x: np.asarray(x)[None], mdp),
        actions=tuple(TREATMENTS),
        names=tuple(MEASURED),
        mean_SF=arrays["state_cluster_centers"][:, place],
        noise_F=np.full(len(place), NOISE),
        scale=tuple(_scale(name, middle, spread) for name, (_, middle, spread, _) in MEASURED.items()),
        missing_F=np.array([missing for *_, missing in MEASURED.values()]),
    )


def clinicians(world: World) -> np.ndarray:
    """The policy of who acts in the log, (1, S, A)."""
    b_SA = ICUSepsis(HORIZON).expert
    return np.stack([b_SA[:, group].sum(1) for group in TREATMENTS.values()], -1)[None]


def _scale(name: str, middle: float, spread: float):
    if name in LOGARITHMIC:
        return lambda x: middle * np.exp(spread * x)
    return lambda x: np.maximum(middle + spread * x, 0)


def commands(workdir: pathlib.Path, world: World) -> dict[str, list[str]]:
    """The three commands, as README has them."""
    log, named = str(workdir / "log.csv"), columns(world)
    config = ["--config=experiments/configs/log.py", f"--config.data={log}", f"--config.columns={' '.join(named)}"]
    return {
        "describe": ["icdm", "describe", log, "--json", "--columns", *named],
        "train": ["experiments.run", *config, f"--workdir={workdir / 'run'}", "--config.context.episodes=0"],
        "decide": ["icdm", "decide", "--run", str(workdir / "run"), "--json", "--observation", PATIENT],
    }


PATIENT = (
    "gcs=14,heart_rate=118,mean_pressure=58,respiratory_rate=28,wbc=19,platelets=,bicarbonate=17,pao2_fio2=180,"
    "lactate=6.2,creatinine=2.1,bilirubin=,urine=60"
)


def said(command: list[str]) -> str:
    """What a command prints; it is not caught if it fails."""
    return subprocess.run([sys.executable, "-m", *command], check=True, capture_output=True, text=True).stdout


def truths(world: World, decider: Decider) -> dict[str, Any]:
    """Survival under policies that know the state, exactly, and under the one that was learned, by playing it."""
    n = len(world.actions)
    found = {
        "clinicians": value_of(world, clinicians(world)),
        "uniform": value_of(world, np.full((1, STATES, n), 1 / n)),
        "optimum": optimum(world),
    }
    for name, draws in (("learned", True), ("learned_best", False)):
        actor = Learned(decider, world.names, draws)
        played = [play(world, actor, AT_ONCE, seed) for seed in range(100, 100 + PLAYED // AT_ONCE)]
        mean, ends = mean_interval(np.concatenate([each.returns for each in played]))
        found[name] = {"mean": mean, "ci95": ends, "episodes": PLAYED}
    return found


def estimates(workdir: pathlib.Path, world: World) -> dict[str, Any]:
    """What `icdm ope` says of the run from another log, with the probabilities of its treatments and without."""
    found = {}
    for name, named in (("recorded", [*columns(world), "behavior_probability=pscore"]), ("estimated", columns(world))):
        log = workdir / ("next_year.csv" if name == "recorded" else "next_year_without.csv")
        try:
            found[name] = ope(log, str(workdir / "run"), columns=tuple(named))
        except UserError as error:
            found[name] = {"refused": str(error).replace(f"{workdir}/", "")}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workdir", type=pathlib.Path, required=True)
    parser.add_argument("--stays", type=int, default=2000, help="of the log that is learned from (%(default)s)")
    parser.add_argument("--next-stays", type=int, default=5000, help="of the log of the next year (%(default)s)")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("results/features/hospital.json"))
    arguments = parser.parse_args()
    workdir, world = arguments.workdir, hospital()
    workdir.mkdir(parents=True, exist_ok=True)
    knowing = Knowing(clinicians(world))
    write_log(workdir / "log.csv", world, play(world, knowing, arguments.stays, 0))
    next_year = play(world, knowing, arguments.next_stays, 1)
    write_log(workdir / "next_year.csv", world, next_year, with_probabilities=True)
    write_log(workdir / "next_year_without.csv", world, next_year)
    answers = {name: said(command) for name, command in commands(workdir, world).items()}
    content = {
        "stays": arguments.stays,
        "next_stays": arguments.next_stays,
        "describe": {name: json.loads(answers["describe"])[name] for name in ("steps", "actions", "features")},
        "decide": json.loads(answers["decide"]),
        "truth": truths(world, Decider.from_run(workdir / "run")),
        "estimates": estimates(workdir, world),
    }
    write_json(arguments.out, content)
    print(json.dumps(content["truth"], indent=2), json.dumps(content["estimates"], indent=2))


if __name__ == "__main__":
    main()
