"""The two layouts of a trajectory as tokens.

A layout is defined by one function, `append`: the positions that are added when an observation
arrives. Training (`encode`, whole episodes) and acting (one step at a time into a KV cache) both use
it, so that they cannot disagree. The model acts at the last position that `append` returns.
"""

import dataclasses
import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from icdm.errors import UserError, unknown
from icdm.problems.family import Family, make_family, n_observations, parse_family
from icdm.trajectories.rollout import Trajectories

NOTHING = -1  # a component that is absent


@functools.partial(jax.tree_util.register_dataclass, data_fields=["id", "number", "valid"], meta_fields=[])
@dataclasses.dataclass(frozen=True)
class Tokens:
    """L positions; each is embedded as the sum of its components' embeddings and of a number's.

    Attributes:
      id: (..., L, C) int32 vocabulary ids of the components, NOTHING where there is none.
      number: (..., L) float32, enters by a learned linear map.
      valid: (..., L) bool; positions that are not valid do not exist for the model.
    """

    id: jax.Array
    number: jax.Array
    valid: jax.Array


class Step(NamedTuple):
    """What was seen, done and paid in the step before (NOTHING and 0 at the start of an episode)."""

    observation: jax.Array
    action: jax.Array
    reward: jax.Array


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """Sizes that both layouts are built on; `reward_low` and `reward_high` bound one step's reward."""

    n_observations: int
    n_actions: int
    horizon: int
    reward_low: float
    reward_high: float
    reward_bins: int

    @property
    def size(self) -> int:
        return max(part.stop for part in self.slices.values())

    @property
    def reward_unit(self) -> float:
        """What rewards are divided by where they enter as numbers: 1, or the largest that a step can pay."""
        return max(1.0, abs(self.reward_low), abs(self.reward_high))

    def reward_bin(self, reward: jax.Array) -> jax.Array:
        unit = (reward - self.reward_low) / (self.reward_high - self.reward_low)
        return jnp.clip(jnp.round(unit * (self.reward_bins - 1)), 0, self.reward_bins - 1).astype(jnp.int32)


