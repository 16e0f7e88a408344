"""One position per transition: short, and learned fast."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np

from icdm.trajectories.layouts.vocabulary import Tokens, Vocabulary, relative, slices_of
from icdm.trajectories.trajectory import NOTHING, Step


@dataclasses.dataclass(frozen=True)
class TransitionLayout(Vocabulary):
    """One position per transition: o + a + r + o' + t, acting on its o'.

    The first position of an episode holds o' and t alone. The reward enters as a number. As targets
    of pretraining, the position's action, reward bin and next observation are predicted side by side,
    from the position before.

    A cell of a grid is the sum of its coordinates' embeddings, so that what is learned in some cells holds in others.
    """

    positions = 1

    @property
    def axes(self) -> tuple[int, ...]:
        return self.sides or (self.n_observations,)

    @property
    def twins(self) -> tuple[slice, slice]:
        """The ids of the observations, those acted on and those reached."""
        return self.slices["observation"], self.slices["next_observation"]

    @property
    def components(self) -> int:
        return 2 * len(self.axes) + 2

    @property
    def slices(self) -> dict[str, slice]:
        return slices_of(
            observation=sum(self.axes),
            action=self.n_actions,
            next_observation=sum(self.axes),
            step=self.horizon + 1,
            reward=self.reward_bins,
        )

    def append(self, t: jax.Array, before: Step, observation: jax.Array) -> Tokens:
        """The position that an observation adds; t, observation: (...,)."""
        at = self.slices
        first = t == 0
        observation, t = jnp.broadcast_arrays(observation, t)
        ids = [
            *(jnp.where(first, NOTHING, id) for id in self._coordinates(before.observation, at["observation"])),
            jnp.where(first, NOTHING, at["action"].start + before.action),
            *self._coordinates(observation, at["next_observation"]),
            at["step"].start + jnp.clip(self.first_step + t, 0, self.horizon),
        ]
        number = jnp.where(first, 0.0, before.reward / self.reward_unit)
        id_1I = jnp.stack(ids, -1)[..., None, :].astype(jnp.int32)
        return Tokens(id_1I, number[..., None, None].astype(jnp.float32), (observation != NOTHING)[..., None])

    def targets(self, tokens: Tokens) -> list[tuple[slice, jax.Array]]:
        """For each predicted component, its slice of the vocabulary and its index there at every position."""
        at, D = self.slices, len(self.axes)
        reward_bin = jnp.where(
            tokens.id[..., D] == NOTHING, NOTHING, self.reward_bin(tokens.number[..., 0] * self.reward_unit)
        )
        coordinates = zip(self._parts(at["next_observation"]), range(D + 1, 2 * D + 1))
        return [
            (at["action"], relative(tokens.id[..., D], at["action"])),
            (at["reward"], reward_bin),
            *((part, relative(tokens.id[..., component], part)) for part, component in coordinates),
        ]

    def _coordinates(self, observation: jax.Array, part: slice) -> list[jax.Array]:
        """Vocabulary ids of an observation, one for each axis; NOTHING where it is not a cell of the grid."""
        there = (observation >= 0) & (observation < math.prod(self.axes))
        coordinates = jnp.unravel_index(jnp.where(there, observation, 0), self.axes)
        return [jnp.where(there, own.start + x, NOTHING) for own, x in zip(self._parts(part), coordinates)]

    def _parts(self, part: slice) -> list[slice]:
        """The slices of the axes in the slice of an observation."""
        ends = part.start + np.cumsum(self.axes)
        return [slice(int(end) - side, int(end)) for end, side in zip(ends, self.axes)]
