"""Spaces of observations and actions: codes, cells of a grid, real vectors, or several features written as numbers.

Codes are the integers 0, 1, ..., n - 1. Observations in a `Discrete` or `Grid` space are arrays of codes, (B,);
observations in a `Box` are real vectors, (B, D), and those in `Encoded` (B, R).
"""

import dataclasses
import math

import numpy as np

from icdm.errors import UserError


@dataclasses.dataclass(frozen=True)
class Discrete:
    """The codes 0 to n - 1."""

    n: int
    sides = ()  # the codes have no order
    numbers, widths = 0, ()

    def contains(self, x: np.ndarray) -> np.ndarray:
        """Whether each entry is a code of this space, (...,) bool."""
        return (np.asarray(x) >= 0) & (np.asarray(x) < self.n)


@dataclasses.dataclass(frozen=True)
class Grid:
    """The cells of a grid, numbered row by row; the code of cell (x, y, ...) is that of `numpy.ravel_multi_index`.

    Attributes:
      sides: number of cells along each axis.
    """

    sides: tuple[int, ...]
    numbers, widths = 0, ()

    @property
    def n(self) -> int:
        return math.prod(self.sides)

    def contains(self, x: np.ndarray) -> np.ndarray:
        """Whether each entry is the code of a cell, (...,) bool."""
        return Discrete(self.n).contains(x)


@dataclasses.dataclass(frozen=True)
class Box:
    """Real vectors x with low <= x <= high, entry by entry.

    Attributes:
      low, high: (D,) bounds; an infinite bound is none.

    Raises:
      UserError: the bounds differ in length, or a low is above its high.
    """

    low: tuple[float, ...]
    high: tuple[float, ...]
    numbers, widths = 0, ()

    def __post_init__(self) -> None:
        if len(self.low) != len(self.high) or any(a > b for a, b in zip(self.low, self.high)):
            raise UserError(f"a box from {self.low} to {self.high}: give as many lows as highs, none above its high")

    @property
    def sides(self) -> tuple[int, ...]:
        raise UserError("real observations have no codes: bin them first")

    n = sides

    def contains(self, x: np.ndarray) -> np.ndarray:
        """Whether each vector along the last axis lies in the box, (...,) bool."""
        return ((np.asarray(x) >= self.low) & (np.asarray(x) <= self.high)).all(-1)


@dataclasses.dataclass(frozen=True)
class Encoded:
    """Vectors of numbers from 0 to 1, which stand for the values of several features; there are no codes.

    Attributes:
      widths: how many numbers stand for each feature.
    """

    widths: tuple[int, ...]
    n, sides = 0, ()

    @property
    def numbers(self) -> int:
        """R, entries of a vector."""
        return sum(self.widths)

    def contains(self, x: np.ndarray) -> np.ndarray:
        """Whether each vector along the last axis belongs to this space, (...,) bool."""
        return ((np.asarray(x) >= 0) & (np.asarray(x) <= 1)).all(-1)


Space = Discrete | Grid | Box | Encoded
