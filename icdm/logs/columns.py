"""Columns of files of other formats: the Arrow types that are read, the kind of values a column holds, the values.

A column has one kind: integers, reals, words or truths. A cell that breaks its column's kind has a fault, a message for
the user; the faults of a column are an object array (I,) with None for cells without a fault. A cell without a value is
null, blank or nan: no number stands for "nothing". I counts rows, D the numbers of a vector.
"""

import dataclasses
import decimal
import pathlib

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from icdm.errors import UserError
from icdm.logs.codings import NO_NAMES

NUMBER = r"^[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?$"
WHOLE = r"^[-+]?\d{1,18}(\.0*)?$"
TRUTHS = {"true": 1, "t": 1, "1": 1, "1.0": 1, "false": 0, "f": 0, "0": 0, "0.0": 0}
SUPPORTED = "integers, reals, truth values, text, dictionaries of these, and lists of numbers as vectors are supported"
VECTORS = ("observation", "action", "oracle_action")
MOST_TEXT = 2**28  # bytes of a column of one batch
MOST_EXACT = 2**53  # above it a real number does not stand for one integer


def plain(path: pathlib.Path, name: str, column: pa.Array) -> pa.Array:
    """The column with one of the types int64, uint64, float64, bool, string, a fixed-size list of numbers or, as t, a
    time stamp.

    Raises:
      UserError: a column of another type (the message names it and what is supported), vectors that differ in length,
        text that takes too much memory, bytes that are no text, or values that a dictionary does not hold.
    """
    kind = column.type
    if pa.types.is_dictionary(kind):
        try:
            return plain(path, name, _decoded(path, name, column))
        except pa.ArrowIndexError as error:
            raise UserError(
                f"{path}: column {name} refers to values that the file does not hold: write it again"
            ) from error
    if is_text(kind):
        try:
            column.validate(full=True)  # a damaged file may hold any bytes
        except pa.ArrowInvalid as error:
            raise UserError(f"{path}: column {name} holds bytes that are no text in UTF-8: write it again") from error
        return column.cast(pa.string())
    if pa.types.is_null(kind):
        return column.cast(pa.string())
    if pa.types.is_integer(kind):
        return column if pa.types.is_uint64(kind) else column.cast(pa.int64())
    if pa.types.is_floating(kind):
        return column.cast(pa.float64())
    if pa.types.is_boolean(kind) or _is_vector(kind) and name in VECTORS:
        return column
    if name in VECTORS and (pa.types.is_list(kind) or pa.types.is_large_list(kind)) and is_number(kind.value_type):
        return _of_one_width(path, name, column)
    if name == "t" and (pa.types.is_timestamp(kind) or pa.types.is_date(kind)):
        return column.cast(pa.timestamp("us"))
    raise UserError(f"{path}: column {name} is of the type {kind}: {SUPPORTED}")


def _of_one_width(path: pathlib.Path, name: str, column: pa.Array) -> pa.Array:
    width = pc.max(pc.list_value_length(column)).as_py() or 0
    try:
        return column.cast(pa.list_(column.type.value_type, max(width, 1)))
    except pa.ArrowInvalid:
        raise UserError(f"{path}: the vectors of column {name} differ in length") from None


def _decoded(path: pathlib.Path, name: str, column: pa.DictionaryArray) -> pa.Array:
    if is_text(column.type.value_type):
        # The lengths are added up first: a file of some hundred bytes can stand for a column of terabytes.
        length = pc.binary_length(column.dictionary.cast(pa.large_string())).take(column.indices)
        size = pc.sum(length).as_py() or 0
        if size > MOST_TEXT:
            raise UserError(f"{path}: {len(column):,} rows of column {name} take {size:,} bytes: at most {MOST_TEXT:,}")
    return column.dictionary.take(column.indices)


def measured(column: pa.Array) -> pa.Array:
    """The `plain` column of a feature, null where its text stands for nothing, such as NA."""
    if not is_text(column.type):
        return column
    absent = pc.is_in(pc.utf8_lower(pc.utf8_trim_whitespace(column)), pa.array(["", *NO_NAMES]))
    return pc.if_else(absent, pa.scalar(None, column.type), column)


