"""Bandits whose arms pay 1 or nothing."""

import dataclasses

import jax
import jax.numpy as jnp

from icdm.errors import UserError
from icdm.problems.counts import Counts
from icdm.problems.family import register
from icdm.problems.mdp import MDP, check_horizon
from icdm.problems.spaces import Discrete


@register("bernoulli_bandit")
@dataclasses.dataclass(frozen=True)
class BernoulliBandit:
    """Arms that pay 1 with a probability that is the task, else 0; one state, `horizon` pulls in an episode.

    With gap 0 the probabilities are uniform in [0, 1]. Else one arm, drawn at random, pays with probability
    (1 + gap) / 2 and all others with (1 - gap) / 2. Posteriors are Beta(1 + successes, 1 + failures) in both cases:
    a decider is not told the gap.

    Source: the hard instance (5 arms, gap 0.2, 100 pulls) and the Beta(1, 1) prior of its references are those of
    Krishnamurthy et al., "Can large language models explore in-context?" (NeurIPS 2024).
    """

    arms: int = 5
    horizon: int = 1
    gap: float = 0.0
    n_states, reward_range, n_tasks, discount = 1, (0.0, 1.0), None, 1.0
    observation_space, hides_state, shows_reward = Discrete(1), False, True

    def __post_init__(self) -> None:
        check_horizon(self.horizon)
        if self.arms < 2 or not 0 <= self.gap <= 1:
            raise UserError(f"{self}: give at least 2 arms and a gap in [0, 1]")

    @property
    def n_actions(self) -> int:
        return self.arms

    def words(self) -> str:
        return f"Each of {self.arms} actions pays 1 with an unknown probability of its own, and else 0."

    def sample(self, key: jax.Array) -> MDP:
        real = jnp.result_type(float)
        if not self.gap:
            return self.problem(jax.random.uniform(key, (self.arms,), real))
        is_best_A = jnp.arange(self.arms) == jax.random.randint(key, (), 0, self.arms)
        return self.problem(jnp.where(is_best_A, 1 + self.gap, 1 - self.gap).astype(real) / 2)

    def problem(self, chance_A: jax.Array) -> MDP:
        """The task whose arms pay with these probabilities."""
        return MDP(
            transition=jnp.ones((self.arms, 1, 1)),
            reward=chance_A[None],
            arrival_reward=jnp.zeros(1),
            initial=jnp.ones(1),
            terminal=jnp.zeros(1, bool),
            discount=jnp.asarray(self.discount, jnp.result_type(float)),
            horizon=self.horizon,
            reward_noise="bernoulli",
        )

    def posterior_mean(self, counts: Counts) -> MDP:
        return self.problem((1 + counts.reward_sum[0]) / (2 + counts.visits[0]))

    def posterior_sample(self, key: jax.Array, counts: Counts) -> MDP:
        successes_A, n_A = counts.reward_sum[0], counts.visits[0]
        return self.problem(jax.random.beta(key, 1 + successes_A, 1 + n_A - successes_A))
