"""Random POMDPs: random MDPs with random emissions."""

import dataclasses

import jax
import jax.numpy as jnp

from icdm.errors import UserError
from icdm.families.random_mdp import RandomMDP
from icdm.problems.counts import dirichlet_draw
from icdm.problems.family import register
from icdm.problems.pomdp import POMDP
from icdm.problems.spaces import Discrete


@register("random_pomdp")
@dataclasses.dataclass(frozen=True)
class RandomPOMDP:
    """The MDP of `RandomMDP`; emission rows ~ Dirichlet(emission_concentration), shared by all actions.

    The first observation has the same emission. The decider observes the Bernoulli rewards, because the context does
    not identify the reward means otherwise. States are easier to distinguish if the concentration is smaller.

    Source: the prior over POMDPs of Ross, Pineau, Chaib-draa and Kreitmann, "A Bayesian approach for
    learning and planning in partially observable MDPs", JMLR 12 (2011), made symmetric.
    """

    states: int = 5
    actions: int = 3
    observations: int = 4
    horizon: int = 8
    discount: float = 1.0
    concentration: float = 0.2
    emission_concentration: float = 0.3
    shows_reward: bool = True
    reward_range, n_tasks, hides_state = (0.0, 1.0), None, True

    def __post_init__(self) -> None:
        self._mdp_family()  # checks its own parameters
        if self.observations < 1 or self.emission_concentration <= 0:
            raise UserError(f"{self}: give at least 1 observation and an emission_concentration above 0")

    @property
    def n_states(self) -> int:
        return self.states

    @property
    def n_actions(self) -> int:
        return self.actions

    @property
    def observation_space(self) -> Discrete:
        return Discrete(self.observations)

    def words(self) -> str:
        return (
            f"There are {self.states} hidden states, {self.actions} actions and {self.observations} observations. "
            "Where each action leads, how likely it pays 1 rather than 0, and how likely each state shows each "
            "observation is unknown."
        )

    def _mdp_family(self) -> RandomMDP:
        return RandomMDP(self.states, self.actions, self.horizon, self.discount, self.concentration)

    def sample(self, key: jax.Array) -> POMDP:
        mdp_key, emission_key = jax.random.split(key)
        rows = dirichlet_draw(emission_key, jnp.full((self.states, self.observations), self.emission_concentration))
        emission = jnp.broadcast_to(rows, (self.actions, *rows.shape))
        mdp = self._mdp_family().sample(mdp_key)
        return POMDP(mdp, emission, rows, observes_first=True, shows_reward=self.shows_reward)
