"""Codings: maps between the values of a column (integers, words or real vectors) and codes 0, 1, ... .

A coding is fitted to a column and stored with the table as JSON. I counts values, D their dimensions, F features.
"""

import dataclasses
import math
import re

import numpy as np

from icdm.errors import UserError, unknown

UNKNOWN = -2  # code of a value that the coding does not contain
BINNINGS = ("quantile", "uniform")
MOST_INTEGERS = 2**20  # most codes of a column
SHOWN = 8  # most groups of names that `remarks` lists
NO_NAMES = ("na", "n/a", "nan", "null", "none", "-")
ENTRIES = "column map observation=observation.0,observation.1,..."  # of a vector, as several features
MOST_IDS = 2**63 - 1  # codes of a column of ids, which are integers of 64 bits


@dataclasses.dataclass(frozen=True)
class Integers:
    """The code of an integer 0 <= x < n is x."""

    n: int
    kind = "integers"  # of the values, as `icdm.logs.columns` names it
    columns = {}  # of an observation of several features; nothing else has any

    def encode(self, values: np.ndarray) -> np.ndarray:
        values = np.asarray(values, np.int64)
        return np.where((values >= 0) & (values < self.n), values, UNKNOWN)

    def decode(self, codes: np.ndarray) -> np.ndarray:
        return np.asarray(codes)

    def as_json(self) -> dict:
        return {"kind": "integers", "n": self.n}


@dataclasses.dataclass(frozen=True)
class Words:
    """Code i is the i-th of the sorted words, counted from 0."""

    words: tuple[str, ...]
    kind = "words"
    columns = {}

    @property
    def n(self) -> int:
        return len(self.words)

    def encode(self, values: np.ndarray) -> np.ndarray:
        known, values = np.asarray(self.words, str), np.asarray(values, str)
        place = np.searchsorted(known, values).clip(max=self.n - 1)
        return np.where(known[place] == values, place, UNKNOWN)

    def decode(self, codes: np.ndarray) -> np.ndarray:
        return np.asarray(self.words, object)[codes]

    def as_json(self) -> dict:
        return {"kind": "words", "words": list(self.words)}


@dataclasses.dataclass(frozen=True)
class Bins:
    """A grid of intervals over D real numbers; code = sum_j bin_j prod_{i>j} n_i (row-major).

    A value is in bin i of its dimension if edge_i <= x < edge_{i+1}; a value outside the edges is in the first or the
    last bin. A code decodes to the midpoint of its cell, and the midpoint encodes to the code.

    Attributes:
      edges: the n + 1 increasing edges of each dimension.
      scalar: whether the values are numbers rather than vectors.
    """

    edges: tuple[tuple[float, ...], ...]
    scalar: bool = True
    kind = "reals"
    columns = {}

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(len(edges) - 1 for edges in self.edges)

    @property
    def n(self) -> int:
        return math.prod(self.shape)

    def encode(self, values: np.ndarray) -> np.ndarray:
        value_ID = np.asarray(values, np.float64).reshape(len(values), len(self.edges))
        bin_DI = [np.searchsorted(e[1:-1], x, side="right") for e, x in zip(self.edges, value_ID.T)]
        return np.where(np.isfinite(value_ID).all(1), np.ravel_multi_index(bin_DI, self.shape), UNKNOWN)

    def decode(self, codes: np.ndarray) -> np.ndarray:
        bin_DI = np.unravel_index(np.asarray(codes), self.shape)
        middle_D = [(np.asarray(e[1:]) + np.asarray(e[:-1])) / 2 for e in self.edges]
        value_ID = np.stack([middle[i] for middle, i in zip(middle_D, bin_DI)], -1)
        return value_ID[..., 0] if self.scalar else value_ID

    def as_json(self) -> dict:
        return {"kind": "bins", "edges": [list(e) for e in self.edges], "scalar": self.scalar}


