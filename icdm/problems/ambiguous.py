"""Ambiguous problems: an ambiguity set of models, and the pessimism with which the decider weighs them."""

import dataclasses
import functools
from collections.abc import Sequence

import jax
import numpy as np

from icdm.errors import UserError
from icdm.problems.mdp import MDP
from icdm.problems.pomdp import POMDP


@functools.partial(jax.tree_util.register_dataclass, data_fields=["models", "pessimism"], meta_fields=["nominal_index"])
@dataclasses.dataclass(frozen=True)
class AmbiguousPOMDP:
    """M models of one decision problem (leading axis M), or N such problems (leading axes N, M).

    The objective weighs the worst model by `pessimism` and the best model by 1 - `pessimism` (alpha-maxmin
    expected utility; 1 is maximin). The nominal model generates the episodes. The problem is a POMDP if M = 1,
    and an ambiguous MDP if the emissions are the identity.

    Attributes:
      models: the ambiguity set.
      pessimism: () alpha in [0, 1].
      nominal_index: index of the model that generates the episodes.
    """

    models: POMDP
    pessimism: jax.Array
    nominal_index: int = 0
    hides_state, is_ambiguous = True, True

    @property
    def nominal(self) -> POMDP:
        """The model that generates the episodes."""
        return self.model(self.nominal_index)

    @property
    def others(self) -> tuple[POMDP, ...]:
        """The models that generate no episodes."""
        return tuple(self.model(m) for m in range(self.n_models) if m != self.nominal_index)

    @property
    def mdp(self) -> MDP:
        """The nominal model as a fully observed problem."""
        return self.nominal.mdp

    @property
    def n_models(self) -> int:
        return self.models.mdp.initial.shape[-2]

    @property
    def n_states(self) -> int:
        return self.models.n_states

    @property
    def n_actions(self) -> int:
        return self.models.n_actions

    @property
    def n_observations(self) -> int:
        return self.models.n_observations

    @property
    def horizon(self) -> int:
        return self.models.horizon

    @property
    def shows_reward(self) -> bool:
        return self.models.shows_reward

    @property
    def discount(self) -> jax.Array:
        return self.nominal.discount

    def model(self, index: int) -> POMDP:
        """Model `index` of the ambiguity set (of each one in a batch)."""
        which = (slice(None),) * (self.models.mdp.initial.ndim - 2) + (index,)
        return jax.tree.map(lambda leaf: leaf[which], self.models)

    def reset(self, task_B: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        """First states and observations of B episodes under the nominal model."""
        return self.nominal.reset(task_B, key)

    def step(
        self, task_B: jax.Array, state_B: jax.Array, action_B: jax.Array, key: jax.Array
    ) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
        """One step of B episodes under the nominal model."""
        return self.nominal.step(task_B, state_B, action_B, key)


def make_ambiguous(models: Sequence[POMDP], *, pessimism: float, nominal: int = 0) -> AmbiguousPOMDP:
    """One ambiguous problem from single POMDPs.

    Raises:
      UserError: the ambiguity set is empty, its models disagree in shape, horizon, discount or in what the
        decider observes, the pessimism is outside [0, 1], or no model has the nominal index.
    """
    if not models:
        raise UserError("the ambiguity set is empty: give at least one model")
    if not 0 <= float(pessimism) <= 1:
        raise UserError(f"pessimism {pessimism}: give alpha in [0, 1] (1 plans for the worst model)")
    if not 0 <= nominal < len(models):
        raise UserError(f"nominal model {nominal}: the ambiguity set has models 0 to {len(models) - 1}")
    for index, model in enumerate(models):
        for what, describe in _AGREEMENT.items():
            if describe(model) != describe(models[0]):
                ours, first = describe(model), describe(models[0])
                raise UserError(f"model {index} has {what} {ours}, model 0 {first}: make them agree")
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *models)
    return AmbiguousPOMDP(stacked, np.float64(pessimism), nominal_index=int(nominal))


_AGREEMENT = {
    "(actions, states, observations)": lambda model: tuple(model.emission.shape),
    "discount": lambda model: float(model.discount),
    "horizon": lambda model: model.horizon,
    "reward noise": lambda model: model.mdp.reward_noise,
    "an observation before the first action:": lambda model: model.observes_first,
    "observed rewards:": lambda model: model.shows_reward,
}
