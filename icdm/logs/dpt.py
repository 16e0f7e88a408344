"""The data files of the Decision-Pretrained Transformer (Lee et al., NeurIPS 2023) as tables.

Bandit: {train,test,eval}_{actions (N, T), rewards (N, T), optimal (N,), means (N, A)}: one episode of T
pulls a task, and the best arm as the oracle's action of every row, the closing one included.
Dark Room: {train,test}_{states (N, T, 2), actions, next_states, rewards, query (N, 2), optimal (N,), goal}:
T independent steps a task, each an episode of its own, and the query as an episode without a step, which
carries the oracle's action.
"""

import pathlib
import zipfile
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow as pa

from icdm.errors import UserError, unknown
from icdm.families.bandit import Bandit
from icdm.families.dark_room import DarkRoom
from icdm.logs.log import Log, load
from icdm.logs.table import NOTHING, Rows, as_batch, plain_codings, write_table
from icdm.problems.family import Family

BANDIT = ("actions", "rewards", "optimal", "means")
DARK_ROOM = ("states", "actions", "next_states", "rewards", "query", "optimal", "goal")


def arrays_of(path: pathlib.Path, split: str) -> dict[str, np.ndarray]:
    """The arrays of one split by their names without it.

    Raises:
      UserError: not an .npz file, a split that it does not hold, arrays that are neither of the two.
    """
    try:
        with np.load(path) as file:
            arrays = {name: file[name] for name in file.files}
    except (OSError, ValueError, zipfile.BadZipFile, EOFError) as error:
        raise UserError(f"{path} cannot be read as .npz ({str(error)[:80]})") from None
    splits = sorted({name.split("_")[0] for name in arrays})
    if split not in splits:
        raise unknown(f"split of {path}", split, splits)
    found = {name.removeprefix(split + "_"): x for name, x in arrays.items() if name.startswith(split + "_")}
    if not any(set(kind.arrays) <= set(found) for kind in KINDS):
        raise UserError(f"{path} holds {', '.join(sorted(found))}: neither the bandit's arrays nor Dark Room's")
    return found


def rows_of(path: pathlib.Path, split: str) -> Rows:
    """The rows of one split, a task for each of its contexts."""
    arrays = arrays_of(path, split)
    return kind_of(arrays).rows(arrays)


def split(
    path: pathlib.Path, family: Family, workdir: pathlib.Path, seed: int, episodes: int
) -> tuple[Log, Log, Any, np.ndarray | None]:
    """(the log of the training split, that of the test split, N unseen problems, episodes of the test split to show in
    each of them, (N, E, K), or None); tables of both splits are written into the work directory.

    Raises:
      UserError: a file that goes with another family, or too few contexts for R episodes in each task.
    """
    arrays = {name: arrays_of(path, name) for name in ("train", "test")}
    kind = kind_of(arrays["train"])
    if not isinstance(family, kind.family):
        fits, given = (cls.__name__ for cls in (kind.family, type(family)))
        raise UserError(f"{path} goes with the family {fits}, not {given}: set config.family accordingly")
    rows = {
        "train": kind.training_rows(arrays["train"], np.random.default_rng(seed)),
        "test": kind.rows(arrays["test"]),
    }
    codings = plain_codings(family.n_states, family.n_actions)
    train, test = (load(write_table(workdir / f"{name}.parquet", [rows[name]], codings)) for name in rows)
    with jax.enable_x64(True):
        return train, test, *kind.unseen(path, family, test, episodes)


def bandit_tasks(path: pathlib.Path, family: Bandit, test: Log, episodes: int) -> tuple[Any, None]:
    """The tasks of the split `eval`, which are acted in from an empty history."""
    means = arrays_of(path, "eval")["means"].astype(np.float64)
    return jax.vmap(family.problem)(jnp.asarray(means)), None


def dark_room_tasks(path: pathlib.Path, family: DarkRoom, test: Log, episodes: int) -> tuple[Any, np.ndarray]:
    """The goals of the split `test`, each with R of the contexts that were recorded for it."""
    goals = arrays_of(path, "test")["goal"].astype(int)
    goals, which = np.unique(goals[:, 0] * family.size + goals[:, 1], return_inverse=True)
    problem = jax.vmap(family.problem)(jax.nn.one_hot(jnp.asarray(goals), family.n_states))
    rows = [np.flatnonzero(which == i) for i in range(len(goals))]
    fewest = min(map(len, rows))
    if fewest < episodes:
        raise UserError(f"evaluation.episodes {episodes}: {path} holds contexts for {fewest} in each task")
    return problem, np.stack([[test.contexts[row] for row in of_goal[:episodes]] for of_goal in rows])


