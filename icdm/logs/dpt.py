"""The data files of the Decision-Pretrained Transformer (DPT; Lee et al., NeurIPS 2023) as tables.

Bandit: {train,test,eval}_{actions (N, T), rewards (N, T), optimal (N,), means (N, A)}. A task is one episode of T
pulls; the best arm is the oracle's action of every row, the last row included.
Dark Room: {train,test}_{states (N, T, 2), actions, next_states, rewards, query (N, 2), optimal (N,), goal}. A task is
T independent steps, each an episode of its own, and the query, an episode without a step that has the oracle's
action. Axis letters as in docs/axes.md.
"""

import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow as pa

from icdm.errors import UserError, unknown
from icdm.families.bandit import Bandit
from icdm.families.dark_room import DarkRoom
from icdm.logs.codings import MOST_INTEGERS
from icdm.logs.log import Log, load
from icdm.logs.npz import read_npz
from icdm.logs.table import NOTHING, Rows, as_batch, plain_codings, write_table
from icdm.problems.family import Family

BANDIT = ("actions", "rewards", "optimal", "means")
DARK_ROOM = ("states", "actions", "next_states", "rewards", "query", "optimal", "goal")
SPLITS = ("train", "test", "eval")
MOST_SIDE = 2**10  # of Dark Room


def arrays_of(path: pathlib.Path, split: str) -> dict[str, np.ndarray]:
    """The arrays of one split; their names omit the split.

    Raises:
      UserError: the file is no .npz, does not hold the split, holds the arrays of neither experiment, or arrays that do
        not fit together.
    """
    return split_of(path, read_npz(path), split)


def split_of(path: pathlib.Path, arrays: dict[str, np.ndarray], split: str) -> dict[str, np.ndarray]:
    """The same of arrays that have been read already."""
    splits = sorted({name.split("_")[0] for name in arrays} & set(SPLITS))
    if not splits:
        raise UserError(
            f"{path} holds {', '.join(sorted(arrays))[:200]}: the arrays of DPT (train_actions, ...) and those of "
            "d3rlpy (observations, actions, rewards, terminals) are supported"
        )
    if split not in splits:
        raise unknown(f"split of {path}", split, splits)
    of_split = {name.removeprefix(split + "_"): x for name, x in arrays.items() if name.startswith(split + "_")}
    if not any(set(kind.arrays) <= set(of_split) for kind in KINDS):
        raise UserError(f"{path} holds {', '.join(sorted(of_split))}: neither the bandit's arrays nor Dark Room's")
    _check_arrays(path, of_split)
    return of_split


def _check_arrays(path: pathlib.Path, arrays: dict[str, np.ndarray]) -> None:
    """Raises UserError if the shapes do not fit together, or if codes are not whole numbers from 0."""
    if arrays["actions"].ndim != 2 or not arrays["actions"].size:
        raise UserError(f"{path}: actions has the shape {arrays['actions'].shape} instead of (tasks, steps)")
    N, T = arrays["actions"].shape
    shapes = dict(rewards=(N, T), optimal=(N,), states=(N, T, 2), next_states=(N, T, 2), query=(N, 2), goal=(N, 2))
    for name in kind_of(arrays).arrays:
        x = arrays[name]
        expected = shapes.get(name, (N, T) if name == "actions" else (N, *x.shape[1:]))
        if x.shape != expected or name == "means" and x.ndim != 2:
            raise UserError(f"{path}: {name} has the shape {x.shape} instead of {expected}")
        if name in ("rewards", "means"):
            bad = ~np.isfinite(x.astype(np.float64))
        else:
            most = MOST_INTEGERS if name in ("actions", "optimal") else MOST_SIDE
            bad = ~((x >= 0) & (x < most) & (x % 1 == 0))
        if bad.any():
            i = tuple(int(k) for k in np.argwhere(bad)[0])
            raise UserError(f"{path}: {name}[{', '.join(map(str, i))}] is {x[i]}: not a finite number, or no code")