@dataclasses.dataclass
class Seen:
    """What the values of a column look like, counted over the parts of a file.

    Attributes:
      filled: cells with a value.
      numbers: those that are numbers.
      fractions: numbers that are not whole.
      padded: words with blanks around them.
      zeros: numbers written with a leading zero, such as 007.
      vector: whether the values are vectors.
    """

    filled: int = 0
    numbers: int = 0
    fractions: int = 0
    padded: int = 0
    zeros: int = 0
    vector: bool = False

    def add(self, column: pa.Array) -> None:
        """Counts the cells of a `plain` column."""
        if _is_vector(column.type):
            self.vector = True
            self.filled += len(column) - column.null_count
        elif is_text(column.type):
            self._add_text(column.drop_null())
        else:
            values = column.drop_null().to_numpy(zero_copy_only=False)
            values = values[~np.isnan(values)] if values.dtype.kind == "f" else values
            self.filled += len(values)
            self.numbers += len(values)
            if values.dtype.kind == "f":
                self.fractions += int((values[np.isfinite(values)] % 1 != 0).sum())

    def _add_text(self, column: pa.Array) -> None:
        text = pc.utf8_trim_whitespace(column)
        filled = pc.not_equal(text, "")
        numbers = text.filter(pc.match_substring_regex(text, NUMBER))
        others = numbers.filter(pc.invert(pc.match_substring_regex(numbers, WHOLE)))
        self.filled += pc.sum(filled).as_py() or 0
        self.numbers += len(numbers)
        self.fractions += sum(not _is_whole(_decimal(x)) for x in others.to_pylist())
        self.padded += pc.sum(pc.and_(filled, pc.not_equal(column, text))).as_py() or 0
        self.zeros += pc.sum(pc.match_substring_regex(numbers, r"^[-+]?0\d")).as_py() or 0

    @property
    def kind(self) -> str:
        """words if most values are no numbers, integers if all numbers are whole however they are written."""
        if self.vector:
            return "reals"
        if 2 * self.numbers < self.filled:
            return "words"
        return "reals" if self.fractions else "integers"


