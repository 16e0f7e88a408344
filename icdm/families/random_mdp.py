"""Random tabular MDPs."""

import dataclasses

import jax
import jax.numpy as jnp

from icdm.errors import UserError
from icdm.problems.counts import Counts, dirichlet_draw, dirichlet_mean
from icdm.problems.family import register
from icdm.problems.mdp import MDP, check_horizon
from icdm.problems.spaces import Discrete


@register("random_mdp")
@dataclasses.dataclass(frozen=True)
class RandomMDP:
    """Transition rows ~ Dirichlet(concentration), Bernoulli rewards with means ~ Uniform[0, 1].

    States lie in `layers` of `states` each: every step leads from one layer to the next, from the last to the first,
    and episodes start in the first. State s is in layer s // states. In one layer, every state may follow every other.

    Source: the standard prior of posterior-sampling studies (Osband, Russo, Van Roy, "(More) Efficient
    Reinforcement Learning via Posterior Sampling", NeurIPS 2013). Both posteriors are conjugate:
    Dirichlet(concentration + counts) and Beta(1 + successes, 1 + failures).
    """

    states: int = 5
    actions: int = 3
    horizon: int = 6
    discount: float = 1.0
    concentration: float = 0.2
    layers: int = 1
    reward_range, n_tasks, hides_state, shows_reward = (0.0, 1.0), None, False, True

    def __post_init__(self) -> None:
        check_horizon(self.horizon)
        if min(self.states, self.actions, self.layers) < 1 or self.concentration <= 0 or not 0 < self.discount <= 1:
            raise UserError(f"{self}: sizes must be at least 1, concentration above 0, discount in (0, 1]")

    @property
    def n_states(self) -> int:
        return self.layers * self.states

    @property
    def n_actions(self) -> int:
        return self.actions

    @property
    def observation_space(self) -> Discrete:
        return Discrete(self.n_states)

    def words(self) -> str:
        return (
            f"There are {self.n_states} states and {self.actions} actions. Where each action leads in each state, and "
            "how likely it pays 1 rather than 0, is unknown. The state is observed."
        )

    def sample(self, key: jax.Array) -> MDP:
        zeros = jnp.zeros((self.actions, self.n_states, self.n_states))
        return self.posterior_sample(key, Counts(zeros, jnp.zeros((self.n_states, self.actions))))

    def posterior_mean(self, counts: Counts) -> MDP:
        transition = dirichlet_mean(self._prior[None] + counts.transition)
        return self._problem(transition, (1 + counts.reward_sum) / (2 + counts.visits))

    def posterior_sample(self, key: jax.Array, counts: Counts) -> MDP:
        transition_key, reward_key = jax.random.split(key)
        transition = dirichlet_draw(transition_key, self._prior[None] + counts.transition)
        failures = counts.visits - counts.reward_sum
        return self._problem(transition, jax.random.beta(reward_key, 1 + counts.reward_sum, 1 + failures))

    @property
    def _prior(self) -> jax.Array:
        """The prior's parameter for each next state, (S, S); 0 where a step cannot lead."""
        layer_S = jnp.arange(self.n_states) // self.states
        return self.concentration * (layer_S[None] == (layer_S[:, None] + 1) % self.layers)

    def _problem(self, transition: jax.Array, reward: jax.Array) -> MDP:
        return MDP(
            transition=transition,
            reward=reward,
            arrival_reward=jnp.zeros(self.n_states),
            initial=jnp.where(jnp.arange(self.n_states) < self.states, 1 / self.states, 0),
            terminal=jnp.zeros(self.n_states, bool),
            discount=jnp.asarray(self.discount, jnp.result_type(float)),
            horizon=self.horizon,
            reward_noise="bernoulli",
        )
