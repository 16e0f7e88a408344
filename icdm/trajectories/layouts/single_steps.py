"""Every step as an episode of its own: for records of independent steps."""

import dataclasses

import jax
import jax.numpy as jnp

from icdm.trajectories.layouts.transition import TransitionLayout
from icdm.trajectories.layouts.vocabulary import Tokens
from icdm.trajectories.trajectory import Step


@dataclasses.dataclass(frozen=True)
class SingleStepsLayout(TransitionLayout):
    """Two positions: the end of a one-step episode, o + a + r + o', and the beginning of another, the observation.

    A model that has learned from independent steps has never read a second step. So each step is written as an episode
    of its own, and whatever is observed next begins another; the model acts there. Source: the contexts of
    Lee et al., "Supervised Pretraining Can Learn In-Context Reinforcement Learning" (NeurIPS 2023).
    """

    positions = 2
    independent_steps = True

    def append(self, t: jax.Array, before: Step, observation: jax.Array) -> Tokens:
        """The end of the step before, if there is one, and the observation; shapes as in `TransitionLayout`."""
        t = jnp.broadcast_to(t, self.shown.there(observation).shape)
        end = super().append(jnp.ones_like(t), before, before.arrival)
        end = dataclasses.replace(end, valid=end.valid & (t > 0)[..., None])
        beginning = super().append(jnp.zeros_like(t), before, observation)
        return jax.tree.map(lambda a, b: jnp.concatenate([a, b], axis=t.ndim), end, beginning)
