"""One token each for observation, action and reward: what pretraining by next token needs."""

import dataclasses

import jax
import jax.numpy as jnp

from icdm.errors import UserError
from icdm.trajectories.layouts.vocabulary import Tokens, Vocabulary, slices_of
from icdm.trajectories.trajectory import NOTHING, Step


@dataclasses.dataclass(frozen=True)
class InterleavedLayout(Vocabulary):
    """One token each for observation, action and reward bin, and a mark before each episode.

    A step appends (a, r, o'); the start of an episode appends (nothing, mark, o). The model acts on o'.
    """

    positions = 3
    components = 1

    def __post_init__(self) -> None:
        if self.observation_numbers:
            raise UserError("layout interleaved: observations of several features have no token, set layout transition")

    @property
    def slices(self) -> dict[str, slice]:
        return slices_of(mark=1, observation=self.n_observations, action=self.n_actions, reward=self.reward_bins)

    def append(self, t: jax.Array, before: Step, observation: jax.Array) -> Tokens:
        """The three positions that an observation adds; t, observation: (...,)."""
        at = self.slices
        first = t == 0
        observation, first = jnp.broadcast_arrays(observation, first)
        ids = [
            jnp.where(first, NOTHING, at["action"].start + before.action),
            jnp.where(first, at["mark"].start, at["reward"].start + self.reward_bin(before.reward)),
            jnp.where(observation == NOTHING, NOTHING, at["observation"].start + observation),
        ]
        id_L1 = jnp.stack(ids, -1)[..., None].astype(jnp.int32)
        return Tokens(id_L1, jnp.zeros(id_L1.shape, jnp.float32), id_L1[..., 0] != NOTHING)

    def targets(self, tokens: Tokens) -> list[tuple[slice, jax.Array]]:
        """What pretraining predicts: the token itself, out of the whole vocabulary."""
        return [(slice(0, self.size), tokens.id[..., 0])]
