"""What a reader is worth in unseen tasks."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from icdm.evaluation.unseen import EvaluationConfig, UnseenTasks, World
from icdm.learning.train import Stopped
from icdm.problems.policy import Oracle, Policy
from icdm.readers.reader import Reader
from icdm.sharding import place_rows
from icdm.trajectories.rollout import assess_along, rollout
from icdm.trajectories.trajectory import Trajectories


@jax.jit
def play(problem: Any, task_B: jax.Array, policy: Policy, key: jax.Array) -> Trajectories:
    """The compiled rollout."""
    return rollout(problem, task_B, policy, key)


class Measured(NamedTuple):
    """A reader, the variant of the unseen tasks that it meets, and how its policies are played: (problem, task_B,
    policy, key) -> Trajectories."""

    unseen: UnseenTasks
    reader: Reader
    play: Callable[..., Trajectories] = play


def measure_all(
    readers: dict[str, Measured],
    config: EvaluationConfig,
    mesh: jax.sharding.Mesh,
    stop: Callable[[], bool],
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Values of several readers, each in its own variant of the unseen tasks, by name.

    Returns:
      (values (N,), and if the model is ambiguous those under each of M models, (N, M)).

    Raises:
      Stopped: the run was asked to stop.
    """
    values, members = {}, {}
    for name, measured in readers.items():
        if stop():
            raise Stopped("stopped during the evaluation")
        values[name] = measure(*measured[:2], config, mesh, play=measured.play)
        if measured.unseen.is_ambiguous:
            members[name] = measure_members(*measured[:2], config, mesh, values[name], play=measured.play)
    return values, members


def measure(
    unseen: UnseenTasks,
    reader: Reader,
    config: EvaluationConfig,
    mesh: jax.sharding.Mesh,
    world: World | None = None,
    play: Callable[..., Trajectories] = play,
) -> np.ndarray:
    """Value of a reader in each of the N tasks, float64; where there is one task, in each episode.

    With a critic's V, and its Q_t(i, a) = r(i, a) + gamma E[V_{t+1}(i')] of what was seen so far, i,

        V^pi = E[V_0(i_0)] + E[ sum_t gamma^t (Q_t(i_t, a_t) - V_t(i_t)) ],

    which holds for any function V (with V = V* it is the performance-difference lemma of Kakade and
    Langford, 2002). Averaging these advantages instead of the rewards leaves the mean as it is, and takes
    the randomness of rewards and transitions away.

    Args:
      world: where to act, by default in the tasks themselves; the reader is given those alone.
      play: see `Measured`.
    """
    world = world or unseen.world
    n = unseen.tasks.n if unseen.tasks.n > 1 else unseen.task_B.size
    chunks = _chunks(unseen.task_B.size, config.rows)
    advantage_B = np.concatenate([_advantages(unseen, world, reader, rows, mesh, play) for rows in chunks])
    return world.start_N + advantage_B.reshape(n, -1).mean(1)


def measure_members(
    unseen: UnseenTasks,
    reader: Reader,
    config: EvaluationConfig,
    mesh: jax.sharding.Mesh,
    value_N: np.ndarray,
    play: Callable[..., Trajectories] = play,
) -> np.ndarray:
    """Value of a reader under every model of ambiguity sets, (N, M), the nominal one first: there it is `value_N`."""
    others = [measure(unseen, reader, config, mesh, world, play) for world in unseen.members]
    return np.stack([value_N, *others], axis=-1)


def _advantages(
    unseen: UnseenTasks,
    world: World,
    reader: Reader,
    rows: slice,
    mesh: jax.sharding.Mesh,
    play: Callable[..., Trajectories],
):
    """Discounted sum of the advantages of an episode's decisions, for a chunk of rows, float64."""
    chunk = jax.tree.map(lambda x: x[rows], (unseen.task_B, unseen.context))
    task_B, context = place_rows(mesh, chunk, rows.stop - rows.start)
    key = jax.random.fold_in(unseen.key, rows.start)
    policy = reader.policy(unseen.tasks, task_B, context, jax.random.fold_in(key, 1))
    episode = play(world.problem, task_B, policy, key)
    with jax.enable_x64(True):
        return np.asarray(_summed(world.critic, world.problem.discount, task_B, episode))


@jax.jit
def _summed(critic: Oracle, discount_N: jax.Array, task_B: jax.Array, episode: Trajectories):
    q_BTA, value_BT = assess_along(critic, task_B, episode)
    taken_BT = jnp.take_along_axis(q_BTA, episode.action[..., None], -1)[..., 0]
    advantage_BT = jnp.where(episode.valid, taken_BT - value_BT, 0)
    discount_BT = discount_N[task_B][:, None] ** jnp.arange(advantage_BT.shape[1])[None]
    return (discount_BT * advantage_BT).sum(-1)


def _chunks(n: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, n)) for start in range(0, n, size)]
