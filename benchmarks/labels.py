"""What the labels of a log are worth as policies, where the truth is known.

    python -m benchmarks.labels [--logs 20] [--out benchmarks/results/labels.json]

Logs of 100 episodes of random actions in random MDPs (10 states, 4 actions, 10 decisions), a new one for each log, and
of 2,000 stays under the clinicians' policy in ICU-Sepsis (20 decisions; extra `clinical`). The best actions by
`pessimistic` values are followed in every state and step, and so are those by the same model without pessimism,
`frequencies`, whose untried actions are not taken either. Their values are exact. Beside them: the policy that acted,
and the optimum.
"""

import argparse
import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.off_policy import Case, case_of, log_of
from icdm.evaluation.off_policy import LoggedEpisodes
from icdm.files import write_json
from icdm.intervals import interval
from icdm.logs import log as logs
from icdm.logs.labels import pessimistic_q
from icdm.logs.log import Log
from icdm.logs.table import NOTHING, Rows
from icdm.oracles.backward_induction import optimal_value, plan, policy_value
from icdm.provenance import provenance

EPISODES = {"random_mdp": 100, "icu_sepsis": 2000}
REWARDS = (0.0, 1.0)  # the range in both families
KINDS = ("pessimistic", "frequencies")


def as_log(episodes: LoggedEpisodes) -> Log:
    """The steps that took place, as rows of a log."""
    e, t = np.nonzero(episodes.valid)
    last = np.append(e[1:] != e[:-1], True)
    n = len(e)
    rows = Rows(
        task_id=np.zeros(n, np.int64),
        episode_id=e,
        t=t,
        observation=episodes.observation[e, t],
        action=episodes.action[e, t],
        reward=episodes.reward[e, t],
        oracle_action=np.full(n, NOTHING),
        behavior_probability=episodes.behavior[e, t],
        terminal=last & (t < episodes.valid.shape[1] - 1),
    )
    return logs.log_of([rows], episodes.n_observations)


def value_of(case: Case, q_TSA: np.ndarray) -> float:
    """Exact value of the best actions by these values; a state that the log never showed gets the first action."""
    A = case.behavior_SA.shape[1]
    best_TS = q_TSA.argmax(-1)
    policy_TSA = np.eye(A)[np.pad(best_TS, ((0, 0), (0, len(case.behavior_SA) - best_TS.shape[1])))]
    return float(policy_value(case.problem, jnp.asarray(policy_TSA)[None])[0])


def measure(name: str, seed: int) -> dict[str, float]:
    """The values of all policies for one log."""
    case = case_of(name, seed if name == "random_mdp" else 0)
    log = as_log(log_of(case, EPISODES[name], 10**6 + seed, recorded=True))
    q_of = {kind: pessimistic_q(log, log.contexts[0], *REWARDS, bound=kind == "pessimistic") for kind in KINDS}
    found = {kind: value_of(case, q_TSA) for kind, q_TSA in q_of.items()}
    with jax.enable_x64(True):
        own = policy_value(case.problem, jnp.asarray(case.behavior_SA)[None, None])
        return found | {
            "the log's": float(own[0]),
            "optimum": float(optimal_value(case.problem, plan(case.problem))[0]),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--logs", type=int, default=20, help="of each kind (%(default)s)")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("benchmarks/results/labels.json"))
    arguments = parser.parse_args()
    found = {}
    for name in EPISODES:
        values = [measure(name, seed) for seed in range(arguments.logs)]
        columns = {policy: np.array([each[policy] for each in values]) for policy in values[0]}
        gain = columns["pessimistic"] - columns["frequencies"]
        found[name] = {policy: interval(x) for policy, x in columns.items()} | {"pessimism gains": interval(gain)}
        write_json(arguments.out, {"episodes": EPISODES, "values": found, "made_with": provenance()})
        print(
            name, {policy: (round(x["mean"], 3), np.round(x["ci95"], 3).tolist()) for policy, x in found[name].items()}
        )


if __name__ == "__main__":
    main()
