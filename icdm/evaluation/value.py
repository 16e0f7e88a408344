"""What a reader is worth in unseen tasks."""

import functools
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from icdm.errors import Stopped
from icdm.evaluation.unseen import EvaluationConfig, UnseenTasks, World
from icdm.files import read_arrays, write_arrays
from icdm.problems.policy import Oracle, Policy
from icdm.readers.reader import Reader
from icdm.sharding import gathered, place_rows
from icdm.trajectories.rollout import assess_along, rollout
from icdm.trajectories.trajectory import Trajectories


@jax.jit
def play(problem: Any, task_B: jax.Array, policy: Policy, key: jax.Array) -> Trajectories:
    """The compiled rollout."""
    return rollout(problem, task_B, policy, key)


class Measurement(NamedTuple):
    """A reader, the variant of the unseen tasks that it meets, and how its policies are played: (problem, task_B,
    policy, key) -> Trajectories."""

    unseen: UnseenTasks
    reader: Reader
    play: Callable[..., Trajectories] = play


class Measured(NamedTuple):
    """What several readers are worth, by name.

    values: (N,) in each task. members: (N, M) under each of M models, where the model is ambiguous. repeats: (N,) the
    share of decisions that take the action that the reader has seen most often, in its context and its own episode.
    """

    values: dict[str, np.ndarray]
    members: dict[str, np.ndarray]
    repeats: dict[str, np.ndarray]


def measure_all(
    readers: dict[str, Measurement],
    config: EvaluationConfig,
    mesh: jax.sharding.Mesh,
    stop: Callable[[], bool],
    kept: pathlib.Path | None,
) -> Measured:
    """Several readers, each in its own variant of the unseen tasks.

    Args:
      kept: a directory; what has been measured is written there, and read instead of measured when a stopped
        evaluation goes on. None keeps nothing.

    Raises:
      Stopped: the run was asked to stop.
    """
    found = Measured({}, {}, {})
    for i, (name, measurement) in enumerate(readers.items()):
        check_stop(stop)
        title = f"evaluate {i + 1}/{len(readers)}  {name}"
        measured = functools.partial(_measured, measurement, config, mesh)
        arrays = kept_or_measured(kept and kept / f"{name}.npz", title, measured)
        found.values[name], found.repeats[name] = arrays["value"], arrays["repeats"]
        if measurement.unseen.is_ambiguous:
            found.members[name] = arrays["members"]
    return found


def _measured(measurement: Measurement, config: EvaluationConfig, mesh: jax.sharding.Mesh) -> dict[str, np.ndarray]:
    unseen, reader, play = measurement
    value_N, repeats_N = measure(unseen, reader, config, mesh, play=play)
    arrays = {"value": value_N, "repeats": repeats_N}
    if unseen.is_ambiguous:
        arrays["members"] = measure_members(unseen, reader, config, mesh, value_N, play)
    return arrays


def check_stop(stop: Callable[[], bool]) -> None:
    """Raises Stopped if the run was asked to stop."""
    if stop():
        raise Stopped("stopped during the evaluation")


def kept_or_measured(
    path: pathlib.Path | None, title: str, measured: Callable[[], dict[str, np.ndarray]]
) -> dict[str, np.ndarray]:
    """The arrays of a file; if there is none yet, they are measured, under a line with the title, and written there."""
    if path and path.exists():
        return read_arrays(path, "delete it and start the same command again, which measures it anew")
    print(title, flush=True)
    arrays = measured()
    if path:
        write_arrays(path, arrays)
    return arrays


def measure(
    unseen: UnseenTasks,
    reader: Reader,
    config: EvaluationConfig,
    mesh: jax.sharding.Mesh,
    world: World | None = None,
    play: Callable[..., Trajectories] = play,
) -> tuple[np.ndarray, np.ndarray]:
    """(value, repeats) of a reader in each of the N tasks, float64; where there is one task, in each episode.

    With a critic's V, and its Q_t(i, a) = r(i, a) + gamma E[V_{t+1}(i')] of what was seen so far, i,

        V^pi = E[V_0(i_0)] + E[ sum_t gamma^t (Q_t(i_t, a_t) - V_t(i_t)) ],

    which holds for any function V (with V = V* it is the performance-difference lemma of Kakade and
    Langford, 2002). Averaging these advantages instead of the rewards leaves the mean as it is, and takes
    the randomness of rewards and transitions away.

    Args:
      world: where to act, by default in the tasks themselves; the reader is given those alone.
      play: see `Measurement`.
    """
    world = world or unseen.world
    parts = [_episodes(unseen, world, reader, rows, mesh, play) for rows in chunks(unseen.task_B.size, config.rows)]
    advantage_B, repeats_B = (np.concatenate(part) for part in zip(*parts))
    return world.start_N + per_task(advantage_B, unseen.tasks.n), per_task(repeats_B, unseen.tasks.n)


