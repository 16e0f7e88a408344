"""One token each for observation, action and reward: what pretraining by next token needs."""

import dataclasses

import jax
import jax.numpy as jnp

from icdm.trajectories.layouts.observations import Bins, Codes
from icdm.trajectories.layouts.vocabulary import Tokens, Vocabulary, slices_of
from icdm.trajectories.trajectory import NOTHING, Step


@dataclasses.dataclass(frozen=True)
class InterleavedLayout(Vocabulary):
    """One token each for observation, action and reward bin, and a mark before each episode.

    A step appends (a, r, o'); the start of an episode appends (nothing, mark, o). The model acts on o'. An observation
    of several features has a token for the bin of each, and the model acts on the last.
    """

    components = 1

    @property
    def positions(self) -> int:
        return 2 + len(self.shown.axes)

    @property
    def shown(self) -> Codes | Bins:
        return Bins(self.widths) if self.widths else Codes((self.n_observations,))

    @property
    def slices(self) -> dict[str, slice]:
        return slices_of(mark=1, observation=sum(self.shown.axes), action=self.n_actions, reward=self.reward_bins)

    def append(self, t: jax.Array, before: Step, observation: jax.Array) -> Tokens:
        """The positions that an observation adds; t: (...,), observation: (...,) or (..., R)."""
        at, shown, first = self.slices, self.shown, t == 0
        mark = jnp.where(shown.there(observation), at["mark"].start, NOTHING)  # an absent episode has none
        ids = [
            jnp.where(first, NOTHING, at["action"].start + before.action),
            jnp.where(first, mark, at["reward"].start + self.reward_bin(before.reward)),
            *shown.ids(observation, at["observation"]),
        ]
        id_L1 = jnp.stack(jnp.broadcast_arrays(*ids), -1)[..., None].astype(jnp.int32)
        return Tokens(id_L1, jnp.zeros(id_L1.shape, jnp.float32), id_L1[..., 0] != NOTHING)

    def targets(self, tokens: Tokens) -> list[tuple[slice, jax.Array]]:
        """What pretraining predicts: the token itself, out of the whole vocabulary."""
        return [(slice(0, self.size), tokens.id[..., 0])]
