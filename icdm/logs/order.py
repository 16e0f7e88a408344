"""Rows in the order of their episodes and of t; all rows are in memory at once. I counts rows."""

import pathlib
from collections.abc import Callable, Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from icdm.errors import UserError
from icdm.logs.columns import NUMBER, is_text, raw_values

Batches = Iterator[pa.RecordBatch]


def in_order(path: pathlib.Path, batches: Callable[[], Batches], rows: int) -> Batches:
    """Batches of so many rows, sorted by task, episode (each in the order of first appearance) and t.

    If t holds time stamps, it becomes the rank of the time stamp in the episode, from 0.

    Raises:
      UserError: t holds neither integers nor time stamps in the form of ISO 8601, or the parts do not fit together.
    """
    parts = list(batches())
    if not parts:
        return
    try:
        tables = [pa.Table.from_batches([part]) for part in parts]
        table = pa.concat_tables(tables, promote_options="permissive").combine_chunks()
    except pa.ArrowException as error:
        raise UserError(f"{path}: a column changes from one part of the file to another: {error}") from None
    for field in table.schema:
        if pa.types.is_list(field.type):  # vectors of one length are lists of a fixed size
            raise UserError(f"{path}: the vectors of column {field.name} differ in length")
    task_I, episode_I, t = (table.column(name).combine_chunks() for name in ("task_id", "episode_id", "t"))
    task_I, episode_I = _appearance(task_I), _appearance(episode_I)
    stamped = _are_stamps(t)
    key_I = _stamps(path, t) if stamped else raw_values(t, "integers")[0]
    order_I = np.lexsort((key_I, episode_I, task_I))
    if stamped:
        ranks = pa.array(_ranks(key_I, episode_I, task_I, order_I))
        table = table.set_column(table.schema.names.index("t"), "t", ranks)
    yield from table.take(pa.array(order_I)).combine_chunks().to_batches(max_chunksize=rows)


def _appearance(column: pa.Array) -> np.ndarray:
    """Which of the column's distinct values each cell has, counted in the order of their first appearance, (I,)."""
    text = pc.utf8_trim_whitespace(column) if is_text(column.type) else column
    return text.dictionary_encode().indices.fill_null(-1).to_numpy(zero_copy_only=False)


def _ranks(key_I: np.ndarray, episode_I: np.ndarray, task_I: np.ndarray, order_I: np.ndarray) -> np.ndarray:
    """The rank of each row's key in its episode; rows with the same key have the same rank, (I,)."""
    key, episode, task = key_I[order_I], episode_I[order_I], task_I[order_I]
    first = np.concatenate([[True], (np.diff(episode) != 0) | (np.diff(task) != 0)])
    higher = np.cumsum(np.concatenate([[False], np.diff(key) != 0]) | first)
    ranks = np.empty(len(key), np.int64)
    ranks[order_I] = higher - np.maximum.accumulate(np.where(first, higher, 0))
    return ranks


def _are_stamps(t: pa.Array) -> bool:
    if not is_text(t.type):
        return pa.types.is_timestamp(t.type)
    return not pc.any(pc.match_substring_regex(pc.utf8_trim_whitespace(t), NUMBER)).as_py()


def _stamps(path: pathlib.Path, t: pa.Array) -> np.ndarray:
    """Microseconds, (I,) int64."""
    try:
        stamps = (pc.utf8_trim_whitespace(t) if is_text(t.type) else t).cast(pa.timestamp("us"))
    except pa.ArrowInvalid:
        raise UserError(f"{path}: column t holds no integers and no time stamps such as 2101-03-01 04:00:00") from None
    if stamps.null_count:
        raise UserError(f"{path}: column t lacks {stamps.null_count} time stamps")
    return stamps.cast(pa.int64()).to_numpy(zero_copy_only=False)
