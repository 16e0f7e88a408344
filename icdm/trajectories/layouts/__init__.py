"""Layouts: how a trajectory becomes tokens.

A layout is defined by one method, `append(t, before, observation)`: the positions that are added when an observation
arrives. Training (`icdm.trajectories.prompt.encode`, whole episodes) and acting (one step at a time into a KV cache)
both use it, so that they cannot disagree. The model acts at the last position that `append` returns. Beside it a
layout has `size` (of its vocabulary), `positions` (of one append), `components` and `numbers` (ids and numbers of one
position), `shown` (how observations are written), `opening` (ids of what stands before the first episode), `action_ids`
and `targets` (what pretraining predicts).
"""

from collections.abc import Sequence
from typing import Protocol

import jax
import numpy as np

from icdm.errors import UserError, unknown
from icdm.problems.family import Family
from icdm.trajectories.layouts.interleaved import InterleavedLayout
from icdm.trajectories.layouts.observations import Codes, Vectors
from icdm.trajectories.layouts.single_steps import SingleStepsLayout
from icdm.trajectories.layouts.transition import TransitionLayout
from icdm.trajectories.layouts.vocabulary import Tokens
from icdm.trajectories.trajectory import Step


class Layout(Protocol):
    """What every layout offers; it is hashable, so that it can be static in compiled programs."""

    size: int
    positions: int
    components: int
    numbers: int
    family_horizon: int
    n_observations: int
    action_ids: np.ndarray
    opening: np.ndarray
    independent_steps: bool

    @property
    def shown(self) -> Codes | Vectors: ...

    def append(self, t: jax.Array, before: Step, observation: jax.Array) -> Tokens: ...

    def targets(self, tokens: Tokens) -> list[tuple[slice, jax.Array]]: ...


LAYOUTS = {
    "transition": TransitionLayout,
    "interleaved": InterleavedLayout,
    "single_steps": SingleStepsLayout,
}


def make_layout(
    name: str, family: Family, others: Sequence[Family] = (), *, reward_bins: int, marks_end: bool = False
) -> Layout:
    """The layout in which a family is acted in, its vocabulary large enough for the other families too.

    Args:
      marks_end: one more observation stands for the end of an episode after which nothing was recorded.

    Raises:
      UserError: an unknown layout, too few bins of rewards, observations that are real numbers.
    """
    if name not in LAYOUTS:
        raise unknown("layout", name, LAYOUTS)
    if reward_bins < 2:
        raise UserError(f"reward_bins {reward_bins}: give at least 2")
    families = (family, *others)
    grids = {f.observation_space.sides for f in families}
    return LAYOUTS[name](
        n_observations=max(f.observation_space.n for f in families) + marks_end,
        n_actions=max(f.n_actions for f in families),
        horizon=max(f.horizon for f in families),
        reward_low=min(f.reward_range[0] for f in families),
        reward_high=max(f.reward_range[1] for f in families),
        reward_bins=reward_bins,
        family_actions=family.n_actions,
        sides=grids.pop() if len(grids) == 1 else (),
        widths=family.observation_space.widths,
    )
