"""One position per transition: short, and learned fast."""

import dataclasses

import jax
import jax.numpy as jnp

from icdm.trajectories.layouts.vocabulary import Tokens, Vocabulary, relative, slices_of
from icdm.trajectories.trajectory import NOTHING, Step


@dataclasses.dataclass(frozen=True)
class TransitionLayout(Vocabulary):
    """One position per transition: o + a + r + o' + t, acting on its o'.

    The first position of an episode holds o' and t alone. The reward enters as a number. As targets
    of pretraining, the position's action, reward bin and next observation are predicted side by side,
    from the position before.

    A cell of a grid is the sum of its coordinates' embeddings, so that what is learned in some cells holds in others.
    Observations that are vectors enter as numbers, beside the reward, and are not predicted.
    """

    positions = 1

    @property
    def twins(self) -> tuple[slice, slice]:
        """The ids of the observations, those acted on and those reached."""
        return self.slices["observation"], self.slices["next_observation"]

    @property
    def components(self) -> int:
        return 2 * len(self.shown.axes) + 2

    @property
    def numbers(self) -> int:
        return 1 + 2 * self.shown.numbers

    @property
    def slices(self) -> dict[str, slice]:
        return slices_of(
            observation=sum(self.shown.axes),
            action=self.n_actions,
            next_observation=sum(self.shown.axes),
            step=self.horizon + 1,
            reward=self.reward_bins,
        )

    def append(self, t: jax.Array, before: Step, observation: jax.Array) -> Tokens:
        """The position that an observation adds; t: (...,), observation: (...,) or (..., R)."""
        at, shown = self.slices, self.shown
        there, t = jnp.broadcast_arrays(shown.there(observation), t)
        first = t == 0
        ids = [
            *(jnp.where(first, NOTHING, id) for id in shown.ids(before.observation, at["observation"])),
            jnp.where(first, NOTHING, at["action"].start + before.action),
            *shown.ids(observation, at["next_observation"]),
            at["step"].start + jnp.clip(self.first_step + t, 0, self.horizon),
        ]
        numbers = [
            jnp.where(first, 0.0, before.reward / self.reward_unit)[..., None],
            jnp.where(first[..., None], 0.0, shown.vector(before.observation)),
            shown.vector(observation),
        ]
        id_1I = jnp.stack(jnp.broadcast_arrays(*ids), -1)[..., None, :].astype(jnp.int32)
        number_1R = jnp.concatenate(numbers, -1)[..., None, :].astype(jnp.float32)
        return Tokens(id_1I, number_1R, there[..., None])

    def targets(self, tokens: Tokens) -> list[tuple[slice, jax.Array]]:
        """For each predicted component, its slice of the vocabulary and its index there at every position."""
        at, D = self.slices, len(self.shown.axes)
        reward_bin = jnp.where(
            tokens.id[..., D] == NOTHING, NOTHING, self.reward_bin(tokens.number[..., 0] * self.reward_unit)
        )
        coordinates = zip(self.shown.parts(at["next_observation"]), range(D + 1, 2 * D + 1))
        return [
            (at["action"], relative(tokens.id[..., D], at["action"])),
            (at["reward"], reward_bin),
            *((part, relative(tokens.id[..., component], part)) for part, component in coordinates),
        ]
