"""Ways to read several features, on problems of known truth that are seen through them.

    python -m benchmarks.encodings --workdir runs/encodings
    python -m benchmarks.encodings --workdir runs/tokens --encodings tokens --out results/features/tokens.json

From the same log, with the same labels and in as many updates, a model learns that reads each number in pieces that are
linear between 24 quantiles, one that reads a linear map of it, one that reads the states of k-means, and one that reads
for each number a token that says between which quantiles it lies. The worlds are random MDPs (10 states, 4 actions, 10
decisions; the log acts at random), of which 8 numbers are shown, half of them skewed, and the hospital of
`benchmarks.hospital` with all 47 numbers of ICU-Sepsis. The gap is that of the best actions, in truth, to the optimum
of who knows the state, over that of random actions. Every encoding is played with the same random numbers, so that
differences are those of pairs of episodes. What was measured is kept: the same command goes on.
"""

import argparse
import dataclasses
import json
import pathlib
import time
from typing import Any

import jax
import numpy as np

from benchmarks.hospital import NOISE, clinicians, hospital
from benchmarks.worlds import Knowing, Learned, World, columns, optimum, play, value_of, write_log
from experiments.configs import log as log_config
from experiments.experiment import run
from icdm.families.icu_sepsis import icu_arrays
from icdm.files import write_json
from icdm.intervals import mean_interval
from icdm.learning.train import fresh_state, make_update
from icdm.models.placement import place_state
from icdm.problems.family import make_family
from icdm.provenance import provenance
from icdm.runs.data import open_data
from icdm.runs.decider import Decider
from icdm.runs.phases import fine_tuning
from icdm.runs.run import Run
from icdm.sharding import make_mesh
from icdm.trajectories.collect import draw_problems

ENCODINGS = {  # layout, and edges of a feature
    "pieces": ("transition", 24),
    "linear": ("transition", 2),
    "states": ("transition", 0),
    "tokens": ("interleaved", 24),
}
SIZES = dict(states=10, actions=4, horizon=10)
FEATURES, NOISE_OF_RANDOM, MISSING = 8, 0.5, 0.1
AT_ONCE = 500
TIMED = 5  # updates


@dataclasses.dataclass(frozen=True)
class Amounts:
    """How much of everything there is in a world.

    Attributes:
      episodes: of the log.
      states: of k-means, at most.
      steps, batch: updates, and rows of each.
      played: episodes by which what was learned is valued.
    """

    episodes: int
    states: int
    steps: int
    batch: int
    played: int


RANDOM = Amounts(episodes=1000, states=SIZES["states"], steps=600, batch=64, played=10_000)
HOSPITAL = Amounts(episodes=2000, states=300, steps=600, batch=64, played=10_000)
SHORT = dataclasses.replace(HOSPITAL, steps=100, batch=16, played=2000)  # with tokens, 1,029 of them in a stay


def random_world(seed: int) -> World:
    """A random MDP; half of its features are exponentials."""
    with jax.enable_x64(True):
        mdp = draw_problems(make_family("random_mdp", **SIZES), jax.random.key(seed), 1)
    rng = np.random.default_rng(seed)
    return World(
        mdp=jax.tree.map(np.asarray, mdp),
        actions=tuple(f"a{i}" for i in range(SIZES["actions"])),
        names=tuple(f"x{i}" for i in range(FEATURES)),
        mean_SF=rng.normal(size=(SIZES["states"], FEATURES)),
        noise_F=np.full(FEATURES, NOISE_OF_RANDOM),
        scale=tuple((lambda x: np.exp(2 * x)) if i % 2 else (lambda x: x) for i in range(FEATURES)),
        missing_F=np.full(FEATURES, MISSING),
        digits=4,
    )


def whole_hospital() -> World:
    """The hospital with all numbers of its patients' states, a tenth of them missing."""
    mean_SF = icu_arrays()["state_cluster_centers"]
    n = mean_SF.shape[1]
    return dataclasses.replace(
        hospital(),
        names=tuple(f"x{i}" for i in range(n)),
        mean_SF=mean_SF,
        noise_F=np.full(n, NOISE),
        scale=(lambda x: x,) * n,
        missing_F=np.full(n, MISSING),
    )


