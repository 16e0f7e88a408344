"""How one reward of a context moves Q at the query: by the exact posterior, and in the logits of a model.

The distance of a recorded reward is the fewest steps, each with a probability of at least SURE in the true task, from
the query's state to the state in which it was paid. Axis letters: N tasks, E episodes, T steps, A actions, S states.
"""

import dataclasses

import numpy as np

from icdm.errors import UserError
from icdm.runs.run import Run
from theory.circuits import trained
from theory.circuits.trained import Rows, centred

SURE = 0.25


def distances(rows: Rows) -> np.ndarray:
    """Steps from the query's state to that of every recorded step, (N, E, T); -1 where no path leads there."""
    leads_NSS = reachable(rows)
    n, S = leads_NSS.shape[:2]
    every = np.arange(n)
    distance_NS = np.full((n, S), -1)
    distance_NS[every, rows.queries] = 0
    for k in range(1, S):
        reached_NS = ((distance_NS == k - 1)[:, :, None] & leads_NSS).any(1)
        distance_NS[reached_NS & (distance_NS < 0)] = k
    return distance_NS[every[:, None, None], np.asarray(rows.episodes.observation)[..., :-1]]


def reachable(rows: Rows) -> np.ndarray:
    """Whether a step leads from a state to another with a probability of at least SURE by some action, (N, S, S)."""
    return (np.asarray(rows.problem.transition) >= SURE).any(1)


def flip(rows: Rows, there_NET: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Flips one random reward of each context among those `there`.

    Returns:
      The rewards (N, E, T), and in which rows there was one to flip, (N,).
    """
    eligible_NET = np.asarray(rows.episodes.valid) & there_NET
    eligible_NET[:, -1] = False
    eligible_NI = eligible_NET.reshape(len(eligible_NET), -1)
    if not eligible_NI.any():
        raise UserError("no context has a reward at this distance: lower `distances`, or show more episodes")
    chosen_N = (eligible_NI * rng.random(eligible_NI.shape)).argmax(-1)
    index = np.arange(len(chosen_N)), *np.unravel_index(chosen_N, eligible_NET.shape[1:])
    reward_NET = np.array(rows.episodes.reward)
    reward_NET[index] = sum(rows.family.reward_range) - reward_NET[index]
    return reward_NET, eligible_NI.any(-1)


def planned_change(rows: Rows, reward_NET: np.ndarray) -> np.ndarray:
    """Change of the posterior-mean planner's centred Q at the query with these rewards, (N, A)."""
    return centred(rows.with_rewards(reward_NET).reader_q() - rows.reader_q())


class Influence:
    """What rewards do to the logits of a model that reads the contexts of N rows.

    Args:
      alone: layers in which the positions of the context attend to themselves alone.
    """

    def __init__(self, run: Run, model: str, rows: Rows, alone: tuple[int, ...] = ()):
        self.run, self.model, self.episodes, self.alone = run, run.model(model), rows.episodes, alone
        self.before_NA = trained.query_logits(run.layout, self.model, self.episodes, alone)

    def change(self, reward_NET: np.ndarray) -> np.ndarray:
        """tau times the change of its centred logits at the query with these rewards, (N, A)."""
        episodes = dataclasses.replace(self.episodes, reward=reward_NET)
        after_NA = trained.query_logits(self.run.layout, self.model, episodes, self.alone)
        return self.run.settings.labels.temperature * centred(after_NA - self.before_NA)
