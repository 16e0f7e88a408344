"""How near off-policy estimates come to the truth, and how often their intervals hold it.

    python -m benchmarks.off_policy [--minutes 15] [--episodes 250 2500 20000] [--out results.json]

Logs of ICU-Sepsis (extra `clinical`; the clinicians' policy, 20 decisions) and of random MDPs, a new one for each log,
have 250 to 20,000 episodes. Five policies are valued from each, pi_k(a|s) ~ b(a|s) exp(k Q_0(s, a)), where Q is the
optimum: their truth is exact. Estimates whose effective sample size is below the one that `icdm ope` refuses are
counted and left out; the errors of those of whose mean weight `icdm ope` does not warn are given beside. Each size and
kind of log has the same time, small logs first. What the file has of other sizes stays.

Axis letters as in docs/axes.md; W counts the five policies.
"""

import argparse
import functools
import json
import pathlib
import time
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from icdm.evaluation.off_policy import (
    LoggedEpisodes,
    cumulative_ratios,
    estimated_behavior,
    off_policy_values,
    weights_err,
)
from icdm.families.icu_sepsis import nominal_mdp
from icdm.files import write_json
from icdm.intervals import share_interval
from icdm.oracles.backward_induction import plan, policy_value
from icdm.problems.family import make_family
from icdm.problems.policy import MarkovPolicy
from icdm.provenance import provenance
from icdm.runs.ope import ESTIMATES, LEAST_SAMPLE
from icdm.trajectories.collect import draw_problems, to_float32
from icdm.trajectories.rollout import rollout

SIZES = (250, 2500, 20_000)
PROBLEMS = {"random_mdp": dict(states=10, actions=4, horizon=10), "icu_sepsis": dict(horizon=20)}
STRENGTHS = {"random_mdp": (-1.0, 0.5, 1.0, 2.0, 4.0), "icu_sepsis": (-25.0, 12.5, 25.0, 50.0, 100.0)}  # k


class Case(NamedTuple):
    """A problem (N = 1), the policy that acted in it, the policies to be valued, and their values."""

    problem: object
    behavior_SA: np.ndarray
    target_WSA: np.ndarray
    truth_W: np.ndarray


@functools.cache
def case_of(name: str, seed: int) -> Case:
    with jax.enable_x64(True):
        family = make_family(name, **PROBLEMS[name])
        if name == "random_mdp":
            problem = draw_problems(family, jax.random.key(seed), 1)
            behavior_SA = np.full((family.n_states, family.n_actions), 1 / family.n_actions)
        else:
            problem = jax.tree.map(lambda x: jnp.asarray(x)[None], nominal_mdp(family.horizon))
            behavior_SA = family.expert
        q_SA = np.asarray(plan(problem))[0, 0]
        tilt_WSA = np.array(STRENGTHS[name])[:, None, None] * (q_SA - q_SA.mean(-1, keepdims=True))
        target_WSA = behavior_SA * np.exp(tilt_WSA - tilt_WSA.max(-1, keepdims=True))
        target_WSA /= target_WSA.sum(-1, keepdims=True)
        truth_W = np.array([float(policy_value(problem, pi_SA[None, None])[0]) for pi_SA in target_WSA])
    return Case(problem, behavior_SA, target_WSA, truth_W)


def log_of(case: Case, n: int, seed: int, recorded: bool) -> LoggedEpisodes:
    """Episodes of the behaviour, with its probabilities or with those that they show."""
    policy = MarkovPolicy(jnp.asarray(case.behavior_SA, jnp.float32)[None, None])
    found = _play(to_float32(case.problem), jnp.zeros(n, jnp.int32), policy, jax.random.key(seed))
    columns = (found.observation, found.action, found.reward, found.valid)
    observation, action, reward, valid = map(np.asarray, columns)
    sizes = case.behavior_SA.shape
    chance_SA = case.behavior_SA if recorded else estimated_behavior(observation, action, valid, *sizes)
    behavior = np.where(valid, chance_SA[observation[:, :-1], action], 1.0)
    return LoggedEpisodes(observation, action, reward.astype(np.float64), valid, behavior, *sizes)


_play = jax.jit(rollout)


def spearman(a_W: np.ndarray, b_W: np.ndarray) -> float:
    """Rank correlation; 0 if one of them is constant."""
    ranks = [np.argsort(np.argsort(x)) for x in (a_W, b_W)]
    return float(np.corrcoef(*ranks)[0, 1]) if np.ptp(a_W) and np.ptp(b_W) else 0.0


