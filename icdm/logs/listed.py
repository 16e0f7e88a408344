"""Parquet files with one row per episode, whose columns hold the lists of its steps, as rows of one step each.

So are the data of the Decision Transformer in Hugging Face's transformers: observations, actions, rewards and dones. I
counts steps.
"""

import pathlib
from collections.abc import Callable, Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from icdm.errors import UserError
from icdm.logs.table import parquet_batches

NAMES = {"observation": "observations", "action": "actions", "reward": "rewards", "terminal": "dones"}
IDS = ("task_id", "episode_id")  # one value for each episode


def list_columns(path: pathlib.Path, named: dict[str, str]) -> dict[str, str]:
    """The file's names of columns that hold lists of steps, by the table's; none if the rewards are no lists.

    Args:
      named: names that the user has given, by the table's.
    """
    schema = pq.read_schema(path)
    lists = {name for name in schema.names if _is_list(schema.field(name).type)}
    found = {ours: theirs for ours, theirs in (NAMES | named).items() if theirs in lists}
    return found if "reward" in found else {}


def reader(
    path: pathlib.Path, names: list[str], lists: dict[str, str], named: dict[str, str]
) -> tuple[list[str], Callable[..., Iterator[pa.RecordBatch]]]:
    """(names of the columns, a function that starts a pass over the batches), each column named as the user has named
    it, else as in the table.

    Args:
      names: all columns of the file.
      lists: as `list_columns` found them.
    """
    renamed = {theirs: named.get(ours, ours) for ours, theirs in lists.items()}
    ids = [named.get(name, name) for name in IDS if named.get(name, name) in names]
    here = [renamed.get(name, name) for name in names]
    made = [name for name in ("episode_id", "t") if name not in here]
    return [*here, *made], lambda columns: _batches(path, renamed, ids)


def _batches(path: pathlib.Path, lists: dict[str, str], ids: list[str]) -> Iterator[pa.RecordBatch]:
    before = 0
    for batch in parquet_batches(path, [*lists, *ids]):
        length = _lengths(path, batch, list(lists), before)
        first = np.cumsum(length) - length
        episode_I = np.repeat(np.arange(len(length)), length)
        columns = {
            "episode_id": pa.array(episode_I + before),
            "t": pa.array(np.arange(length.sum()) - first[episode_I]),
        }
        columns |= {name: batch.column(name).take(pa.array(episode_I)) for name in ids}
        for theirs, name in lists.items():
            columns[name] = _numbers_or_vectors(path, theirs, batch.column(theirs).flatten())
        before += batch.num_rows
        yield pa.RecordBatch.from_pydict(columns)


def _lengths(path: pathlib.Path, batch: pa.RecordBatch, names: list[str], before: int) -> np.ndarray:
    """Steps of each episode.

    Raises:
      UserError: the lists of an episode differ in length, or one is missing.
    """
    lengths = {name: pc.list_value_length(batch.column(name)).fill_null(-1).to_numpy() for name in names}
    first, length = next(iter(lengths.items()))
    for name, other in lengths.items():
        if (other < 0).any():
            raise UserError(f"{path}: row {before + int((other < 0).argmax()) + 1} has no {name}")
        if (other != length).any():
            row = int((other != length).argmax())
            raise UserError(f"{path}: row {before + row + 1}: {other[row]} {name} beside {length[row]} {first}")
    return length.astype(np.int64)


def _numbers_or_vectors(path: pathlib.Path, name: str, column: pa.Array) -> pa.Array:
    """Lists of equally many numbers as vectors, or as numbers if there is one in each."""
    if not _is_list(column.type):
        return column
    widths = pc.unique(pc.list_value_length(column)).to_pylist()
    if len(widths) != 1 or not widths[0]:
        raise UserError(f"{path}: the vectors of column {name} differ in length, or are missing")
    return column.flatten() if widths == [1] else pa.FixedSizeListArray.from_arrays(column.flatten(), widths[0])


def _is_list(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
