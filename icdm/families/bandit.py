"""Gaussian bandits: pull arms of unknown means; the means are the task."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from icdm.errors import UserError
from icdm.problems.counts import Counts
from icdm.problems.family import register
from icdm.problems.mdp import MDP, check_horizon


@register("bandit")
@dataclasses.dataclass(frozen=True)
class Bandit:
    """Arms with means ~ Uniform[0, 1] and rewards ~ N(mean, noise^2); one state, `horizon` pulls.

    Source: the bandits of Lee et al., "Supervised Pretraining Can Learn In-Context Reinforcement
    Learning" (NeurIPS 2023). The posterior of a mean after n rewards with average y is
    N(y, noise^2 / n) cut to [0, 1].
    """

    arms: int = 5
    horizon: int = 25
    noise: float = 0.3
    n_states, reward_range, n_tasks = 1, (-1.0, 2.0), None

    def __post_init__(self):
        check_horizon(self.horizon)
        if self.arms < 2 or self.noise <= 0:
            raise UserError(f"{self}: give at least 2 arms and a noise above 0")

    @property
    def n_actions(self) -> int:
        return self.arms

    def sample(self, key: jax.Array) -> MDP:
        return self.problem(jax.random.uniform(key, (self.arms,), jnp.result_type(float)))

    def problem(self, mean_A: jax.Array) -> MDP:
        """The task with these means."""
        return MDP(
            transition=jnp.ones((self.arms, 1, 1)),
            reward=mean_A[None],
            arrival_reward=jnp.zeros(1),
            initial=jnp.ones(1),
            terminal=jnp.zeros(1, bool),
            discount=jnp.ones((), jnp.result_type(float)),
            horizon=self.horizon,
            reward_noise="gaussian",
            noise_scale=self.noise,
        )

    def posterior_mean(self, counts: Counts) -> MDP:
        average_A, scale_A = self._likelihood(counts)
        low_A, high_A = -average_A / scale_A, (1 - average_A) / scale_A
        normal = jax.scipy.stats.norm
        mass_A = jnp.maximum(normal.cdf(high_A) - normal.cdf(low_A), 1e-300)
        return self.problem(average_A + scale_A * (normal.pdf(low_A) - normal.pdf(high_A)) / mass_A)

    def posterior_sample(self, key: jax.Array, counts: Counts) -> MDP:
        average_A, scale_A = self._likelihood(counts)
        low_A, high_A = -average_A / scale_A, (1 - average_A) / scale_A
        return self.problem(average_A + scale_A * jax.random.truncated_normal(key, low_A, high_A, dtype=low_A.dtype))

    def symmetry(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """A relabelling (of observations, of actions) that takes tasks to equally likely tasks."""
        return np.zeros(1, np.int64), rng.permutation(self.arms)

    def _likelihood(self, counts):
        """Average and scale of the normal likelihood of each mean; wide where an arm was never pulled."""
        n_A = counts.visits[0]
        average_A = jnp.where(n_A > 0, counts.reward_sum[0] / jnp.maximum(n_A, 1), 0.5)
        return average_A, jnp.where(n_A > 0, self.noise / jnp.sqrt(jnp.maximum(n_A, 1)), 1e3)
