"""CSV files as people have them: commas, semicolons or tabs, compressed by gzip or not, in UTF-8, UTF-16 or Latin-1.

All columns are read as text, so that messages can name the row and column of a cell.
"""

import codecs
import csv
import functools
import gzip
import io
import pathlib
import re
import zlib
from collections.abc import Callable, Collection, Iterator
from typing import BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from icdm.errors import UserError
from icdm.logs.table import unreadable

ENDINGS = (".csv", ".tsv", ".csv.gz", ".tsv.gz")
DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
DECIMAL_COMMA = r"^\s*[-+]?\d+,\d+([eE][-+]?\d+)?\s*$"
DECIMAL_POINT = r"^\s*[-+]?\d*\.\d+"
RAGGED = r"(?:Row #(\d+): )?Expected (\d+) columns, got (\d+): (.*)"  # of Arrow's message
BLOCK = 2**24  # bytes that are parsed at a time
MOST_UNPACKED, MOST_RATIO = 2**28, 200  # a file of steps is not packed into a 200th of its size


def reader(path: pathlib.Path, known: Collection[str]) -> tuple[Callable[[], Iterator[pa.RecordBatch]], list[str]]:
    """(a function that starts a pass over the batches, what was found out about how the file is written).

    Args:
      known: names of columns that are looked for.

    Raises:
      UserError: the file cannot be read as text, or expands to too much of it.
    """
    try:
        encoding = _encoding(path)
        found = {mark: _header(path, encoding, mark) for mark in DELIMITERS}
    except (OSError, EOFError, zlib.error, UnicodeError, csv.Error) as error:
        raise unreadable(path, error) from None
    names = {mark: [_plain_name(name, known) for name in header] for mark, header in found.items()}
    delimiter = max(DELIMITERS, key=lambda mark: (sum(name in known for name in names[mark]), len(names[mark])))
    notes = [] if encoding == "utf-8" else [f"read as {encoding}"]
    if delimiter != ",":
        notes.append(f"cells are separated by {DELIMITERS[delimiter]}")
    renamed = [old for old, new in zip(found[delimiter], names[delimiter]) if old != new]
    if renamed:
        notes.append(f"the header's {', '.join(map(repr, renamed))} without blanks and capitals")
    raw = functools.partial(_batches, path, encoding, delimiter, found[delimiter], names[delimiter])
    if delimiter == ",":
        return raw, notes
    first = next(raw(), ())
    commas = [i for i, column in enumerate(first) if _has_decimal_commas(column)]
    if commas:
        notes.append(f"numbers of {', '.join(names[delimiter][i] for i in commas)} have a decimal comma")
    return (lambda: (_with_points(batch, commas) for batch in raw())), notes


def _opened(path: pathlib.Path) -> BinaryIO:
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    return gzip.open(path) if packed else path.open("rb")


def _encoding(path: pathlib.Path) -> str:
    """utf-8 if the whole file is, utf-16 if it says so, else latin-1."""
    with _opened(path) as file:
        start = file.read(4)
        if start[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
            return "utf-16"
        if start == b"PK\3\4":
            raise UserError(f"{path} is a zip archive, such as a spreadsheet: export it as CSV")
        encoding, decoder = "utf-8", codecs.getincrementaldecoder("utf-8")()
        size, most = 0, max(MOST_UNPACKED, MOST_RATIO * path.stat().st_size)
        file.seek(0)
        for block in iter(functools.partial(file.read, 2**20), b""):
            size += len(block)
            if size > most:
                raise UserError(f"{path} of {path.stat().st_size:,} bytes expands to more than {most:,}")
            if b"\0" in block:
                raise UserError(f"{path} is no text in UTF-8, UTF-16 or Latin-1: export it as CSV")
            try:
                decoder.decode(block)
            except UnicodeDecodeError:
                decoder, encoding = codecs.getincrementaldecoder("latin-1")(), "latin-1"
        return encoding


def _header(path: pathlib.Path, encoding: str, delimiter: str) -> list[str]:
    with _opened(path) as file:
        text = io.TextIOWrapper(file, "utf-8-sig" if encoding == "utf-8" else encoding, newline="")
        return next((row for row in csv.reader(text, delimiter=delimiter) if row), [])  # Arrow skips empty lines too


def _plain_name(name: str, known: Collection[str]) -> str:
    """A known name without blanks and capitals; other names without blanks."""
    name = name.strip()
    return name.lower() if name not in known and name.lower() in known else name


def _batches(
    path: pathlib.Path, encoding: str, delimiter: str, header: list[str], names: list[str]
) -> Iterator[pa.RecordBatch]:
    columns = pa.csv.ConvertOptions(
        column_types=dict.fromkeys(header, pa.string()), null_values=[""], strings_can_be_null=True
    )
    options = pa.csv.ParseOptions(delimiter=delimiter)
    block = min(BLOCK, 2**16 + MOST_RATIO * path.stat().st_size)
    reading = pa.csv.ReadOptions(use_threads=False, block_size=block, encoding=encoding)
    try:
        with _opened(path) as file, pa.csv.open_csv(file, reading, options, columns) as batches:
            for batch in batches:
                if batch.schema.names != header:
                    raise UserError(f"{path}: its header is not clear: {', '.join(header)[:200]!r}")
                yield pa.RecordBatch.from_arrays(batch.columns, names)
    except (OSError, EOFError, zlib.error, UnicodeError, pa.ArrowException) as error:
        ragged = re.search(RAGGED, str(error), re.DOTALL)
        if ragged:
            row, due, there, text = ragged.groups()
            number = f"row {int(row) - 1}: " if row else ""
            raise UserError(f"{path}: {number}{there} cells where {due} are due: {text[:60]!r}") from None
        raise unreadable(path, error) from None


def _has_decimal_commas(column: pa.Array) -> bool:
    """Whether numbers of a column have a decimal comma and none has a decimal point."""
    commas, points = (pc.any(pc.match_substring_regex(column, x)).as_py() for x in (DECIMAL_COMMA, DECIMAL_POINT))
    return bool(commas and not points)


def _with_points(batch: pa.RecordBatch, columns: list[int]) -> pa.RecordBatch:
    cells = list(batch.columns)
    for i in columns:
        number = pc.match_substring_regex(cells[i], DECIMAL_COMMA)
        cells[i] = pc.if_else(number, pc.replace_substring(cells[i], ",", "."), cells[i])
    return pa.RecordBatch.from_arrays(cells, batch.schema.names)