def split(
    path: pathlib.Path, family: Family, workdir: pathlib.Path, seed: int, episodes: int
) -> tuple[Log, Log, Any, np.ndarray | None]:
    """Training log, held-out log, N unseen problems, and episodes (N, E, K) of the held-out log for their contexts.

    The episodes are None if the problems need no contexts. Tables of both splits are written into the work directory.

    Args:
      seed: random seed of the shifts of Dark Room's training contexts (see `shifted`).
      episodes: E, the number of evaluation episodes in each problem.

    Raises:
      UserError: the file belongs to another family, or a task has fewer than E contexts.
    """
    arrays = {name: arrays_of(path, name) for name in ("train", "test")}
    kind = kind_of(arrays["train"])
    if not isinstance(family, kind.family):
        raise UserError(f"{path} goes with the family {kind.name}: set config.family accordingly")
    rows = {
        "train": kind.training_rows(arrays["train"], np.random.default_rng(seed)),
        "test": kind.rows(arrays["test"]),
    }
    codings = plain_codings(family.n_states, family.n_actions)
    train, test = (load(write_table(workdir / f"{name}.parquet", [rows[name]], codings)) for name in rows)
    with jax.enable_x64(True):
        return train, test, *kind.unseen(path, family, test, episodes)


def bandit_tasks(path: pathlib.Path, family: Bandit, test: Log, episodes: int) -> tuple[Any, None]:
    """The tasks of the split `eval`; their episodes need no contexts."""
    means = arrays_of(path, "eval")["means"].astype(np.float64)
    return jax.vmap(family.problem)(jnp.asarray(means)), None


def dark_room_tasks(path: pathlib.Path, family: DarkRoom, test: Log, episodes: int) -> tuple[Any, np.ndarray]:
    """The tasks of the goals of the split `test`, each with E of the contexts that were recorded for it."""
    goals = arrays_of(path, "test")["goal"].astype(int)
    goals, which = np.unique(goals[:, 0] * family.size + goals[:, 1], return_inverse=True)
    problem = jax.vmap(family.problem)(jax.nn.one_hot(jnp.asarray(goals), family.n_states))
    rows = [np.flatnonzero(which == i) for i in range(len(goals))]
    fewest = min(map(len, rows))
    if fewest < episodes:
        raise UserError(f"evaluation.episodes {episodes}: {path} holds only {fewest} contexts of a task")
    return problem, np.stack([[test.contexts[row] for row in of_goal[:episodes]] for of_goal in rows])


def batch_of(path: pathlib.Path, arrays: dict[str, np.ndarray], split: str) -> pa.RecordBatch:
    """The raw rows of one split; each of its contexts is a task."""
    of_split = split_of(path, arrays, split)
    return as_batch(kind_of(of_split).rows(of_split))


def bandit_rows(arrays: dict[str, np.ndarray]) -> Rows:
    """The rows of the bandit's arrays: one task and one episode for each row of the arrays."""
    n, steps = arrays["actions"].shape
    closing = np.full((n, 1), NOTHING)
    return _rows(
        task_id=np.repeat(np.arange(n), steps + 1),
        episode_id=np.repeat(np.arange(n), steps + 1),
        t=np.tile(np.arange(steps + 1), n),
        observation=np.zeros(n * (steps + 1), np.int64),
        action=np.concatenate([arrays["actions"], closing], 1).ravel(),
        reward=np.concatenate([arrays["rewards"], 0.0 * closing], 1).ravel(),
        oracle_action=np.repeat(arrays["optimal"], steps + 1),
    )


