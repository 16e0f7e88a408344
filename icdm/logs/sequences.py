"""Episodes of a log side by side, as a model reads them, with what should have been done.

B rows of a batch, E episodes of a row, T steps of the longest episode, K context episodes.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from icdm.logs.log import Log
from icdm.trajectories.trajectory import NOTHING, Trajectories

Symmetry = Callable[[np.random.Generator], tuple[np.ndarray, np.ndarray]]


class Sequences(NamedTuple):
    """Recorded episodes with their labels.

    trajectories: (B, E, T ...) steps; what was observed after an episode's last step, where the table does not say,
      is the observation `log.end`; NOTHING stands in a place without an episode.
    label: (B, E, T + 1) int32 action to be learned on each observation, the last one included; NOTHING where there is
      none.
    """

    trajectories: Trajectories
    label: np.ndarray


def sequence_length(log: Log, context_episodes: int) -> int:
    """E: with queries, one is asked before the first and after each of the K context episodes; without, the
    K context episodes and one more follow one another."""
    return 2 * context_episodes + 1 if log.asks else context_episodes + 1


def sequences(
    log: Log,
    task_B: np.ndarray,
    context_episodes: int,
    rng: np.random.Generator,
    symmetry: Symmetry | None = None,
    independent_steps: bool = False,
) -> Sequences:
    """One sequence of each of some tasks.

    Which episodes are shown, and which queries are asked, is drawn anew each time; all of a task's are shown in
    their order where there are no more than the sequence holds. Steps keep their order always: a behaviour
    that learned while it was recorded would be misread otherwise.

    Args:
      symmetry: rng -> (relabelling of observations, of actions), drawn for each sequence.
      independent_steps: every episode is one step, which does not follow the one before: see `as_one_episode`.
    """
    episode_BE = draw_episodes(log, task_B, context_episodes, rng)
    relabel = None if symmetry is None else [symmetry(rng) for _ in task_B]
    found = assemble(log, episode_BE, relabel)
    return as_one_episode(found, log.asks) if independent_steps else found


def draw_episodes(log: Log, task_B: np.ndarray, context_episodes: int, rng: np.random.Generator) -> np.ndarray:
    """(B, E) which episodes a sequence of each task shows."""
    E = sequence_length(log, context_episodes)
    places = np.arange(1, E, 2) if log.asks else np.arange(E)
    episode_BE = np.full((len(task_B), E), NOTHING)
    for row, task in enumerate(task_B):
        shown = log.contexts[task]
        if len(shown) > len(places):
            shown = shown[rng.choice(len(shown), len(places), replace=False)]
        episode_BE[row, places[: len(shown)]] = shown
        if len(log.queries[task]):
            asked = np.arange(0, 2 * len(shown) + 1, 2)
            episode_BE[row, asked] = log.queries[task][rng.integers(len(log.queries[task]), size=len(asked))]
    return episode_BE


def assemble(log: Log, episode_BE: np.ndarray, relabel: list[tuple[np.ndarray, np.ndarray]] | None = None) -> Sequences:
    """The sequences of these episodes (NOTHING leaves a place empty), each relabelled in its own way."""
    T = log.longest
    there_BE1 = (episode_BE != NOTHING)[..., None]
    steps_BE1 = np.where(there_BE1, log.steps[episode_BE][..., None], 0)
    rows_BE1 = np.where(there_BE1, (log.first[episode_BE + 1] - log.first[episode_BE])[..., None], 0)
    t = np.arange(T + 1)
    row_BEU = np.minimum(log.first[episode_BE][..., None] + t, len(log.action) - 1)
    recorded_BEU = t < rows_BE1

    def column(values: np.ndarray, nothing: int) -> np.ndarray:
        return np.where(recorded_BEU, values[row_BEU], nothing)

    observation, label = column(log.observation, log.end), column(log.label, NOTHING)
    action = np.maximum(column(log.action, 0), 0)
    if relabel is not None:
        seen = np.stack([np.append(np.arange(log.end), log.end)] * len(relabel))
        seen[:, : relabel[0][0].size] = [o for o, _ in relabel]
        done = np.stack([np.append(a, NOTHING) for _, a in relabel])  # its last entry, at -1, is NOTHING's
        row = np.arange(len(relabel))[:, None, None]
        observation, action, label = seen[row, observation], done[row, action], done[row, label]
    valid = t[:-1] < steps_BE1
    reward = np.where(valid, column(log.reward, 0)[..., :-1], 0)
    trajectories = Trajectories(
        np.where(there_BE1, observation, NOTHING).astype(np.int32),
        action[..., :-1].astype(np.int32),
        reward.astype(np.float32),
        valid,
    )
    asked = there_BE1 & (t <= steps_BE1)
    return Sequences(trajectories, np.where(asked, label, NOTHING).astype(np.int32))


def as_one_episode(found: Sequences, asks: bool) -> Sequences:
    """Episodes of one step each, (B, E, 1 ...), as one episode of independent steps.

    With queries, episodes without a step, in every other place, (query, step, query, ..., step, query): the
    observations of the one episode are the queries, which carry the labels. Without, a step's own observation comes
    before it and nothing after the last.
    """
    trajectories, label = found
    step = slice(1, None, 2) if asks else slice(None)
    taken = jax.tree.map(lambda x: x[:, step], trajectories)
    origin, arrival = taken.observation[..., 0], taken.observation[..., 1]
    if asks:
        observation, label = trajectories.observation[:, ::2, 0], label[:, ::2, 0]
    else:
        observation = np.pad(origin, [(0, 0), (0, 1)], constant_values=NOTHING)
        label = np.pad(label[:, :, 0], [(0, 0), (0, 1)], constant_values=NOTHING)
    one = Trajectories(
        observation, taken.action[..., 0], taken.reward[..., 0], taken.valid[..., 0], origin=origin, arrival=arrival
    )
    return Sequences(*(_with_one_episode(x) for x in (one, label)))


def _with_one_episode(tree: Any) -> Any:
    """The arrays with an axis of one episode after that of rows."""
    return jax.tree.map(lambda x: x[:, None], tree)
