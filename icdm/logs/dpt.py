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

import numpy as np
import pyarrow as pa

from icdm.errors import UserError, unknown
from icdm.logs.table import NOTHING, Rows, as_batch

BANDIT = ("actions", "rewards", "optimal", "means")
DARK_ROOM = ("states", "actions", "next_states", "rewards", "query", "optimal", "goal")


def load(path: pathlib.Path, split: str) -> dict[str, np.ndarray]:
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
    if not (set(BANDIT) <= set(found) or set(DARK_ROOM) <= set(found)):
        raise UserError(f"{path} holds {', '.join(sorted(found))}: neither the bandit's arrays nor Dark Room's")
    return found


def rows_of(path: pathlib.Path, split: str) -> Rows:
    arrays = load(path, split)
    return bandit_rows(arrays) if "means" in arrays else dark_room_rows(arrays)


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

    def cell(x):
        return x[..., 0].astype(np.int64) * side + x[..., 1]

    query = cell(arrays["query"])[:, None]
    nothing_query, nothing = np.full((n, 1), NOTHING), np.full((n, steps), NOTHING)

    def in_order(step, after, asked):
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


def _side(arrays) -> int:
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
