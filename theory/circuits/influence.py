"""How one reward of a context moves Q at the query: by the exact posterior, and in the logits of a model.

The distance of a recorded reward is the fewest steps, each with a probability of at least SURE in the true task, from
the query's state to the state in which it was paid. Axis letters: N tasks, E episodes, T steps, A actions, S states.
"""

import dataclasses

import numpy as np

from icdm.errors import UserError
from icdm.models.transformer import Transformer
from icdm.runs.run import Run
from theory.circuits import trained
from theory.circuits.trained import Rows, centred

SURE = 0.25


def distances(rows: Rows) -> np.ndarray:
    """Steps from the query's state to that of every recorded step, (N, E, T); -1 where no path leads there."""
    every_N11 = np.arange(len(rows.queries))[:, None, None]
    return distances_of_states(rows)[every_N11, np.asarray(rows.episodes.steps.observation)]


def distances_of_states(rows: Rows, least: float = SURE) -> np.ndarray:
    """Steps, each of at least that probability, from the query's state to every state, (N, S); -1 without a path."""
    leads_NSS = reachable(rows, least)
    n, S = leads_NSS.shape[:2]
    every = np.arange(n)
    distance_NS = np.full((n, S), -1)
    distance_NS[every, rows.queries] = 0
    for k in range(1, S):
        reached_NS = ((distance_NS == k - 1)[:, :, None] & leads_NSS).any(1)
        distance_NS[reached_NS & (distance_NS < 0)] = k
    return distance_NS


def reachable(rows: Rows, least: float = SURE) -> np.ndarray:
    """Whether a step leads from a state to another with at least that probability by some action, (N, S, S)."""
    return (np.asarray(rows.problem.transition) >= least).any(1)


def flip(rows: Rows, there_NET: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Flips one random reward of each context among those `there`.

    Returns:
      The rewards (N, E, T), and in which rows there was one to flip, (N,).
    """
    flipped_NET, found_N = one_step(rows.context_steps & there_NET, rng)
    if not found_N.any():
        raise UserError("no context has a reward at this distance: lower `distances`, or show more episodes")
    return opposite(rows, flipped_NET), found_N


def one_step(steps_NET: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """One random step of each row among those given, as (N, E, T) bool, and which rows have one, (N,)."""
    episode_N, step_N, found_N = one_of(steps_NET, rng)
    chosen_NET = np.zeros(steps_NET.shape, bool)
    chosen_NET[np.arange(len(found_N)), episode_N, step_N] = found_N
    return chosen_NET, found_N


def one_of(steps_NET: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One random step of each row among those given: (episode, step, whether there is one), (N,) each."""
    steps_NI = steps_NET.reshape(len(steps_NET), -1)
    chosen_N = (steps_NI * rng.random(steps_NI.shape)).argmax(-1)
    return *np.unravel_index(chosen_N, steps_NET.shape[1:]), steps_NI.any(-1)


def opposite(rows: Rows, flipped_NET: np.ndarray) -> np.ndarray:
    """The rewards, (N, E, T), r replaced by lowest + highest - r wherever they are flipped."""
    reward_NET = np.asarray(rows.episodes.reward)
    return np.where(flipped_NET, sum(rows.family.reward_range) - reward_NET, reward_NET)


def in_state(rows: Rows, state_N: np.ndarray) -> np.ndarray:
    """Which steps of the context are in one state of each row, (N, E, T)."""
    return rows.context_steps & (np.asarray(rows.episodes.steps.observation) == state_N[:, None, None])


def planned_change(rows: Rows, reward_NET: np.ndarray) -> np.ndarray:
    """Change of the posterior-mean planner's centred Q at the query with these rewards, (N, A)."""
    return centred(rows.with_rewards(reward_NET).reader_q() - rows.reader_q())


class Influence:
    """What rewards do to the logits of a model that reads the contexts of N rows.

    Args:
      alone: layers in which the positions of the context attend to themselves alone.
    """

    def __init__(self, run: Run, model: Transformer, rows: Rows, alone: tuple[int, ...] = ()):
        self.run, self.model, self.episodes, self.alone = run, model, rows.episodes, alone
        self.before_NA = trained.query_logits(run.layout, self.model, self.episodes, alone)

    def change(self, reward_NET: np.ndarray) -> np.ndarray:
        """tau times the change of its centred logits at the query with these rewards, (N, A)."""
        episodes = dataclasses.replace(self.episodes, reward=reward_NET)
        after_NA = trained.query_logits(self.run.layout, self.model, episodes, self.alone)
        return self.run.settings.labels.temperature * centred(after_NA - self.before_NA)
