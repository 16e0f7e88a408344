"""The arrays of d3rlpy's MDPDataset (Seno and Imai, 2022) as rows: all steps of one task, one after another.

observations (I, ...), actions (I,) or (I, D), rewards (I,), terminals (I,), and `timeouts` or `episode_terminals` (I,)
where episodes also end in another way. I counts steps. The observation after an episode's last step is not recorded.
"""

import pathlib

import numpy as np
import pyarrow as pa

from icdm.errors import UserError

ARRAYS = ("observations", "actions", "rewards", "terminals")
ENDS = ("timeouts", "episode_terminals")


def holds(arrays: dict[str, np.ndarray]) -> bool:
    """Whether the arrays are those of an MDPDataset."""
    return set(ARRAYS) <= set(arrays)


def batch_of(path: pathlib.Path, arrays: dict[str, np.ndarray]) -> pa.RecordBatch:
    """The raw rows.

    Raises:
      UserError: shapes that do not fit together, or marks other than 0 and 1.
    """
    n = len(np.atleast_1d(arrays["rewards"]))
    flat = {name: _flat(path, name, x, n) for name, x in arrays.items() if name in ARRAYS + ENDS}
    for name in ("rewards", "terminals", *ENDS):
        if name in flat and flat[name].ndim > 1:
            raise UserError(f"{path}: {name} has the shape {arrays[name].shape} instead of ({n},)")
    marks = {name: flat[name] for name in ("terminals", *ENDS) if name in flat}
    for name, x in marks.items():
        if not np.isin(x, (0, 1)).all():
            raise UserError(f"{path}: {name} holds other values than 0 and 1")
    last = np.logical_or.reduce([x != 0 for x in marks.values()])
    episode = np.concatenate([[0], np.cumsum(last)[:-1]]) if n else np.zeros(0, np.int64)
    first = np.searchsorted(episode, episode)
    columns = {
        "task_id": np.zeros(n, np.int64),
        "episode_id": episode.astype(np.int64),
        "t": np.arange(n) - first,
        "observation": flat["observations"],
        "action": flat["actions"],
        "reward": flat["rewards"],
        "terminal": flat["terminals"] != 0,
    }
    return pa.RecordBatch.from_pydict({name: arrow(x) for name, x in columns.items()})


def arrow(values: np.ndarray) -> pa.Array:
    """An Arrow column of numbers, or of vectors as lists of a fixed size."""
    if values.ndim == 1:
        return pa.array(values)
    return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])


def _flat(path: pathlib.Path, name: str, x: np.ndarray, n: int) -> np.ndarray:
    """(I,) or (I, D); a last axis of length 1 holds numbers."""
    if x.ndim not in (1, 2) or len(x) != n or x.size == 0:
        raise UserError(f"{path}: {name} has the shape {x.shape}: ({n},) or ({n}, D) is supported")
    return x[:, 0] if x.ndim == 2 and x.shape[1] == 1 else x
