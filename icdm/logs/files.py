"""Files of other formats (CSV, Parquet, the .npz of DPT (Lee et al., 2023), the JSON lines of icdm export, Minari) as
streams of raw Arrow batches.

A raw batch has the table's columns by name, with the values of the file. A column has one kind: integers, reals or
words. A cell that breaks its column's kind has a fault, a message for the user; the faults of a column are an object
array (I,) with None for cells without a fault. I counts rows.
"""

import csv
import functools
import pathlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from icdm.errors import UserError, unknown
from icdm.logs import dpt, minari, supervised
from icdm.logs.codings import MOST_INTEGERS, UNKNOWN, Coding, Integers, Words, fit_bins
from icdm.logs.table import NOTHING, OPTIONAL, REQUIRED, Rows, faulty, parquet_batches, unreadable

NUMBER = r"^\s*[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?\s*$"
KINDS = ("integers", "reals", "words")


class Source(NamedTuple):
    """A file that can be read several times.

    path: the file or directory.
    batches: starts a new pass over the raw batches.
    kinds: the kind of each of the four coded columns.
    """

    path: pathlib.Path
    batches: Callable[[], Iterator[pa.RecordBatch]]
    kinds: dict[str, str]


def open_source(path: str | pathlib.Path, split: str = "") -> Source:
    """The raw rows of a file or Minari directory.

    Args:
      split: the part of an .npz of DPT: train, test or eval.

    Raises:
      UserError: the file does not exist, cannot be read, lacks a column, or has an unknown column.
    """
    path = pathlib.Path(path)
    if not path.exists():
        raise UserError(f"{path}: no such file")
    if path.is_dir():
        batches = minari.reader(path)
    elif path.suffix == ".npz":
        batches = dpt.reader(path, split or "train")
    elif path.suffix == ".csv":
        batches = functools.partial(_csv_batches, path)
    elif path.suffix == ".jsonl":
        batches = supervised.reader(path)
    elif path.suffix in (".parquet", ".pq"):
        batches = functools.partial(parquet_batches, path)
    else:
        raise UserError(f"{path}: give a .parquet, .csv, .npz or .jsonl file, or a Minari directory")
    first = next(iter(batches()), None)
    if first is None or not first.num_rows:
        raise UserError(f"{path} holds no rows")
    names = first.schema.names
    for name in REQUIRED:
        if name not in names:
            raise UserError(f"{path}: column {name} is missing (it has {', '.join(names)})")
    for name in names:
        if name not in REQUIRED + OPTIONAL:
            raise unknown(f"column of {path}", name, REQUIRED + OPTIONAL)
    coded = ("task_id", "episode_id", "observation", "action")
    return Source(path, batches, {name: _kind(first.column(name)) for name in coded})


def fit_codings(source: Source, n_bins: int, binning: str) -> dict[str, Coding]:
    """Codings of all values of the source, in one pass over it.

    Args:
      n_bins, binning: number and kind of the intervals of real columns (see `fit_bins`).

    Raises:
      UserError: a column cannot be coded.
    """
    values_of: dict[str, list] = {name: [] for name in source.kinds}
    for batch in source.batches():
        for name, kind in source.kinds.items():
            columns = [batch.column(name)]
            if name == "action" and "oracle_action" in batch.schema.names:
                columns.append(batch.column("oracle_action"))
            for column in columns:
                values, there, faults = raw_values(column, kind)
                values = values[there & ~faulty(faults)]
                values_of[name].append(values if kind == "reals" else np.unique(values))
    return {name: _fitted(source, name, values_of[name], n_bins, binning) for name in source.kinds}


