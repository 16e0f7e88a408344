"""What all layouts are built on: tokens, and the vocabulary that they draw from."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from icdm.trajectories.layouts.observations import Codes, Vectors
from icdm.trajectories.trajectory import NOTHING


@functools.partial(jax.tree_util.register_dataclass, data_fields=["id", "number", "valid"], meta_fields=[])
@dataclasses.dataclass(frozen=True)
class Tokens:
    """L positions, each embedded as the sum of its I components' embeddings and of a linear map of its R numbers.

    Attributes:
      id: (..., L, I) int32 vocabulary ids of the components, NOTHING where there is none.
      number: (..., L, R) float32.
      valid: (..., L) bool; positions that are not valid do not exist for the model.
    """

    id: jax.Array
    number: jax.Array
    valid: jax.Array


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """Sizes of a layout.

    Attributes:
      n_observations, n_actions, horizon: the largest of all families that share the vocabulary.
      reward_low, reward_high: bounds of one step's reward.
      reward_bins: how many codes a reward has as a target, or as a token.
      family_actions: how many of the actions the family has that is acted in.
      sides: of the grid whose cells, numbered row by row, are the observations; () if they are no such cells.
      first_step: what the first step of an episode is called. Where one model acts in families of several horizons,
        the last steps have the same names in all: horizon - T, for episodes of T steps.
      least_unit: what rewards are divided by at least where they enter as numbers.
      widths: how many numbers stand for each feature of an observation that is a vector; () if observations are codes.
    """

    n_observations: int
    n_actions: int
    horizon: int
    reward_low: float
    reward_high: float
    reward_bins: int
    family_actions: int
    sides: tuple[int, ...] = ()
    first_step: int = 0
    least_unit: float = 1.0
    widths: tuple[int, ...] = ()
    independent_steps = False  # whether a step need not begin where the one before has led
    numbers = 1  # R of the tokens

    @property
    def shown(self) -> Codes | Vectors:
        """How observations are written."""
        return Vectors(self.widths) if self.widths else Codes(self.sides or (self.n_observations,))

    @property
    def size(self) -> int:
        """How many ids there are."""
        return max(part.stop for part in self.slices.values())

    @property
    def opening(self) -> np.ndarray:
        """(L, I) ids of the positions before the first episode: there are none."""
        return np.zeros((0, self.components), np.int32)

    @property
    def action_ids(self) -> np.ndarray:
        """(A,) the id that stands for each action of the family."""
        return self.slices["action"].start + np.arange(self.family_actions)

    @property
    def family_horizon(self) -> int:
        """Decisions in an episode of the family that is acted in, or of the longest of the families."""
        return self.horizon - self.first_step

    @property
    def reward_unit(self) -> float:
        """What rewards are divided by where they enter as numbers: `least_unit`, or the largest that a step can pay."""
        return max(self.least_unit, abs(self.reward_low), abs(self.reward_high))

    def reward_bin(self, reward: jax.Array) -> jax.Array:
        """The bin of a reward: equally wide ones from the lowest to the highest."""
        unit = (reward - self.reward_low) / (self.reward_high - self.reward_low)
        return jnp.clip(jnp.round(unit * (self.reward_bins - 1)), 0, self.reward_bins - 1).astype(jnp.int32)


def slices_of(**sizes: int) -> dict[str, slice]:
    """Consecutive slices of the vocabulary of these sizes."""
    slices, start = {}, 0
    for name, size in sizes.items():
        slices[name] = slice(start, start + size)
        start += size
    return slices


def relative(id: jax.Array, part: slice) -> jax.Array:
    """The index of an id in its slice; NOTHING stays NOTHING."""
    return jnp.where(id == NOTHING, NOTHING, id - part.start)