@dataclasses.dataclass(frozen=True)
class TransitionLayout(Vocabulary):
    """One position per transition: o + a + r + o' + t, acting on its o'.

    The first position of an episode holds o' and t alone. The reward enters as a number. As targets
    of pretraining, the position's action, reward bin and next observation are predicted side by side,
    from the position before.

    Attributes:
      sides: where observations are the cells of a grid, numbered row by row, its sides. A cell is then the sum
        of its coordinates' embeddings, so that what is learned in some cells holds in others.
    """

    sides: tuple[int, ...] = ()
    positions = 1

    @property
    def axes(self) -> tuple[int, ...]:
        return self.sides or (self.n_observations,)

    @property
    def components(self) -> int:
        return 2 * len(self.axes) + 2

    @property
    def slices(self) -> dict[str, slice]:
        return _slices(
            observation=sum(self.axes),
            action=self.n_actions,
            next_observation=sum(self.axes),
            step=self.horizon + 1,
            reward=self.reward_bins,
        )

    def append(self, t: jax.Array, before: Step, observation: jax.Array) -> Tokens:
        at = self.slices
        first = t == 0
        observation, t = jnp.broadcast_arrays(observation, t)
        ids = [
            *(jnp.where(first, NOTHING, id) for id in self._coordinates(before.observation, at["observation"])),
            jnp.where(first, NOTHING, at["action"].start + before.action),
            *self._coordinates(observation, at["next_observation"]),
            at["step"].start + t,
        ]
        number = jnp.where(first, 0.0, before.reward / self.reward_unit)
        id_1C = jnp.stack(ids, -1)[..., None, :].astype(jnp.int32)
        return Tokens(id_1C, number[..., None].astype(jnp.float32), jnp.ones((*observation.shape, 1), bool))

    def targets(self, tokens: Tokens) -> list[tuple[slice, jax.Array]]:
        """For each predicted component, its slice of the vocabulary and its index there at every position."""
        at, D = self.slices, len(self.axes)
        reward_bin = jnp.where(tokens.id[..., D] == NOTHING, NOTHING, self.reward_bin(tokens.number * self.reward_unit))
        coordinates = zip(self._parts(at["next_observation"]), range(D + 1, 2 * D + 1))
        return [
            (at["action"], _relative(tokens.id[..., D], at["action"])),
            (at["reward"], reward_bin),
            *((part, _relative(tokens.id[..., component], part)) for part, component in coordinates),
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


@dataclasses.dataclass(frozen=True)
class InterleavedLayout(Vocabulary):
    """One token each for observation, action and reward bin, and a mark before each episode.

    A step appends (a, r, o'); the start of an episode appends (nothing, mark, o).
    """

    positions = 3
    components = 1

    @property
    def slices(self) -> dict[str, slice]:
        return _slices(mark=1, observation=self.n_observations, action=self.n_actions, reward=self.reward_bins)

    def append(self, t: jax.Array, before: Step, observation: jax.Array) -> Tokens:
        at = self.slices
        first = t == 0
        observation, first = jnp.broadcast_arrays(observation, first)
        ids = [
            jnp.where(first, NOTHING, at["action"].start + before.action),
            jnp.where(first, at["mark"].start, at["reward"].start + self.reward_bin(before.reward)),
            at["observation"].start + observation,
        ]
        id_P1 = jnp.stack(ids, -1)[..., None].astype(jnp.int32)
        return Tokens(id_P1, jnp.zeros(id_P1.shape[:-1], jnp.float32), id_P1[..., 0] != NOTHING)

    def targets(self, tokens: Tokens) -> list[tuple[slice, jax.Array]]:
        """The token itself, out of the whole vocabulary."""
        return [(slice(0, self.size), tokens.id[..., 0])]


Layout = TransitionLayout | InterleavedLayout
LAYOUTS = {"transition": TransitionLayout, "interleaved": InterleavedLayout}


def make_layout(name: str, families, reward_bins: int) -> Layout:
    """The layout whose vocabulary has room for every one of the families."""
    if name not in LAYOUTS:
        raise unknown("layout", name, LAYOUTS)
    if reward_bins < 2:
        raise UserError(f"reward_bins {reward_bins}: give at least 2")
    grids = {getattr(family, "sides", ()) for family in families}
    grid = {"sides": grids.pop()} if name == "transition" and len(grids) == 1 else {}
    return LAYOUTS[name](
        n_observations=max(n_observations(family) for family in families),
        n_actions=max(family.n_actions for family in families),
        horizon=max(family.horizon for family in families),
        reward_low=min(family.reward_range[0] for family in families),
        reward_high=max(family.reward_range[1] for family in families),
        reward_bins=reward_bins,
        **grid,
    )


def problem_of(config: dict) -> tuple[Family, Layout]:
    """The family and the layout of an experiment's config, as config.json holds it.

    The vocabulary has room for the families of the pretraining mixture, and, where recorded data are learned
    from, for the end of an episode after which nothing was recorded.
    """
    family = make_family(config["family"], horizon=config["horizon"], **config["problem"])
    mixture = [parse_family(text) for text in config["pretrain"]["mixture"]]
    layout = make_layout(config["layout"], (family, *mixture), config["reward_bins"])
    if config["data"]:
        layout = dataclasses.replace(layout, n_observations=layout.n_observations + 1)
    return family, layout


def encode(layout: Layout, trajectories: Trajectories) -> Tokens:
    """E episodes of B rows as E * (T + 1) * P positions: T + 1 appends for each episode.

    Append t holds the step before it and the observation that the model acts on at step t; the last
    append closes the episode. An append exists if its step before took place.
    """
    t = jnp.arange(trajectories.observation.shape[-1])
    before = Step(
        observation=_shift(trajectories.observation[..., :-1]),
        action=_shift(trajectories.action),
        reward=_shift(trajectories.reward),
    )
    took_place = _shift(trajectories.valid).at[..., 0].set(True)
    t = jnp.broadcast_to(t, trajectories.observation.shape)
    tokens = layout.append(t, before, trajectories.observation)
    tokens = dataclasses.replace(tokens, valid=tokens.valid & took_place[..., None])
    rows = trajectories.observation.shape[0]
    return Tokens(
        tokens.id.reshape(rows, -1, layout.components), tokens.number.reshape(rows, -1), tokens.valid.reshape(rows, -1)
    )


def acting_positions(layout: Layout, x_BLD: jax.Array, n_episodes: int) -> jax.Array:
    """Of values at every position, those where the model acts: (B, E, T, D), step t of episode e."""
    x_BEUPD = x_BLD.reshape(x_BLD.shape[0], n_episodes, -1, layout.positions, x_BLD.shape[-1])
    return x_BEUPD[:, :, :-1, -1]


def _shift(x: jax.Array) -> jax.Array:
    """x delayed by one along the last axis, which grows by one."""
    return jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(1, 0)])


def _slices(**sizes: int) -> dict[str, slice]:
    slices, start = {}, 0
    for name, size in sizes.items():
        slices[name] = slice(start, start + size)
        start += size
    return slices


def _relative(id: jax.Array, part: slice) -> jax.Array:
    return jnp.where(id == NOTHING, NOTHING, id - part.start)
