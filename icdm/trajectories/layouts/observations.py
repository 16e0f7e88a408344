"""How an observation is written: as ids of the vocabulary, or as numbers of which a linear map is read."""

import dataclasses
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from icdm.trajectories.trajectory import NOTHING


@dataclasses.dataclass(frozen=True)
class Codes:
    """A code, (...,) int32, is written as the ids of its coordinates in a grid; codes without an order have one axis.

    Attributes:
      axes: the sides of the grid.
    """

    axes: tuple[int, ...]
    numbers = 0  # R of an observation

    def there(self, observation: jax.Array) -> jax.Array:
        """Whether something was observed, (...,) bool."""
        return observation != NOTHING

    def ids(self, observation: jax.Array, part: slice) -> list[jax.Array]:
        """Vocabulary ids of an observation, one for each axis; NOTHING where it is not a cell of the grid."""
        there = (observation >= 0) & (observation < math.prod(self.axes))
        coordinates = jnp.unravel_index(jnp.where(there, observation, 0), self.axes)
        return [jnp.where(there, own.start + x, NOTHING) for own, x in zip(self.parts(part), coordinates)]

    def vector(self, observation: jax.Array) -> jax.Array:
        """Numbers of an observation, (..., R)."""
        return jnp.zeros((*observation.shape, 0), jnp.float32)

    def nothing(self, rows: int) -> jax.Array:
        """What stands for an observation that is absent, in each of so many rows."""
        return jnp.full(rows, NOTHING, jnp.int32)

    def parts(self, part: slice) -> list[slice]:
        """The slices of the axes in the slice of an observation."""
        return _parts(part, self.axes)


@dataclasses.dataclass(frozen=True)
class Vectors:
    """A vector, (..., R) float32 with entries from 0 to 1, is written as it is; in an absent one all are NOTHING.

    Attributes:
      widths: how many of its entries, one after another, stand for each feature.
    """

    widths: tuple[int, ...]
    axes = ()

    @property
    def numbers(self) -> int:
        return sum(self.widths)

    def there(self, observation: jax.Array) -> jax.Array:
        return observation[..., 0] != NOTHING

    def ids(self, observation: jax.Array, part: slice) -> list[jax.Array]:
        return []

    def vector(self, observation: jax.Array) -> jax.Array:
        return observation

    def nothing(self, rows: int) -> jax.Array:
        return jnp.full((rows, self.numbers), NOTHING, jnp.float32)

    def parts(self, part: slice) -> list[slice]:
        return _parts(part, self.axes)


@dataclasses.dataclass(frozen=True)
class Bins(Vectors):
    """Of the same vectors one id is written for each feature: how many of its entries there are up to the last above 0.

    For a number with the edges e_0 < ... < e_n (`icdm.logs.features`) this is the i of e_{i-1} < x <= e_i; 0 is up to
    the lowest edge, n from e_{n-1} on, and the last id stands for a missing one. For a word it is one of its own.
    """

    @property
    def axes(self) -> tuple[int, ...]:
        return tuple(width + 1 for width in self.widths)

    def ids(self, observation: jax.Array, part: slice) -> list[jax.Array]:
        there, ends = self.there(observation), np.cumsum(self.widths)
        ids = []
        for own, end, width in zip(self.parts(part), ends, self.widths):
            upto = jnp.where(observation[..., end - width : end] > 0, np.arange(1, width + 1), 0).max(-1)
            ids.append(jnp.where(there, own.start + upto, NOTHING))
        return ids


def _parts(part: slice, sizes: Sequence[int]) -> list[slice]:
    """Consecutive parts of a slice."""
    ends = part.start + np.cumsum(sizes, dtype=int)
    return [slice(int(end) - size, int(end)) for end, size in zip(ends, sizes)]