def _fitted(source: Source, name: str, parts: list[np.ndarray], n_bins: int, binning: str) -> Coding:
    values = np.concatenate(parts)
    if source.kinds[name] == "reals":
        if name in ("task_id", "episode_id"):
            raise UserError(f"{source.path}: column {name} holds numbers with a fraction: give integers or words")
        return fit_bins(values, n_bins, binning)
    if source.kinds[name] == "words":
        return Words(tuple(np.unique(values).tolist()))
    if name in ("task_id", "episode_id"):
        return Integers(2**62)
    n = int(values.max(initial=0)) + 1
    if n > MOST_INTEGERS:
        raise UserError(f"{source.path}: column {name} holds {n - 1}: number its values from 0, or write them as words")
    return Integers(n)


def coded_parts(source: Source, codings: dict[str, Coding]) -> Iterator[tuple[Rows, dict]]:
    """The source's rows as codes, with the faults of cells by column."""
    for batch in source.batches():
        yield code(batch, source.kinds, codings)


def code(batch: pa.RecordBatch, kinds: dict[str, str], codings: dict[str, Coding]) -> tuple[Rows, dict]:
    """The rows of one raw batch as codes, with the faults of cells by column.

    Args:
      kinds: the kind of each coded column.
      codings: the coding of each coded column.
    """
    cells, codes = {}, {}

    def column(name: str, kind: str, needed: bool) -> tuple[np.ndarray, np.ndarray]:
        if name not in batch.schema.names:
            return np.full(batch.num_rows, np.nan), np.zeros(batch.num_rows, bool)
        values, there, faults = raw_values(batch.column(name), kind)
        if needed:
            faults[~there] = "missing"
        wrong = faulty(faults)
        if wrong.any():
            cells[name] = faults
        return values, there & ~wrong

    for name in ("task_id", "episode_id", "observation", "action", "oracle_action"):
        coding = codings["action" if name == "oracle_action" else name]
        kind = kinds["action" if name == "oracle_action" else name]
        values, there = column(name, kind, name not in ("action", "oracle_action"))
        coded = np.full(batch.num_rows, NOTHING, np.int64)
        coded[there] = coding.encode(values[there])
        strange = coded == UNKNOWN
        if strange.any():
            faults = cells.setdefault(name, np.full(batch.num_rows, None, object))
            faults[strange] = [f"{value} is not among the {coding.n} values known" for value in values[strange]]
        codes[name] = np.where(strange, NOTHING, coded)
    t, there = column("t", "integers", True)
    reward, paid = column("reward", "reals", False)
    probability, known = column("behavior_probability", "reals", False)
    terminal, marked = column("terminal", "reals", False)
    acted = codes["action"] != NOTHING
    if (paid & ~acted).any():
        faults = cells.setdefault("action", np.full(batch.num_rows, None, object))
        faults[paid & ~acted & ~faulty(faults)] = "missing, though there is a reward"
    rows = Rows(
        task_id=codes["task_id"],
        episode_id=codes["episode_id"],
        t=np.where(there, t, NOTHING).astype(np.int64),
        observation=np.maximum(codes["observation"], 0),
        action=codes["action"],
        reward=np.where(acted, np.where(paid, reward, np.nan), 0.0),
        oracle_action=codes["oracle_action"],
        behavior_probability=np.where(known, probability, np.nan),
        terminal=np.where(marked, terminal, 0).astype(bool),
    )
    return rows, cells