def measure_members(
    unseen: UnseenTasks,
    reader: Reader,
    config: EvaluationConfig,
    mesh: jax.sharding.Mesh,
    value_N: np.ndarray,
    play: Callable[..., Trajectories] = play,
) -> np.ndarray:
    """Value of a reader under every model of ambiguity sets, (N, M), the nominal one first: there it is `value_N`."""
    others = [measure(unseen, reader, config, mesh, world, play)[0] for world in unseen.members]
    return np.stack([value_N, *others], axis=-1)


def _episodes(
    unseen: UnseenTasks,
    world: World,
    reader: Reader,
    rows: slice,
    mesh: jax.sharding.Mesh,
    play: Callable[..., Trajectories],
) -> tuple[np.ndarray, np.ndarray]:
    """(discounted sum of the advantages of an episode's decisions, share of repeats), for a chunk of rows, float64."""
    chunk = jax.tree.map(lambda x: x[rows], (unseen.task_B, unseen.context))
    task_B, context = place_rows(mesh, chunk, rows.stop - rows.start)
    key = jax.random.fold_in(unseen.key, rows.start)
    policy = reader.policy(unseen.tasks, task_B, context, jax.random.fold_in(key, 1))
    episode = play(world.problem, task_B, policy, key)
    advantage_B = advantages(world, task_B, episode)
    return advantage_B, np.float64(gathered(_repeats(context, episode, unseen.family.n_actions)))


def advantages(world: World, task_B: jax.Array, episode: Trajectories) -> np.ndarray:
    """The discounted sum of Q - V along an episode of each row, (B,) float64 (see `measure`)."""
    with jax.enable_x64(True):
        return gathered(_summed(world.critic, world.problem.discount, task_B, episode))


@jax.jit
def _summed(critic: Oracle, discount_N: jax.Array, task_B: jax.Array, episode: Trajectories):
    q_BTA, value_BT = assess_along(critic, task_B, episode)
    taken_BT = jnp.take_along_axis(q_BTA, episode.action[..., None], -1)[..., 0]
    advantage_BT = jnp.where(episode.valid, taken_BT - value_BT, 0)
    discount_BT = discount_N[task_B][:, None] ** jnp.arange(advantage_BT.shape[1])[None]
    return (discount_BT * advantage_BT).sum(-1)


@functools.partial(jax.jit, static_argnums=2)
def _repeats(context: Trajectories | None, episode: Trajectories, n_actions: int) -> jax.Array:
    """The share of decisions that take an action that was seen at least as often as any other before, (B,)."""

    def counted(steps: Trajectories):
        return jax.nn.one_hot(steps.action, n_actions) * steps.valid[..., None]

    taken_BTA = counted(episode)
    seen_BTA = jnp.cumsum(taken_BTA, 1) - taken_BTA
    if context is not None:
        seen_BTA = seen_BTA + counted(context).sum((1, 2))[:, None]
    most_BTA = (seen_BTA == seen_BTA.max(-1, keepdims=True)) & (seen_BTA > 0)
    return (most_BTA * taken_BTA).sum((1, 2)) / episode.valid.sum(1)


def per_task(x_B: np.ndarray, n_tasks: int) -> np.ndarray:
    """Means over the rows of each task, along the first axis; where there is one task, the rows themselves."""
    return x_B.reshape(n_tasks if n_tasks > 1 else len(x_B), -1, *x_B.shape[1:]).mean(1)


def chunks(n: int, size: int) -> list[slice]:
    """The slices of n rows, at most `size` each."""
    return [slice(start, min(start + size, n)) for start in range(0, n, size)]
