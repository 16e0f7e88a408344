"""Several features of a step: as numbers for a model, and as states for planners and for values that are fitted.

Both are fitted to a training log and kept with what was learned from it. I counts rows, F features, R numbers, S
states; a missing value is nan, a word its code (`icdm.logs.codings.Features`).
"""

import dataclasses
import pathlib
import warnings
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from icdm.errors import UserError, unknown
from icdm.files import read_json
from icdm.logs.codings import NO_NAMES, Features

EDGES, STATES = 24, 300  # unless a config says otherwise
STEPS_PER_STATE = 20  # at least, on average
ROUNDS = 30  # of k-means
MOST_ROWS = 100_000  # of which it finds the centres
FARTHEST = 3.0  # standard deviations from the mean that tell states apart
SHOWN = 3  # most values of a feature that a message lists
FILE = "features.json"  # of an encoder, in the run's directory


@dataclasses.dataclass(frozen=True)
class Encoder(Features):
    """The coding of several features, with the quantiles and the states of the steps that it was fitted to.

    A number x of a feature with the edges e_0 < ... < e_n is written as its place between them,

        clip((x - e_{i-1}) / (e_i - e_{i-1}), 0, 1),   i = 1, ..., n,

    of which a linear map is any function that is linear between the edges; then as 1 if it is missing (its place is
    then 0 throughout). Two edges make the map linear. A word is written as 1 at its place among the feature's words, or
    at the place after them if it is missing: a linear map is an embedding.

    The state is the nearest of the centres that k-means found, in standard deviations from the mean, at most FARTHEST
    of them; a missing number is at the mean, and words that differ are two apart, as two equally frequent numbers are.

    Attributes:
      edges: of each feature; () if it has words, or was missing throughout.
      middles, spreads: the mean of each feature and its standard deviation, 1 if that is 0; of no use for words.
      most_edges: how many a feature may have: one of fewer distinct values has fewer, and its numbers end in zeros. 0:
        nothing is written as numbers, models read the states.
      centers: (S, ...).

    Source: Gorishniy, Rubachev, Babenko, "On Embeddings for Numerical Features in Tabular Deep Learning" (NeurIPS
    2022), piecewise linear encoding.
    """

    edges: tuple[tuple[float, ...], ...]
    middles: tuple[float, ...]
    spreads: tuple[float, ...]
    most_edges: int
    centers: tuple[tuple[float, ...], ...]

    @property
    def n(self) -> int:
        """S, the number of states."""
        return len(self.centers)

    @property
    def widths(self) -> tuple[int, ...]:
        """How many numbers stand for each feature."""
        return widths_of(self.words, self.most_edges)

    @property
    def numbers(self) -> int:
        """R."""
        return sum(self.widths)

    def decode(self, codes: np.ndarray) -> np.ndarray:
        """The names of states."""
        return np.array([f"state {code}" for code in codes], object)

    def seen(self, value_IF: np.ndarray) -> np.ndarray:
        """What a model reads of each row: numbers (I, R) float32, or states (I,) if there are none."""
        return self.encoded(value_IF) if self.most_edges else self.states(value_IF)

    def encoded(self, value_IF: np.ndarray) -> np.ndarray:
        """(..., R) float32 from 0 to 1."""
        return np.concatenate(
            [self._numbers(x, *feature) for x, *feature in self._columns(value_IF)], -1, dtype=np.float32
        )

    def states(self, value_IF: np.ndarray) -> np.ndarray:
        """(I,) int32."""
        from scipy.cluster import vq  # slow to import, and seldom needed

        return vq.vq(self._places(value_IF), np.array(self.centers))[0].astype(np.int32)

    def outside(self, value_IF: np.ndarray) -> np.ndarray:
        """Which values lie outside what the fitted steps have shown, (..., F) bool; missing ones do not."""
        columns = [
            np.zeros(x.shape, bool)
            if words is not None
            else (x < edges[0]) | (x > edges[-1])
            if edges
            else ~np.isnan(x)
            for x, words, edges in self._columns(value_IF)
        ]
        return np.stack(columns, -1)

    def remarks(self, value_IF: np.ndarray) -> list[str]:
        """A sentence for each feature that lies outside."""
        found = []
        for name, edges, x, out in zip(self.names, self.edges, value_IF.T, self.outside(value_IF).T):
            if out.any():
                shown = f"{edges[0]:g} to {edges[-1]:g}" if edges else "no value"
                values = ", ".join(f"{value:g}" for value in np.unique(x[out])[:SHOWN])
                rows = "" if len(x) == 1 else f" in {out.sum()} of {len(x)} rows"
                found.append(f"{name} lies outside what training saw, {shown}{rows}: {values}")
        return found

    def as_json(self) -> dict:
        own = {name: getattr(self, name) for name in ("edges", "middles", "spreads", "most_edges", "centers")}
        return super().as_json() | own

    @classmethod
    def from_json(cls, content: dict) -> "Encoder":
        """The encoder that `as_json` wrote.

        Raises:
          ValueError, TypeError, KeyError: the content is damaged.
        """
        edges, centers = (tuple(tuple(map(float, row)) for row in content[name]) for name in ("edges", "centers"))
        middles, spreads = (tuple(map(float, content[name])) for name in ("middles", "spreads"))
        coding = Features.from_json(content)
        if {len(coding.names)} != {len(edges), len(middles), len(spreads)} or not centers or not min(spreads) > 0:
            raise ValueError("features and what was fitted to them differ in number")
        if any(np.any(np.diff(row) <= 0) for row in edges):
            raise ValueError("edges do not increase")
        return cls(coding.names, coding.words, edges, middles, spreads, int(content["most_edges"]), centers)

    def _columns(self, value_IF: np.ndarray) -> list[tuple]:
        return list(zip(np.moveaxis(np.asarray(value_IF, np.float64), -1, 0), self.words, self.edges))

    def _numbers(self, x: np.ndarray, words: tuple[str, ...] | None, edges: tuple[float, ...]) -> np.ndarray:
        missing = np.isnan(x)
        if words is not None:
            return np.eye(len(words) + 1)[np.where(missing, len(words), x).astype(int)]
        number = np.zeros((*x.shape, self.most_edges))
        if len(edges) > 1:
            low, high = np.array(edges[:-1]), np.array(edges[1:])
            place = (np.where(missing, edges[0], x)[..., None] - low) / (high - low)
            number[..., : len(low)] = np.clip(place, 0, 1)
        number[..., -1] = missing
        return number

    def _places(self, value_IF: np.ndarray) -> np.ndarray:
        """The coordinates in which states are centres, (I, ...)."""
        columns = zip(value_IF.T, self.words, self.middles, self.spreads)
        return np.concatenate([_place(*feature) for feature in columns], -1)


