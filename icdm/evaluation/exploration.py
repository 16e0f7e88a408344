"""Exploration from nothing: deciders that begin without a context and act in one episode of a task after another, each
reading all earlier ones.

Axis letters as in docs/axes.md: B rows, E episodes of the decider's own, N tasks.
"""

import functools
import pathlib
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from icdm.evaluation.unseen import EvaluationConfig, UnseenTasks
from icdm.evaluation.value import advantages, check_stop, chunks, kept_or_measured, per_task, play
from icdm.problems.policy import Oracle, uniform_policy
from icdm.readers.counts_planners import DOUBTING, CountsPlanner, planners_of
from icdm.readers.q_learning import QLearning
from icdm.readers.reader import Fixed, Reader, Sampling
from icdm.sharding import gathered, place_rows
from icdm.trajectories.rollout import assess_along
from icdm.trajectories.trajectory import NOTHING, Trajectories, join_episodes

CLOSE = 1e-6  # Q-values that differ by less are equally good


def explorers(unseen: UnseenTasks, models: dict[str, Reader]) -> dict[str, Reader]:
    """Who explores: models, greedily and by sampling from their logits, and planners that count.

    Planning with posterior means never explores on purpose; posterior sampling before every episode is PSRL, and
    Thompson sampling where an episode is one pull of a bandit; optimistic certainty equivalence adds a bonus of one
    standard error to rewards, as UCB does; Q-learning with such a bonus has no model.
    """
    family = unseen.family
    found: dict[str, Reader] = {"uniform": Fixed(uniform_policy(family.observation_space.n, family.n_actions))}
    found |= {name: CountsPlanner(family, name) for name in (*planners_of(family), *DOUBTING)}
    found["q_learning"] = QLearning(family)
    return found | models | {f"{name}_sampled": Sampling(reader) for name, reader in models.items()}


def explore_all(
    unseen: UnseenTasks,
    readers: dict[str, Reader],
    config: EvaluationConfig,
    mesh: jax.sharding.Mesh,
    stop: Callable[[], bool],
    kept: pathlib.Path,
) -> dict[str, np.ndarray]:
    """What `explore` finds of several readers, as values.npz holds it: {"own/MEASURE/NAME": array}.

    Args:
      kept: a directory, as in `icdm.evaluation.value.measure_all`.

    Raises:
      Stopped: the run was asked to stop.
    """
    arrays = {}
    for i, (name, reader) in enumerate(readers.items()):
        title = f"explore {i + 1}/{len(readers)}  {name}"
        measured = functools.partial(explore, unseen, reader, config, mesh, stop)
        found = kept_or_measured(kept / f"own_{name}.npz", title, measured)
        arrays |= {f"own/{measure}/{name}": x for measure, x in found.items()}
    return arrays


def explore(
    unseen: UnseenTasks, reader: Reader, config: EvaluationConfig, mesh: jax.sharding.Mesh, stop: Callable[[], bool]
) -> dict[str, np.ndarray]:
    """What happens in `config.own_episodes` episodes, averaged over the rows of each task, float64.

    Raises:
      Stopped: the run was asked to stop.

    Returns:
      regret: (N, E) V* less the value of the episode's decisions, sum_t V*_t(s_t) - Q*_t(s_t, a_t), which has the
        mean of OPT less the return and less noise.
      optimal: (N, E) share of an episode's decisions with the highest Q*.
      tried: (N,) share of the pairs of a state and an action that were tried by the end.
      least_pulled, suffix_failure: (N,), where there is one state: the share of the action taken least often times
        the number of actions, and whether the best action is never taken in the second half of the episodes.
    """
    parts = [_rows(unseen, reader, config, mesh, rows, stop) for rows in chunks(unseen.task_B.size, config.rows)]
    found = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return {name: per_task(x, unseen.tasks.n) for name, x in found.items()}


def _rows(
    unseen: UnseenTasks,
    reader: Reader,
    config: EvaluationConfig,
    mesh: jax.sharding.Mesh,
    rows: slice,
    stop: Callable[[], bool],
) -> dict[str, np.ndarray]:
    """The same for some rows, not averaged."""
    n = rows.stop - rows.start
    task_B = place_rows(mesh, unseen.task_B[rows], n)
    own = place_rows(mesh, nothing_yet(n, max(config.own_episodes - 1, 1), unseen.family.horizon), n)
    visits_BSA = jnp.zeros((n, unseen.family.observation_space.n, unseen.family.n_actions))
    regrets, optimal = [], []
    for e in range(config.own_episodes):
        check_stop(stop)
        key, policy_key = jax.random.split(jax.random.fold_in(jax.random.fold_in(unseen.key, rows.start), e))
        policy = reader.policy(unseen.tasks, task_B, own, policy_key)
        episode = play(unseen.world.problem, task_B, policy, key)
        own = _with_last(own, episode)
        regrets.append(-advantages(unseen.world, task_B, episode))
        optimal.append(gathered(_optimal(unseen.tasks.oracle, task_B, episode)))
        visits_BSA = _counted(visits_BSA, episode)
    found = {"regret": np.stack(regrets, 1), "optimal": np.stack(optimal, 1)}
    found["tried"] = gathered(visits_BSA > 0).mean((1, 2))
    if visits_BSA.shape[1] == 1:
        share_BA = gathered(visits_BSA[:, 0] / visits_BSA.sum((1, 2))[:, None])
        found["least_pulled"] = share_BA.shape[1] * share_BA.min(1)
        found["suffix_failure"] = (found["optimal"][:, config.own_episodes // 2 :] == 0).all(1)
    return {name: x.astype(np.float64) for name, x in found.items()}


def nothing_yet(rows: int, episodes: int, horizon: int) -> Trajectories:
    """Room for so many episodes, none of which took place: (B, E, ...)."""
    shape = (rows, episodes, horizon)
    observation = jnp.full((rows, episodes, horizon + 1), NOTHING, jnp.int32)
    return Trajectories(observation, jnp.zeros(shape, jnp.int32), jnp.zeros(shape), jnp.zeros(shape, bool))


@jax.jit
def _with_last(own: Trajectories, episode: Trajectories) -> Trajectories:
    """The episodes with one more at their end, without the first."""
    kept, last = jax.tree.map(lambda x: x[:, 1:], own), jax.tree.map(lambda x: x[:, None], episode)
    return join_episodes(kept, last)


@jax.jit
def _optimal(oracle: Oracle, task_B: jax.Array, episode: Trajectories) -> jax.Array:
    """The share of decisions with the highest Q*, (B,)."""
    q_BTA, value_BT = assess_along(oracle, task_B, episode)
    taken_BT = jnp.take_along_axis(q_BTA, episode.action[..., None], -1)[..., 0]
    best_BT = (taken_BT >= value_BT - CLOSE) & episode.valid
    return best_BT.sum(1) / episode.valid.sum(1)


@functools.partial(jax.jit, donate_argnums=0)
def _counted(visits_BSA: jax.Array, episode: Trajectories) -> jax.Array:
    """The visits with those of an episode."""
    row_B1 = jnp.arange(visits_BSA.shape[0])[:, None]
    return visits_BSA.at[row_B1, episode.observation[:, :-1], episode.action].add(episode.valid)