def dark_room_rows(arrays: dict[str, np.ndarray], by_goal: bool = False) -> Rows:
    """The rows of Dark Room's arrays: one task for each recorded context, or for each goal if `by_goal`."""
    n, steps = arrays["actions"].shape
    side = _side(arrays)

    def cell(x: np.ndarray) -> np.ndarray:
        return x[..., 0].astype(np.int64) * side + x[..., 1]

    query = cell(arrays["query"])[:, None]
    nothing_query, nothing = np.full((n, 1), NOTHING), np.full((n, steps), NOTHING)

    def in_order(step: np.ndarray, after: np.ndarray, query: np.ndarray) -> np.ndarray:
        """The query, then each step and the row after it, (I,)."""
        return np.concatenate([query, np.stack([step, after], -1).reshape(n, -1)], 1).ravel()

    task = np.unique(arrays["goal"], axis=0, return_inverse=True)[1].ravel() if by_goal else np.arange(n)
    query_episode = np.arange(n)[:, None] * (steps + 1)
    episode = query_episode + np.arange(1, steps + 1)
    zeros = np.zeros((n, steps), np.int64)
    return _rows(
        task_id=np.repeat(task, 2 * steps + 1),
        episode_id=in_order(episode, episode, query_episode),
        t=in_order(zeros, zeros + 1, np.zeros((n, 1), np.int64)),
        observation=in_order(cell(arrays["states"]), cell(arrays["next_states"]), query),
        action=in_order(arrays["actions"], nothing, nothing_query),
        reward=in_order(arrays["rewards"].astype(np.float64), 0.0 * zeros, np.zeros((n, 1))),
        oracle_action=in_order(nothing, nothing, arrays["optimal"][:, None]),
    )


def shifted(arrays: dict[str, np.ndarray], rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Dark Room's contexts, each shifted by its own random offset on the torus of the grid, so that goals are uniform.

    The shift preserves the labels: a context informs only about the cells with and without a reward, and the oracle's
    action depends only on the difference between goal and query. The label of a shifted query is the recorded label of
    the same difference, or NOTHING if there is none. Steps across the border become jumps, which is harmless because
    only the reached cells are informative.
    """
    side = _side(arrays)
    difference = arrays["goal"].astype(np.int64) - arrays["query"] + side - 1
    label = np.full((2 * side - 1, 2 * side - 1), NOTHING)
    label[tuple(difference.T)] = arrays["optimal"]
    offset = rng.integers(side, size=(len(difference), 2))
    moved = {name: (arrays[name] + offset) % side for name in ("query", "goal")}
    moved |= {name: (arrays[name] + offset[:, None]) % side for name in ("states", "next_states")}
    return arrays | moved | {"optimal": label[tuple((moved["goal"] - moved["query"] + side - 1).T)]}


def _side(arrays: dict[str, np.ndarray]) -> int:
    return 1 + int(max(arrays["states"].max(), arrays["next_states"].max(), arrays["query"].max()))


def _rows(**columns: np.ndarray) -> Rows:
    n = len(columns["t"])
    integers = {name: x.astype(np.int64) for name, x in columns.items() if name != "reward"}
    return Rows(
        **integers,
        reward=columns["reward"].astype(np.float64),
        behavior_probability=np.full(n, np.nan),
        terminal=np.zeros(n, bool),
    )


class Kind(NamedTuple):
    """One of the two experiments.

    arrays: names of its arrays.
    family: its family.
    rows, training_rows: convert the arrays of a split to rows; `training_rows` augments them.
    unseen: the unseen problems, and their contexts or None.
    """

    name: str
    arrays: tuple[str, ...]
    family: type
    rows: Callable[[dict[str, np.ndarray]], Rows]
    training_rows: Callable[[dict[str, np.ndarray], np.random.Generator], Rows]
    unseen: Callable[[pathlib.Path, Any, Log, int], tuple[Any, np.ndarray | None]]


KINDS = (
    Kind("bandit", BANDIT, Bandit, bandit_rows, lambda arrays, rng: bandit_rows(arrays), bandit_tasks),
    Kind(
        "dark_room",
        DARK_ROOM,
        DarkRoom,
        dark_room_rows,
        lambda arrays, rng: dark_room_rows(shifted(arrays, rng), by_goal=True),
        dark_room_tasks,
    ),
)


def kind_of(arrays: dict[str, np.ndarray]) -> Kind:
    """The experiment with these arrays."""
    return next(kind for kind in KINDS if set(kind.arrays) <= set(arrays))
