"""The energy chain with a noisy meter."""

import dataclasses

import jax
import jax.numpy as jnp

from icdm.errors import UserError
from icdm.families.energy import CHARGE_COST, LEVELS, WORDS, Energy
from icdm.problems.family import register
from icdm.problems.mdp import MDP
from icdm.problems.pomdp import POMDP
from icdm.problems.spaces import Discrete


@register("energy_pomdp")
@dataclasses.dataclass(frozen=True)
class EnergyPOMDP:
    """The chain of `Energy`, observed through a meter.

    The meter shows the true level with probability `fidelity`, and else one of the other nine levels uniformly. It
    is observed before the first action and after every step. The probability p that an action has its effect is the
    task. The decider observes the rewards only if `shows_reward`, because the reward of working reveals the level.

    Source: the POMDP experiment of arXiv 2605.09009, with fidelity 0.5, 0.8 and 1.
    """

    horizon: int = 5
    discount: float = 0.95
    fidelity: float = 0.8
    shows_reward: bool = False
    n_states, n_actions, reward_range, n_tasks = LEVELS, 3, (-CHARGE_COST, 1.0), None
    observation_space, hides_state = Discrete(LEVELS), True

    def __post_init__(self) -> None:
        Energy(self.horizon, self.discount)
        check_fidelity(self.fidelity)

    def sample(self, key: jax.Array) -> POMDP:
        return self.problem(Energy(self.horizon, self.discount).sample(key))

    def words(self) -> str:
        return WORDS + meter_in_words(self.fidelity)

    def grid(self, n: int) -> tuple[POMDP, jax.Array]:
        """The grid of `Energy`, observed through the meter."""
        mdp_G, weight_G = Energy(self.horizon, self.discount).grid(n)
        return jax.vmap(self.problem)(mdp_G), weight_G

    def problem(self, mdp: MDP) -> POMDP:
        """The chain `mdp` observed through the meter."""
        meter = meter_of(self.fidelity)
        emission = jnp.broadcast_to(meter, (self.n_actions, *meter.shape))
        return POMDP(mdp, emission, meter, observes_first=True, shows_reward=self.shows_reward)


def meter_of(fidelity: float) -> jax.Array:
    """P(level on the meter | true level), (S, O)."""
    true = jnp.eye(LEVELS)
    return fidelity * true + (1 - fidelity) / (LEVELS - 1) * (1 - true)


def meter_in_words(fidelity: float) -> str:
    return f" A meter shows the level: the true one with probability {fidelity:g}, else any other, all equally likely."


def check_fidelity(fidelity: float) -> None:
    """Raises UserError if the fidelity is outside (0, 1]."""
    if not 0 < fidelity <= 1:
        raise UserError(f"fidelity {fidelity}: give a probability in (0, 1]")