def raw_values(column: pa.Array, kind: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(values, whether the cell has a value, faults) of a column, each (I,); vectors of D numbers are (I, D)."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    faults = np.full(len(column), None, object)
    legible = np.ones(len(column), bool)
    there = column.is_valid().to_numpy(zero_copy_only=False)
    if _is_vector(column.type):
        width = column.type.list_size
        values = column.flatten().to_numpy(zero_copy_only=False) if width else column.to_numpy(zero_copy_only=False)
        return np.asarray(values, np.float64).reshape(len(column), -1), there, faults
    if _is_text(column.type):
        there &= pc.not_equal(pc.utf8_trim_whitespace(column.fill_null("")), "").to_numpy(zero_copy_only=False)
        if kind == "words":
            return np.asarray(column.fill_null("").to_pylist(), str), there, faults
        truth = pc.is_in(column, pa.array(["true", "True", "false", "False"])).to_numpy(zero_copy_only=False)
        if truth.any():
            column = pc.replace_substring_regex(column, "^[Tt]rue$", "1")
            column = pc.replace_substring_regex(column, "^[Ff]alse$", "0")
        legible = pc.match_substring_regex(column.fill_null(""), NUMBER).to_numpy(zero_copy_only=False)
        faults[there & ~legible] = [
            f"{x!r} is not a number" for x in column.filter(pa.array(there & ~legible)).to_pylist()
        ]
        digits = pc.if_else(pa.array(there & legible), pc.utf8_trim_whitespace(column), "0")
        values = digits.cast(pa.float64()).to_numpy(zero_copy_only=False)
    elif kind == "words":
        return np.asarray(column.cast(pa.string()).fill_null("").to_pylist(), str), there, faults
    else:
        values = column.cast(pa.int8()) if pa.types.is_boolean(column.type) else column
        values = values.fill_null(0).to_numpy(zero_copy_only=False)
    if kind == "integers":
        with np.errstate(invalid="ignore"):
            whole = np.where(np.isfinite(values.astype(np.float64)), values, 0.5)
        bad = there & legible & ((whole != np.floor(whole)) | (values < 0))
        faults[bad] = [f"{x:g} is not an integer from 0" for x in values[bad]]
        return np.where(bad, 0, values).astype(np.int64), there, faults
    values = values.astype(np.float64)
    bad = there & legible & ~np.isfinite(values)
    faults[bad] = [f"{x} is not a finite number" for x in values[bad]]
    return values, there, faults


def _kind(column: pa.Array) -> str:
    """The kind of a column: from its type, or from the values of its first batch if it is text."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if _is_vector(column.type) or pa.types.is_floating(column.type):
        return "reals"
    if not _is_text(column.type):
        return "integers"
    text = column.drop_null().filter(pc.not_equal(column.drop_null(), ""))
    if not len(text):
        return "integers"
    numbers = pc.match_substring_regex(text, NUMBER).to_numpy(zero_copy_only=False)
    if numbers.mean() < 0.5:
        return "words"
    whole = pc.match_substring_regex(text, r"^\s*[-+]?\d+\s*$").to_numpy(zero_copy_only=False)
    return "integers" if whole[numbers].mean() > 0.5 else "reals"


def _is_text(type: pa.DataType) -> bool:
    return pa.types.is_string(type) or pa.types.is_large_string(type)


def _is_vector(type: pa.DataType) -> bool:
    return pa.types.is_fixed_size_list(type)


def _csv_batches(path: pathlib.Path) -> Iterator[pa.RecordBatch]:
    """Batches with all columns as text, so that messages can name the row and column of a cell."""
    ragged = []

    def refuse(row: pa.csv.InvalidRow) -> str:
        ragged.append(row)
        return "error"

    try:
        with path.open(newline="", encoding="utf-8") as file:
            names = next(csv.reader(file), [])
        columns = pa.csv.ConvertOptions(
            column_types=dict.fromkeys(names, pa.string()), null_values=[""], strings_can_be_null=True
        )
        options = pa.csv.ParseOptions(invalid_row_handler=refuse)
        reading = pa.csv.ReadOptions(use_threads=False, block_size=2**24)
        with pa.csv.open_csv(path, reading, options, columns) as reader:
            yield from reader
    except pa.ArrowInvalid as error:
        if ragged:
            row = ragged[0]
            number = "" if row.number is None else f"row {row.number - 1}: "
            raise UserError(
                f"{path}: {number}{row.actual_columns} cells where {row.expected_columns} are due: {row.text[:60]!r}"
            ) from None
        raise unreadable(path, error) from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise unreadable(path, error) from None
