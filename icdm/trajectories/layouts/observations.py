"""How an observation enters a position: as ids of the vocabulary, or as numbers of which a linear map is read."""

import dataclasses
import math

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
        ends = part.start + np.cumsum(self.axes)
        return [slice(int(end) - side, int(end)) for end, side in zip(ends, self.axes)]


@dataclasses.dataclass(frozen=True)
class Vectors:
    """A vector, (..., R) float32 with entries from 0 to 1, is written as it is; in an absent one all are NOTHING."""

    numbers: int
    axes = ()

    def there(self, observation: jax.Array) -> jax.Array:
        return observation[..., 0] != NOTHING

    def ids(self, observation: jax.Array, part: slice) -> list[jax.Array]:
        return []

    def vector(self, observation: jax.Array) -> jax.Array:
        return observation

    def nothing(self, rows: int) -> jax.Array:
        return jnp.full((rows, self.numbers), NOTHING, jnp.float32)

    def parts(self, part: slice) -> list[slice]:
        return []