def widths_of(words: Iterable[Sequence[str] | None], edges: int) -> tuple[int, ...]:
    """How many numbers stand for each feature, of which some have words; () if there are no edges."""
    return tuple(edges if own is None else len(own) + 1 for own in words) if edges else ()


def fit_encoder(coding: Features, value_IF: np.ndarray, edges: int, states: int, seed: int = 0) -> Encoder:
    """The encoder of the features of a log's steps.

    Args:
      edges: at the quantiles of each feature, at most so many; equal ones are one.
      states: at most so many centres of k-means, which begins with k-means++; and one for STEPS_PER_STATE rows.
      seed: of k-means.
    """
    there = [x[~np.isnan(x)] if words is None else x[:0] for x, words in zip(value_IF.T, coding.words)]
    edges_F = tuple(_quantiles(x, max(edges, 2)) for x in there)
    middles = tuple(float(x.mean()) if x.size else 0.0 for x in there)
    spreads = tuple(float(x.std()) or 1.0 if x.size else 1.0 for x in there)
    bare = Encoder(coding.names, coding.words, edges_F, middles, spreads, edges, ())
    rng = np.random.default_rng(seed)
    some = rng.permutation(len(value_IF))[:MOST_ROWS]
    place_IW = bare._places(value_IF[some])  # W: coordinates
    states = min(states, len(np.unique(place_IW, axis=0)), max(len(place_IW) // STEPS_PER_STATE, 1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a centre that lost its rows stays where it was
        from scipy.cluster import vq  # slow to import, and seldom needed

        centers, _ = vq.kmeans2(place_IW, states, ROUNDS, minit="++", rng=rng)
    return dataclasses.replace(bare, centers=tuple(map(tuple, centers.tolist())))


def read_encoder(directory: pathlib.Path) -> Encoder | None:
    """The encoder that is kept in a directory, if there is one.

    Raises:
      UserError: its file is damaged.
    """
    path, remedy = directory / FILE, "delete it and start the run again"
    if not path.exists():
        return None
    try:
        return Encoder.from_json(read_json(path, remedy))
    except (ValueError, TypeError, KeyError):
        raise UserError(f"{path} is damaged: {remedy}") from None


def values_of(coding: Features, named: Mapping[str, Sequence]) -> np.ndarray:
    """The values of every feature by name, each (B,), as (B, F); None and nan are missing, words are given as they are.

    Raises:
      UserError: an unknown or missing feature, a word where a number belongs, an unknown word, an infinite number.
    """
    if not isinstance(named, Mapping):
        raise UserError(f"the observation has several features: give each by its name, {', '.join(coding.names)}")
    for name in named:
        if name not in coding.names:
            raise unknown("feature", name, coding.names)
    lacking = [name for name in coding.names if name not in named]
    if lacking:
        first = lacking[0]
        raise UserError(f"the observation lacks {', '.join(lacking)}: give {first}=, without a value, if not measured")
    columns = [_column(name, words, np.atleast_1d(named[name])) for name, words in coding.columns.items()]
    if len({len(column) for column in columns}) > 1:
        raise UserError(f"the features have {', '.join(str(len(x)) for x in columns)} values: give one for each row")
    return np.stack(columns, -1)


def _column(name: str, words: tuple[str, ...] | None, values: np.ndarray) -> np.ndarray:
    if words is None and values.dtype.kind in "iuf" and not np.isinf(values).any():
        return values.astype(np.float64)
    return np.array([_value(name, words, x) for x in values.tolist()], np.float64)


def _value(name: str, words: tuple[str, ...] | None, x: object) -> float:
    text = "" if x is None else str(x).strip()
    if text.lower() in ("", *NO_NAMES):
        return np.nan
    if words is not None:
        if text not in words:
            raise unknown(f"value of {name}", text, words)
        return words.index(text)
    try:
        value = float(text)
    except ValueError:
        raise UserError(f"{name}={text}: not a number") from None
    if not np.isfinite(value):
        raise UserError(f"{name}={text}: give a finite number, or none where it was not measured")
    return value


def _quantiles(x: np.ndarray, n: int) -> tuple[float, ...]:
    """The distinct ones of n quantiles, the lowest and the highest value among them."""
    return tuple(np.unique(np.quantile(x, np.linspace(0, 1, n))).tolist()) if x.size else ()


def _place(x: np.ndarray, words: tuple[str, ...] | None, middle: float, spread: float) -> np.ndarray:
    """The coordinates of one feature, (I, 1) of a number, (I, words + 1) of words."""
    missing = np.isnan(x)
    if words is not None:
        return np.sqrt(2) * np.eye(len(words) + 1)[np.where(missing, len(words), x).astype(int)]
    return np.clip(np.where(missing, 0, (x - middle) / spread), -FARTHEST, FARTHEST)[:, None]
