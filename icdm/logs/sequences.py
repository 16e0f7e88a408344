"""Sequences of episodes of a log, with their labels, as inputs of a model.

Axis letters as in docs/axes.md; T is the length of the log's longest episode.
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

    trajectories: (B, E, T ...) steps; the observation after an episode's last step is `log.end` if the table has none,
      or has no feature that was measured; the observations of an absent episode are NOTHING.
    label: (B, E, U) int32 label of each observation; NOTHING if there is none.
    """

    trajectories: Trajectories
    label: np.ndarray


def sequence_length(log: Log, context_episodes: int) -> int:
    """E, the number of episodes of a sequence with K context episodes.

    E = 2 K + 1 if the log has queries: one before the first and one after each context episode. E = K + 1 otherwise:
    the context episodes and one more.
    """
    return 2 * context_episodes + 1 if log.asks else context_episodes + 1


def sequences(
    log: Log,
    task_B: np.ndarray,
    context_episodes: int,
    rng: np.random.Generator,
    symmetry: Symmetry | None = None,
    independent_steps: bool = False,
) -> Sequences:
    """One sequence of each task in `task_B`.

    Episodes and queries are random; all episodes of a task appear in their order if the sequence has room for them. The
    order of steps is never changed, because the recorded behaviour may have learned during the recording.

    Args:
      context_episodes: K.
      symmetry: rng -> (relabelling of observations, relabelling of actions), drawn for each sequence.
      independent_steps: whether every episode is one step that is independent of the others (see `as_one_episode`).
    """
    episode_BE = draw_episodes(log, task_B, context_episodes, rng)
    relabel = None if symmetry is None else [symmetry(rng) for _ in task_B]
    assembled = assemble(log, episode_BE, relabel)
    return as_one_episode(assembled, log.asks) if independent_steps else assembled


def draw_episodes(log: Log, task_B: np.ndarray, context_episodes: int, rng: np.random.Generator) -> np.ndarray:
    """Random episodes of a sequence of each task, (B, E); NOTHING in an unused place."""
    E = sequence_length(log, context_episodes)
    places = np.arange(1, E, 2) if log.asks else np.arange(E)
    episode_BE = np.full((len(task_B), E), NOTHING)
    for row, task in enumerate(task_B):
        context = log.contexts[task]
        if len(context) > len(places):
            context = context[rng.choice(len(context), len(places), replace=False)]
        episode_BE[row, places[: len(context)]] = context
        if len(log.queries[task]):
            of_queries = np.arange(0, 2 * len(context) + 1, 2)
            query = rng.integers(len(log.queries[task]), size=len(of_queries))
            episode_BE[row, of_queries] = log.queries[task][query]
    return episode_BE


def assemble(log: Log, episode_BE: np.ndarray, relabel: list[tuple[np.ndarray, np.ndarray]] | None = None) -> Sequences:
    """The sequences of the episodes (B, E), NOTHING for an absent one; `relabel` holds the relabelling of each row."""
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
        done = np.stack([np.append(a, NOTHING) for _, a in relabel])  # its last entry is the code of NOTHING = -1
        row = np.arange(len(relabel))[:, None, None]
        observation, action, label = seen[row, observation], done[row, action], done[row, label]
    shown = np.where(there_BE1, observation, NOTHING).astype(np.int32)
    if log.encoder is not None:
        numbers = log.encoder.encoded(np.where(recorded_BEU[..., None], log.features[row_BEU], np.nan))
        shown = np.where(there_BE1[..., None], numbers, np.float32(NOTHING))
    valid = t[:-1] < steps_BE1
    reward = np.where(valid, column(log.reward, 0)[..., :-1], 0)
    trajectories = Trajectories(
        shown,
        action[..., :-1].astype(np.int32),
        reward.astype(np.float32),
        valid,
    )
    labelled = there_BE1 & (t <= steps_BE1)
    return Sequences(trajectories, np.where(labelled, label, NOTHING).astype(np.int32))


def as_one_episode(episodes: Sequences, asks: bool) -> Sequences:
    """Episodes of one step each, (B, E, 1 ...), as one episode of independent steps.

    Args:
      asks: whether every other episode is a query, (query, step, query, ..., step, query). The observations of the one
        episode are then the queries, with their labels. Otherwise each step's own observation precedes it, and
        NOTHING follows the last step.
    """
    trajectories, label = episodes
    step = slice(1, None, 2) if asks else slice(None)
    taken = jax.tree.map(lambda x: x[:, step], trajectories)
    origin, arrival = taken.observation[:, :, 0], taken.observation[:, :, 1]
    if asks:
        observation, label = trajectories.observation[:, ::2, 0], label[:, ::2, 0]
    else:
        observation = np.pad(origin, [(0, 0), (0, 1)] + [(0, 0)] * (origin.ndim - 2), constant_values=NOTHING)
        label = np.pad(label[:, :, 0], [(0, 0), (0, 1)], constant_values=NOTHING)
    one = Trajectories(
        observation, taken.action[..., 0], taken.reward[..., 0], taken.valid[..., 0], origin=origin, arrival=arrival
    )
    return Sequences(*(_with_one_episode(x) for x in (one, label)))


def _with_one_episode(tree: Any) -> Any:
    """The arrays with an axis of one episode after the axis of rows."""
    return jax.tree.map(lambda x: x[:, None], tree)
