"""A made-up hospital: its log, what is learned from it by three commands, and what that is worth in truth.

    python -m benchmarks.hospital --workdir runs/hospital [--stays 2000] [--out results/features/hospital.json]

The patients are those of ICU-Sepsis (extra `clinical`), 20 decisions at most. The log shows 12 measurements of their
state, noisy, rounded and partly missing. There are two such hospitals, which differ in what those who treat go by: the
measurements in the log (`measured`: they take the patient for the state that is nearest), or the state itself
(`known`), of which the log does not tell all. The 25 treatments of ICU-Sepsis, 5 doses of fluids by 5 of vasopressors,
become 8: fluids none, low (the lowest quarter), medium (the two in the middle) or high (the highest), with or without
vasopressors. One of the 8 acts as the clinicians act who give it,

    P(s' | s, c) = sum_{a in c} b(a | s) P(s' | s, a) / sum_{a in c} b(a | s),

b being the clinicians' policy in the state; where they never give it, as all doses of it on average. Whatever a policy
goes by, its value is known. What was trained is kept in the work directory: the same command goes on.
"""

import argparse
import dataclasses
import json
import pathlib
import subprocess
import sys
from typing import Any

import jax
import numpy as np

from benchmarks.worlds import Actor, Knowing, Learned, World, columns, optimum, play, value_of, write_log
from icdm.errors import UserError
from icdm.families.icu_sepsis import AFTER, DEATH, STATES, SURVIVAL, ICUSepsis, icu_arrays
from icdm.files import write_json
from icdm.intervals import mean_interval
from icdm.problems.mdp import make_mdp
from icdm.provenance import provenance
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
LIMITS = {"gcs": (3, 15)}
NOISE = 0.4  # standard deviations of a measurement around that of its state
PLAYED, AT_ONCE = 20_000, 4000  # episodes by which a policy is valued
NUMBERS_OF_STATES = (30, 100, 300, 750)
LABELS = ("pessimistic", "best_return", "imitation")
KEPT = ("episodes", "behavior", "estimates", "effective_sample_size", "mean_weight", "untried", "warnings")


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


@dataclasses.dataclass
class Measuring(Knowing):
    """Takes the state whose typical measurements are nearest, in their standard deviations, for that of the patient."""

    world: World = None

    def chances(self, state_B: np.ndarray, value_BF: np.ndarray) -> np.ndarray:
        typical_SF = np.stack([scale(x) for scale, x in zip(self.world.scale, self.world.mean_SF.T)], -1)
        typical_SF, spread_F = typical_SF[:DEATH], typical_SF[:DEATH].std(0)
        away_BS = np.zeros((len(value_BF), DEATH))
        for value_B, typical_S, spread in zip(value_BF.T, typical_SF.T, spread_F):
            away_BS += np.nan_to_num(((value_B[:, None] - typical_S) / spread) ** 2)  # what is missing says nothing
        return super().chances(away_BS.argmin(1), value_BF)


def clinicians(world: World) -> np.ndarray:
    """Their policy, (1, S, A)."""
    b_SA = ICUSepsis(HORIZON).expert
    return np.stack([b_SA[:, group].sum(1) for group in TREATMENTS.values()], -1)[None]


def _scale(name: str, middle: float, spread: float):
    if name in LOGARITHMIC:
        return lambda x: middle * np.exp(spread * x)
    return lambda x: np.clip(middle + spread * x, *LIMITS.get(name, (0, np.inf)))


def training(workdir: pathlib.Path, world: World, name: str, **fields: Any) -> list[str]:
    """The command that trains on the log."""
    config = ["--config=experiments/configs/log.py", f"--config.data={workdir / 'log.csv'}"]
    config += [f"--config.columns={' '.join(columns(world))}", "--config.context.episodes=0"]
    config += [f"--config.{field.replace('__', '.')}={value}" for field, value in fields.items()]
    return ["experiments.run", *config, f"--workdir={workdir / name}"]


def commands(workdir: pathlib.Path, world: World, labels: str) -> dict[str, list[str]]:
    """The three commands, as README has them."""
    log, directory = str(workdir / "log.csv"), workdir / labels
    return {
        "describe": ["icdm", "describe", log, "--json", "--columns", *columns(world)],
        "train": training(workdir, world, labels, data_labels=labels),
        "decide": ["icdm", "decide", "--run", str(directory), "--json", "--observation", PATIENT],
    }


