"""Recorded episodes: what was observed, done and paid, step by step."""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

NOTHING = -1  # an observation, action or token that is absent


class Step(NamedTuple):
    """A step on its own; every field has the same shape (...,), and R more numbers where observations are vectors.

    observation: on which the action was chosen; action; reward: what it paid; arrival: what was observed next.
    """

    observation: jax.Array
    action: jax.Array
    reward: jax.Array
    arrival: jax.Array


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["observation", "action", "reward", "valid", "q", "origin", "arrival"],
    meta_fields=[],
)
@dataclasses.dataclass(frozen=True)
class Trajectories:
    """Recorded episodes; every array has the same leading axes, mostly B rows or B rows x E episodes.

    Mostly a step leads from one observation to the next. A record of independent steps is written as one episode
    with `origin` and `arrival` beside it; its observations are then those on which a decision is asked for before the
    first and after every step.

    Attributes:
      observation: (..., T + 1) int32, or (..., T + 1, R) float32 where observations are vectors; the last is what was
        observed after the last step; NOTHING where there is none.
      action: (..., T) int32.
      reward: (..., T) float32, as the decider sees it: 0 where the problem hides its rewards.
      valid: (..., T) bool, whether the step took place; false once a terminal state was reached.
      q: (..., T, A) float32, the oracle's Q-values where it was asked, or None.
      origin, arrival: (..., T) int32, the observation on which each independent step began and that to which it led;
        None where steps follow one another.
    """

    observation: jax.Array
    action: jax.Array
    reward: jax.Array
    valid: jax.Array
    q: jax.Array | None = None
    origin: jax.Array | None = None
    arrival: jax.Array | None = None

    @property
    def steps(self) -> Step:
        """Every step on its own, (..., T)."""
        before = (slice(None),) * (self.action.ndim - 1)  # the axes before that of the steps; vectors have one after it
        origin = self.observation[(*before, slice(None, -1))] if self.origin is None else self.origin
        arrival = self.observation[(*before, slice(1, None))] if self.arrival is None else self.arrival
        return Step(origin, self.action, self.reward, arrival)


def episodes_per_row(trajectories: Trajectories, n_episodes: int) -> Trajectories:
    """Folds rows [row 0 episode 0, row 0 episode 1, ...] into (B, E, ...)."""
    return jax.tree.map(lambda x: x.reshape(-1, n_episodes, *x.shape[1:]), trajectories)


def join_episodes(first: Trajectories, second: Trajectories) -> Trajectories:
    """The episodes of `second` after those of `first`, along axis 1."""
    return jax.tree.map(lambda x, y: jnp.concatenate([x, y], axis=1), first, second)