def raw_values(column: pa.Array, kind: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(values, whether the cell has a value, faults) of a `plain` column, each (I,); vectors are (I, D)."""
    there = column.is_valid().to_numpy(zero_copy_only=False)
    faults = np.full(len(column), None, object)
    if _is_vector(column.type):
        return _vectors(column, there, faults)
    if pa.types.is_timestamp(column.type):
        faults[there] = "a time stamp is not a number"
        return np.zeros(len(column), np.int64), there, faults
    if is_text(column.type):
        text = pc.utf8_trim_whitespace(column.fill_null(""))
        there = pc.not_equal(text, "").to_numpy(zero_copy_only=False)
        return {"words": _words, "truths": _truths, "integers": _integers, "reals": _reals}[kind](text, there, faults)
    if kind == "words":
        return _words(column.cast(pa.string()).fill_null(""), there, faults)
    values = (column.cast(pa.int8()) if pa.types.is_boolean(column.type) else column).fill_null(0)
    return _numbers(values.to_numpy(zero_copy_only=False), there, faults, kind)


def _vectors(column: pa.Array, there: np.ndarray, faults: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    width = column.type.list_size
    entries = column.values.slice(column.offset * width, len(column) * width)  # flatten() would omit null vectors
    values = entries.cast(pa.float64()).to_numpy(zero_copy_only=False).reshape(len(column), width)
    faults[there & ~np.isfinite(values).all(1)] = "a number of the vector is missing or not finite"
    return values, there, faults


def _words(text: pa.Array, there: np.ndarray, faults: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return np.asarray(text.to_pylist(), str), there, faults


def _truths(text: pa.Array, there: np.ndarray, faults: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    words = [x.lower() for x in text.to_pylist()]
    values = np.array([TRUTHS.get(word, -1) for word in words], np.int64)
    bad = there & (values < 0)
    faults[bad] = [f"{x!r} is not a truth value: give true, false, 1 or 0" for x in _at(words, bad)]
    return np.maximum(values, 0), there, faults


def _reals(text: pa.Array, there: np.ndarray, faults: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    legible = pc.match_substring_regex(text, NUMBER).to_numpy(zero_copy_only=False)
    _no_numbers(text, there & ~legible, faults)
    digits = pc.if_else(pa.array(legible), pc.replace_substring_regex(text, r"^\+", ""), "0")
    return _numbers(digits.cast(pa.float64()).to_numpy(zero_copy_only=False), there, faults, "reals")


def _integers(text: pa.Array, there: np.ndarray, faults: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Whole numbers are read digit by digit: as real numbers those of 19 digits would become one."""
    simple = pc.match_substring_regex(text, WHOLE)
    digits = pc.if_else(simple, pc.replace_substring_regex(text, r"^\+|\.0*$", ""), "0")
    values = digits.cast(pa.int64()).to_numpy(zero_copy_only=False).copy()
    others = there & ~simple.to_numpy(zero_copy_only=False)
    if others.any():
        legible = pc.match_substring_regex(text, NUMBER).to_numpy(zero_copy_only=False)
        _no_numbers(text, others & ~legible, faults)
        for i in np.flatnonzero(others & legible):
            whole = _whole(text[i].as_py())
            values[i], faults[i] = (whole, None) if whole is not None else (0, _no_integer(text[i].as_py()))
    return _from_zero(values, there, faults)


def _numbers(
    values: np.ndarray, there: np.ndarray, faults: np.ndarray, kind: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The same of numbers; a cell that already has a fault has any number."""
    real = values.dtype.kind == "f"
    if real:
        there, values = there & ~np.isnan(values), np.where(np.isnan(values), 0.0, values)
    if kind == "reals":
        bad = there & ~np.isfinite(values.astype(np.float64))
        faults[bad] = [f"{x} is not a finite number" for x in values[bad]]
        return values.astype(np.float64), there, faults
    if kind == "truths":
        bad = there & (values != 0) & (values != 1)
        faults[bad] = [f"{x:g} is not a truth value: give true, false, 1 or 0" for x in values[bad]]
        return np.where(bad, 0, values).astype(np.int64), there, faults
    if real:
        inexact = there & (np.abs(values) > MOST_EXACT)
        bad = there & ~inexact & (values % 1 != 0)
        faults[inexact] = [f"{x:g} as a real number is not exact: give integers or words" for x in values[inexact]]
        faults[bad] = [_no_integer(f"{x:g}") for x in values[bad]]
        return _from_zero(np.where(inexact | bad, 0, values).astype(np.int64), there, faults)
    large = there & (values > np.iinfo(np.int64).max)
    faults[large] = [_no_integer(str(x)) for x in values[large]]
    return _from_zero(np.where(large, 0, values).astype(np.int64), there, faults)


def _from_zero(values: np.ndarray, there: np.ndarray, faults: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    bad = there & (values < 0)
    faults[bad] = [_no_integer(str(x)) for x in values[bad]]
    return np.where(bad, 0, values), there, faults


def _no_integer(text: str) -> str:
    return f"{text[:40]} is not an integer from 0 of at most 64 bits"


def _no_numbers(text: pa.Array, bad: np.ndarray, faults: np.ndarray) -> None:
    faults[bad] = [f"{x[:40]!r} is not a number" for x in text.filter(pa.array(bad)).to_pylist()]


def _whole(text: str) -> int | None:
    """The integer that a number stands for, None if it has a fraction or more than 64 bits."""
    number = _decimal(text)
    # A number of few digits may have an exponent of many: it is looked at before the digits are written out.
    if number.adjusted() > 18 or not _is_whole(number):
        return None
    return int(number) if abs(int(number)) < 2**63 else None


def _decimal(text: str) -> decimal.Decimal:
    try:
        return decimal.Decimal(text)
    except decimal.InvalidOperation:  # an exponent that is larger than a computer's
        return decimal.Decimal("Infinity")


def _is_whole(number: decimal.Decimal) -> bool:
    return number.is_finite() and number == number.to_integral_value()


def _at(values: list, mask: np.ndarray) -> list:
    return [values[i] for i in np.flatnonzero(mask)]


def faulty(faults: np.ndarray) -> np.ndarray:
    """Whether each entry of an object array of messages or None is a message, (I,) bool."""
    return np.not_equal(faults, None)


def is_text(kind: pa.DataType) -> bool:
    """Whether a type is one of Arrow's types of text."""
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def is_number(kind: pa.DataType) -> bool:
    """Whether a type is one of Arrow's integers or reals."""
    return pa.types.is_integer(kind) or pa.types.is_floating(kind)


def _is_vector(kind: pa.DataType) -> bool:
    return pa.types.is_fixed_size_list(kind) and is_number(kind.value_type)