PATIENT = (
    "gcs=14,heart_rate=118,mean_pressure=58,respiratory_rate=28,wbc=19,platelets=,bicarbonate=17,pao2_fio2=180,"
    "lactate=6.2,creatinine=2.1,bilirubin=,urine=60"
)


def said(command: list[str]) -> str:
    """What a command prints; it is not caught if it fails."""
    return subprocess.run([sys.executable, "-m", *command], check=True, stdout=subprocess.PIPE, text=True).stdout


def survival(world: World, actor: Actor) -> dict[str, Any]:
    """The share of stays that are survived, by playing them."""
    played = [play(world, actor, AT_ONCE, seed) for seed in range(100, 100 + PLAYED // AT_ONCE)]
    mean, ends = mean_interval(np.concatenate([each.returns for each in played]))
    return {"mean": mean, "ci95": ends, "episodes": PLAYED}


def learned(workdir: pathlib.Path, world: World, labels: str) -> dict[str, Any]:
    """What the three commands say, what they lead to in truth, and what is estimated."""
    answers = {name: said(command) for name, command in commands(workdir, world, labels).items()}
    decider = Decider.from_run(workdir / labels)
    return {
        "describe": {name: json.loads(answers["describe"])[name] for name in ("steps", "actions", "features")},
        "decide": json.loads(answers["decide"]),
        "drawn": survival(world, Learned(decider, world.names, draws=True)),
        "best": survival(world, Learned(decider, world.names, draws=False)),
        "estimates": estimates(workdir, world, labels),
    }


def by_states(workdir: pathlib.Path, world: World) -> dict[str, Any]:
    """Survival under what `pessimistic` labels teach that are fitted in so many states, drawing its actions."""
    found = {}
    for n in NUMBERS_OF_STATES:
        said(training(workdir, world, f"states_{n}", features__states=n, fine_tune__steps=300))
        actor = Learned(Decider.from_run(workdir / f"states_{n}"), world.names, draws=True)
        found[str(n)] = survival(world, actor)
    return found


def estimates(workdir: pathlib.Path, world: World, labels: str) -> dict[str, Any]:
    """What `icdm ope` says of the run from another log, with the probabilities of its treatments and without."""
    found = {}
    for name, named in (("recorded", [*columns(world), "behavior_probability=pscore"]), ("estimated", columns(world))):
        log = workdir / ("next_year.csv" if name == "recorded" else "next_year_without.csv")
        try:
            all_of_it = ope(log, str(workdir / labels), columns=tuple(named))
            found[name] = {key: all_of_it[key] for key in KEPT}
        except UserError as error:
            found[name] = {"refused": str(error).replace(f"{workdir}/", "")}
    return found


def measured(workdir: pathlib.Path, world: World, treating: Knowing, stays: int, next_stays: int) -> dict[str, Any]:
    """All of it in one hospital."""
    workdir.mkdir(parents=True, exist_ok=True)
    write_log(workdir / "log.csv", world, play(world, treating, stays, 0))
    next_year = play(world, treating, next_stays, 1)
    write_log(workdir / "next_year.csv", world, next_year, with_probabilities=True)
    write_log(workdir / "next_year_without.csv", world, next_year)
    n = len(world.actions)
    return {
        "clinicians": survival(world, treating),
        "uniform": value_of(world, np.full((1, STATES, n), 1 / n)),
        "optimum": optimum(world),
        "learned": {labels: learned(workdir, world, labels) for labels in LABELS},
        "states": by_states(workdir, world),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workdir", type=pathlib.Path, required=True)
    parser.add_argument("--stays", type=int, default=2000, help="of the log that is learned from (%(default)s)")
    parser.add_argument("--next-stays", type=int, default=5000, help="of the log of the next year (%(default)s)")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("results/features/hospital.json"))
    arguments = parser.parse_args()
    sizes = {"stays": arguments.stays, "next_stays": arguments.next_stays}
    world, content = hospital(), dict(sizes)
    b_TSA = clinicians(world)
    for name, treating in (("measured", Measuring(b_TSA, world=world)), ("known", Knowing(b_TSA))):
        content[name] = measured(arguments.workdir / name, world, treating, **sizes)
        write_json(arguments.out, content | {"made_with": provenance()})


if __name__ == "__main__":
    main()