@dataclasses.dataclass(frozen=True)
class Features:
    """Observations of several columns have no codes of their own, and all are in one state (`icdm.logs.features` finds
    more). The value of a feature is a number, or the place of a word among the feature's sorted words.

    Attributes:
      names: of the columns.
      words: of each feature; None for one of numbers.
    """

    names: tuple[str, ...]
    words: tuple[tuple[str, ...] | None, ...]
    kind = "integers"  # of the states
    n = 1

    @property
    def columns(self) -> dict[str, tuple[str, ...] | None]:
        """The words of each feature by its name."""
        return dict(zip(self.names, self.words))

    def encode(self, values: np.ndarray) -> np.ndarray:
        return Integers(1).encode(values)

    def decode(self, codes: np.ndarray) -> np.ndarray:
        return np.asarray(codes)

    def as_json(self) -> dict:
        return {"kind": "features", "names": self.names, "words": self.words}

    @classmethod
    def from_json(cls, content: dict) -> "Features":
        words = tuple(None if each is None else tuple(map(str, each)) for each in content["words"])
        coding = Features(tuple(map(str, content["names"])), words)
        unsorted = any(each is not None and list(each) != sorted(set(each)) for each in words)
        if not coding.names or unsorted or len({*coding.names}) < len(coding.names) or len(words) != len(coding.names):
            raise ValueError("names or words of features do not fit")
        return coding


Coding = Integers | Words | Bins | Features


def coding_from_json(content: dict) -> Coding:
    """The coding that `as_json` wrote.

    Raises:
      ValueError, TypeError, KeyError: the content is damaged.
    """
    if content["kind"] == "integers":
        coding = Integers(int(content["n"]))
    elif content["kind"] == "words":
        coding = Words(tuple(map(str, content["words"])))
        if list(coding.words) != sorted(set(coding.words)):
            raise ValueError("words are not sorted")
    elif content["kind"] == "features":
        coding = Features.from_json(content)
    else:
        coding = Bins(tuple(tuple(map(float, edges)) for edges in content["edges"]), bool(content["scalar"]))
        if not all(len(edges) > 1 and np.all(np.diff(edges) > 0) for edges in coding.edges) or not coding.edges:
            raise ValueError("edges do not increase")
        if coding.scalar and len(coding.edges) > 1 or coding.n > MOST_INTEGERS:
            raise ValueError("too many edges")
    if not 1 <= coding.n <= MOST_IDS:
        raise ValueError(f"{coding.n} codes")
    return coding


def fit_bins(values: np.ndarray, n_bins: int, binning: str) -> Bins:
    """At most n_bins intervals of each dimension of values (I,) or (I, D).

    Args:
      binning: "quantile" puts the edges at the quantiles i / n_bins and merges equal edges; "uniform" makes the
        intervals equally wide.

    Raises:
      UserError: the binning is unknown, n_bins is below 2, or the grid has more than 2**20 cells.
    """
    if binning not in BINNINGS:
        raise unknown("binning", binning, BINNINGS)
    if n_bins < 2:
        raise UserError(f"--bins {n_bins}: give at least 2")
    value_ID = np.asarray(values, np.float64).reshape(len(values), -1)
    value_ID = value_ID[np.isfinite(value_ID).all(1)]
    if n_bins ** value_ID.shape[1] > MOST_INTEGERS:
        raise UserError(
            f"{n_bins} bins of {value_ID.shape[1]} numbers each make more than {MOST_INTEGERS} codes: lower --bins, or "
            f"read the numbers of an observation as features ({ENTRIES})"
        )
    edges_D = []
    for x in value_ID.T:
        low, high = (x.min(), x.max()) if x.size else (0.0, 1.0)
        high = high if high > low else low + 1.0
        inner = np.linspace(low, high, n_bins + 1)[1:-1]
        if binning == "quantile" and x.size:
            inner = np.unique(np.quantile(x, np.arange(1, n_bins) / n_bins))
            inner = inner[(inner > low) & (inner < high)]
        edges_D.append((float(low), *inner.tolist(), float(high)))
    return Bins(tuple(edges_D), scalar=np.ndim(values) == 1)


def remarks(codings: dict[str, Coding]) -> list[str]:
    """What a user should know of the codings by column: what was binned, which names are nearly or perhaps no names."""
    found = []
    for name, coding in codings.items():
        if isinstance(coding, Bins):
            found.append(f"column {name} holds real numbers, coded by {coding.n} intervals (icdm convert --bins)")
            if name == "observation" and not coding.scalar:
                found.append(f"column {name} holds vectors, whose numbers may be features ({ENTRIES})")
        if isinstance(coding, Words):
            alike: dict[str, list[str]] = {}
            for word in coding.words:
                alike.setdefault(re.sub(r"[\s_-]+", " ", word.casefold()), []).append(word)
            groups = [" and ".join(map(repr, words)) for words in alike.values() if len(words) > 1]
            if groups:
                found.append(f"column {name}: {', '.join(groups[:SHOWN])} are different names that are nearly equal")
            empty = [repr(word) for word in coding.words if word.lower() in NO_NAMES]
            if empty:
                found.append(f"column {name}: {', '.join(empty)} is a name here; leave cells empty that mean nothing")
    return found
