"""The energy chain with a noisy meter and an ambiguity set of models around the nominal chain."""

import dataclasses

import jax
import jax.numpy as jnp

from icdm.errors import UserError
from icdm.families.energy import CHARGE_COST, LEVELS, WORDS, Energy
from icdm.families.energy_pomdp import EnergyPOMDP, check_fidelity, meter_in_words
from icdm.problems.ambiguous import AmbiguousPOMDP
from icdm.problems.counts import dirichlet_draw
from icdm.problems.family import register
from icdm.problems.pomdp import POMDP
from icdm.problems.spaces import Discrete


@register("energy_apomdp")
@dataclasses.dataclass(frozen=True)
class EnergyAPOMDP:
    """An ambiguity set of `n_models` chains of `EnergyPOMDP`; the first is nominal and generates the episodes.

    Each further model draws every transition row from Dirichlet(concentration x nominal row) on the row's support.
    A row is moved along the straight line to the nominal row until its relative entropy KL(row | nominal) is
    `radius`, if it is larger.

    Source: the ambiguous POMDP experiment of arXiv 2605.09009: ambiguity sets of 1, 3 and 5 models within
    relative entropy 0.2, pessimism 0, 0.25, 0.5, 0.75 and 1. The concentration is this project's choice.
    """

    horizon: int = 5
    discount: float = 0.95
    fidelity: float = 0.8
    n_models: int = 3
    pessimism: float = 0.5
    radius: float = 0.2
    concentration: float = 5.0
    n_states, n_actions, reward_range, n_tasks = LEVELS, 3, (-CHARGE_COST, 1.0), None
    observation_space, hides_state, shows_reward = Discrete(LEVELS), True, False

    def __post_init__(self) -> None:
        Energy(self.horizon, self.discount)
        check_fidelity(self.fidelity)
        if self.n_models < 1:
            raise UserError(f"n_models {self.n_models}: an ambiguity set needs at least the nominal model")
        if not 0 <= self.pessimism <= 1:
            raise UserError(f"pessimism {self.pessimism}: give alpha in [0, 1]")
        if self.radius <= 0 or self.concentration <= 0:
            raise UserError(f"radius {self.radius}, concentration {self.concentration}: give positive numbers")

    def words(self) -> str:
        return (
            WORDS
            + meter_in_words(self.fidelity)
            + f" The probabilities of the level's moves are known only to lie in a "
            f"set of {self.n_models} models; the decider weighs the worst of them by {self.pessimism:g}."
        )

    def grid(self, n: int) -> tuple[POMDP, jax.Array]:
        """The grid of the nominal model, which generates the episodes."""
        return EnergyPOMDP(self.horizon, self.discount, self.fidelity).grid(n)

    def sample(self, key: jax.Array) -> AmbiguousPOMDP:
        task_key, models_key = jax.random.split(key)
        nominal = EnergyPOMDP(self.horizon, self.discount, self.fidelity).sample(task_key)
        rows = nominal.mdp.transition
        keys = jax.random.split(models_key, self.n_models)
        drawn = jax.vmap(lambda key: dirichlet_draw(key, self.concentration * rows))(keys)
        perturbed = drawn_back(drawn, jnp.broadcast_to(rows, drawn.shape), self.radius)
        transition = perturbed.at[0].set(rows)
        models = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (self.n_models, *jnp.shape(leaf))), nominal)
        models = dataclasses.replace(models, mdp=dataclasses.replace(models.mdp, transition=transition))
        return AmbiguousPOMDP(models, jnp.asarray(self.pessimism, rows.dtype))


def relative_entropy(row: jax.Array, nominal: jax.Array) -> jax.Array:
    """KL(row | nominal) = sum row log(row / nominal), over the last axis."""
    inside = row > 0
    ratio = jnp.where(inside, row, 1) / jnp.where(inside, nominal, 1)
    return (row * jnp.log(ratio)).sum(-1)


def drawn_back(row: jax.Array, nominal: jax.Array, radius: float) -> jax.Array:
    """nominal + w (row - nominal) with the largest w in [0, 1] whose relative entropy is at most `radius`."""

    def halve(bracket: tuple[jax.Array, jax.Array], _: None):
        low, high = bracket
        middle = (low + high) / 2
        inside = relative_entropy(mixed(middle), nominal) <= radius
        return (jnp.where(inside, middle, low), jnp.where(inside, high, middle)), None

    def mixed(share: jax.Array) -> jax.Array:
        return nominal + share[..., None] * (row - nominal)

    within = relative_entropy(row, nominal) <= radius
    zero, one = jnp.zeros(row.shape[:-1], row.dtype), jnp.ones(row.shape[:-1], row.dtype)
    (low, _), _ = jax.lax.scan(halve, (zero, one), length=40)
    return jnp.where(within[..., None], row, mixed(low))