def reader(path: pathlib.Path, split: str) -> Callable[[], Iterator[pa.RecordBatch]]:
    return lambda: iter([as_batch(rows_of(path, split))])


def bandit_rows(arrays: dict[str, np.ndarray]) -> Rows:
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
    """A task for each recorded context; `by_goal`, one for each goal, with all steps and queries that have it."""
    n, steps = arrays["actions"].shape
    side = _side(arrays)

    def cell(x: np.ndarray) -> np.ndarray:
        return x[..., 0].astype(np.int64) * side + x[..., 1]

    query = cell(arrays["query"])[:, None]
    nothing_query, nothing = np.full((n, 1), NOTHING), np.full((n, steps), NOTHING)

    def in_order(step: np.ndarray, after: np.ndarray, asked: np.ndarray) -> np.ndarray:
        """The query first, then each step with the row after it."""
        return np.concatenate([asked, np.stack([step, after], -1).reshape(n, -1)], 1).ravel()

    task = np.unique(arrays["goal"], axis=0, return_inverse=True)[1].ravel() if by_goal else np.arange(n)
    asked_episode = np.arange(n)[:, None] * (steps + 1)
    episode = asked_episode + np.arange(1, steps + 1)
    zeros = np.zeros((n, steps), np.int64)
    return _rows(
        task_id=np.repeat(task, 2 * steps + 1),
        episode_id=in_order(episode, episode, asked_episode),
        t=in_order(zeros, zeros + 1, np.zeros((n, 1), np.int64)),
        observation=in_order(cell(arrays["states"]), cell(arrays["next_states"]), query),
        action=in_order(arrays["actions"], nothing, nothing_query),
        reward=in_order(arrays["rewards"].astype(np.float64), 0.0 * zeros, np.zeros((n, 1))),
        oracle_action=in_order(nothing, nothing, arrays["optimal"][:, None]),
    )


def shifted(arrays: dict[str, np.ndarray], rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Dark Room's contexts, each moved by an offset of its own on the grid closed to a torus.

    What a context tells is where a reward was seen and where not, and what the oracle answers depends on the way
    from the query to the goal alone: both move with the grid. So every cell comes to be a goal as often as any
    other. The answer to a moved query is the one that was recorded for the same way, NOTHING where none was.
    Steps that cross the border come out as jumps; which cells they reached is what counts.
    """
    side = _side(arrays)
    way = arrays["goal"].astype(np.int64) - arrays["query"] + side - 1
    answer = np.full((2 * side - 1, 2 * side - 1), NOTHING)
    answer[tuple(way.T)] = arrays["optimal"]
    offset = rng.integers(side, size=(len(way), 2))
    moved = {name: (arrays[name] + offset) % side for name in ("query", "goal")}
    moved |= {name: (arrays[name] + offset[:, None]) % side for name in ("states", "next_states")}
    return arrays | moved | {"optimal": answer[tuple((moved["goal"] - moved["query"] + side - 1).T)]}


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
    """One of the two experiments: its arrays, its family, and how its rows and unseen tasks are made."""

    arrays: tuple[str, ...]
    family: type
    rows: Callable[[dict[str, np.ndarray]], Rows]
    training_rows: Callable[[dict[str, np.ndarray], np.random.Generator], Rows]
    unseen: Callable[[pathlib.Path, Any, Log, int], tuple[Any, np.ndarray | None]]


KINDS = (
    Kind(BANDIT, Bandit, bandit_rows, lambda arrays, rng: bandit_rows(arrays), bandit_tasks),
    Kind(
        DARK_ROOM,
        DarkRoom,
        dark_room_rows,
        lambda arrays, rng: dark_room_rows(shifted(arrays, rng), by_goal=True),
        dark_room_tasks,
    ),
)


def kind_of(arrays: dict[str, np.ndarray]) -> Kind:
    """Which of the two it is."""
    return next(kind for kind in KINDS if set(kind.arrays) <= set(arrays))