def measured(workdir: pathlib.Path, world: World, log: pathlib.Path, name: str, amounts: Amounts, seed: int) -> dict:
    """Value and cost of what is learned from a log by one encoding."""
    config = log_config.get_config()
    config.seed, config.data, config.columns = seed, str(log), " ".join(columns(world))
    config.context.episodes = 0
    config.layout, edges = ENCODINGS[name]
    config.features.update(edges=edges, states=amounts.states)
    config.fine_tune.update(steps=amounts.steps, batch=amounts.batch)
    began = time.process_time()
    results = run(config, workdir)
    seconds = time.process_time() - began
    decider = Decider.from_run(workdir)
    actor = Learned(decider, world.names, draws=False)
    seeds = range(10**6 * (seed + 1), 10**6 * (seed + 1) + amounts.played // AT_ONCE)  # the same for every encoding
    returns = np.concatenate([play(world, actor, AT_ONCE, each).returns for each in seeds])
    value, ends = mean_interval(returns)
    return {
        "value": {"mean": value, "ci95": ends},
        "returns": returns.tolist(),
        "numbers": decider.run.layout.numbers,
        "positions": decider.run.settings.positions(decider.run.family, 0),
        "cpu_seconds": seconds,
        "seconds_per_update": update_seconds(decider.run),
        "test_cross_entropy": results["test_cross_entropy"]["mean"],
    }


def update_seconds(trained: Run) -> float:
    """Processor time of one update, the median of TIMED."""
    mesh = make_mesh(1)
    phase = fine_tuning(trained, open_data(trained, mesh), mesh)
    update = make_update(phase.loss(trained.layout, mesh), phase.config.optimizer())
    state, seconds = place_state(mesh, fresh_state(trained.model(), phase.config, phase.key)), []
    for step in range(TIMED + 1):
        began = time.process_time()
        state, _ = jax.block_until_ready(update(state, None, phase.source.batch(step)))
        seconds.append(time.process_time() - began)
    return float(np.median(seconds[1:]))  # the first is compiled


def compared(
    workdir: pathlib.Path, world: World, behavior_TSA: np.ndarray, amounts: Amounts, names: list[str], seed: int
) -> dict:
    """These encodings in one world, `pieces` among them; what was measured before is read."""
    workdir.mkdir(parents=True, exist_ok=True)
    log = workdir / "log.csv"
    if not log.exists():
        write_log(log, world, play(world, Knowing(behavior_TSA), amounts.episodes, seed))
    best, random = optimum(world), value_of(world, np.full_like(behavior_TSA, 1 / behavior_TSA.shape[-1]))
    found: dict[str, Any] = {"optimum": best, "random": random, "behavior": value_of(world, behavior_TSA)}
    returns = {}
    for name in names:
        kept = workdir / f"{name}.json"
        if not kept.exists():
            write_json(kept, measured(workdir / name, world, log, name, amounts, seed))
        found[name] = json.loads(kept.read_text())
        returns[name] = np.array(found[name].pop("returns"))
        own = {"normalized_gap": best - returns[name], "gap_less_that_of_pieces": returns["pieces"] - returns[name]}
        for key, values in own.items():
            mean, ends = mean_interval(values / (best - random))
            found[name][key] = {"mean": mean, "ci95": ends}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workdir", type=pathlib.Path, required=True)
    parser.add_argument("--seeds", type=int, default=3, help="random MDPs (%(default)s)")
    parser.add_argument("--encodings", nargs="+", choices=ENCODINGS, default=[*ENCODINGS][:3], help="%(default)s")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("results/features/encodings.json"))
    arguments = parser.parse_args()
    names = [*dict.fromkeys(["pieces", *arguments.encodings])]
    stays = SHORT if "tokens" in names else HOSPITAL
    amounts = {"random_mdp": dataclasses.asdict(RANDOM), "hospital": dataclasses.asdict(stays)}
    content: dict[str, Any] = {"encodings": ENCODINGS, "amounts": amounts, "worlds": {}, "made_with": provenance()}
    uniform = np.full((1, SIZES["states"], SIZES["actions"]), 1 / SIZES["actions"])
    for seed in range(arguments.seeds):
        name = f"random_mdp_{seed}"
        content["worlds"][name] = compared(arguments.workdir / name, random_world(seed), uniform, RANDOM, names, seed)
        write_json(arguments.out, content)
    world = whole_hospital()
    content["worlds"]["hospital"] = compared(arguments.workdir / "hospital", world, clinicians(world), stays, names, 0)
    write_json(arguments.out, content)
    print(json.dumps(content, indent=2))


if __name__ == "__main__":
    main()