def measure(case: Case, log: LoggedEpisodes) -> dict:
    """What is found of the five policies: {"ess", "warned": (W,), estimate: {"mean", "low", "high": (W,)}}."""
    state_ET = np.minimum(log.observation[:, :-1], log.n_observations - 1)
    values = [off_policy_values(log, pi_SA[state_ET], pi_SA[None]) for pi_SA in case.target_WSA]
    weight_WE = [cumulative_ratios(log, pi_SA[state_ET])[:, -1] for pi_SA in case.target_WSA]
    found = {
        "ess": np.array([each["dr"]["effective_sample_size"] for each in values]),
        "warned": np.array([weights_err(weight_E) for weight_E in weight_WE]),
    }
    for name in ESTIMATES:
        mean, ends = ([each[name][part] for each in values] for part in ("mean", "ci95"))
        found[name] = {"mean": np.array(mean), "low": np.array(ends)[:, 0], "high": np.array(ends)[:, 1]}
    return found


def summary(cases: list[tuple[Case, dict]]) -> dict:
    """Errors, coverage and rank correlation of the estimates of all logs of one size."""
    truth = np.array([case.truth_W for case, _ in cases])
    kept = np.array([found["ess"] for _, found in cases]) >= LEAST_SAMPLE
    trusted = kept & ~np.array([found["warned"] for _, found in cases])
    rows = {"logs": len(cases), "policies": int(kept.size), "refused": float(1 - kept.mean())}
    rows["warned"] = float((kept & ~trusted).mean())
    for name in ESTIMATES:
        mean, low, high = (np.array([found[name][part] for _, found in cases]) for part in ("mean", "low", "high"))
        inside = ((low <= truth) & (truth <= high))[kept]
        rows[name] = {
            "absolute_error": float(np.abs(mean - truth)[kept].mean()) if kept.any() else None,
            "absolute_error_unwarned": float(np.abs(mean - truth)[trusted].mean()) if trusted.any() else None,
            "coverage": share_interval(int(inside.sum()), int(kept.sum())) if kept.any() else None,
            "rank_correlation": float(np.mean([spearman(a, b) for a, b in zip(mean, truth)])),
        }
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--minutes", type=float, default=15.0, help="of CPU time for estimates, all logs together (%(default)s)"
    )
    parser.add_argument("--episodes", type=int, nargs="+", default=SIZES, help="of the logs (%(default)s)")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("benchmarks/results/off_policy.json"))
    arguments = parser.parse_args()
    before = json.loads(arguments.out.read_text())["tables"] if arguments.out.exists() else {}
    found = {
        (name, kind, n): [] for n in arguments.episodes for kind in ("recorded", "estimated") for name in STRENGTHS
    }
    for (name, kind, n), cases in found.items():
        spent = 0.0
        while spent < 60 * arguments.minutes / len(found):
            seed = len(cases)
            case = case_of(name, seed if name == "random_mdp" else 0)
            log = log_of(case, n, 10**6 + seed, kind == "recorded")
            began = time.process_time()  # what is compiled was compiled before
            cases.append((case, measure(case, log)))
            spent += time.process_time() - began
            write_json(arguments.out, content(found, before))  # a study that is stopped leaves what it has
    for title, rows in content(found, before)["tables"].items():
        print(f"\n{title}\n| episodes | logs | refused | " + " | ".join(ESTIMATES.values()) + " |")
        for n, row in rows.items():
            cells = " | ".join(_cell(row[name]) for name in ESTIMATES)
            print(f"| {n} | {row['logs']} | {row['refused']:.0%} | {cells} |")


def content(found: dict[tuple[str, str, int], list[tuple[Case, dict]]], before: dict) -> dict:
    """What the file of results holds: the tables that it had before, and in them the sizes found now."""
    tables = {title: dict(rows) for title, rows in before.items()}
    for (name, kind, n), cases in found.items():
        if cases:
            tables.setdefault(f"{name}, {kind} behaviour probabilities", {})[str(n)] = summary(cases)
    return {"problems": PROBLEMS, "strengths": STRENGTHS, "tables": tables, "made_with": provenance()}


def _cell(estimate: dict) -> str:
    if estimate["absolute_error"] is None:
        return "-"
    share, (low, high) = estimate["coverage"]
    error, rank = estimate["absolute_error"], estimate["rank_correlation"]
    return f"{error:.3f}, {share:.0%} [{low:.0%}, {high:.0%}], {rank:.2f}"


if __name__ == "__main__":
    main()
