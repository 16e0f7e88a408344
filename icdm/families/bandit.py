"""Gaussian bandits, whose arm means are the task, and index rules for them.

Axis letters as in docs/axes.md: A arms, T pulls, G points of a grid over [0, 1].
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from icdm.errors import UserError
from icdm.problems.counts import Counts
from icdm.problems.family import register
from icdm.problems.mdp import MDP, check_horizon
from icdm.problems.policy import Carry
from icdm.problems.spaces import Discrete

RULES = ("thompson_sampling", "posterior_mean_greedy", "ucb", "empirical_mean")


@register("bandit")
@dataclasses.dataclass(frozen=True)
class Bandit:
    """Arms with means ~ Uniform[0, 1] and rewards ~ N(mean, noise^2); one state, `horizon` pulls.

    The posterior of a mean after n rewards with average y is N(y, noise^2 / n) truncated to [0, 1].

    Source: the bandits of Lee et al., "Supervised Pretraining Can Learn In-Context Reinforcement
    Learning" (NeurIPS 2023).
    """

    arms: int = 5
    horizon: int = 25
    noise: float = 0.3
    n_states, reward_range, n_tasks, discount = 1, (-1.0, 2.0), None, 1.0
    observation_space, hides_state, shows_reward = Discrete(1), False, True

    def __post_init__(self) -> None:
        check_horizon(self.horizon)
        if self.arms < 2 or self.noise <= 0:
            raise UserError(f"{self}: give at least 2 arms and a noise above 0")

    @property
    def n_actions(self) -> int:
        return self.arms

    def sample(self, key: jax.Array) -> MDP:
        return self.problem(jax.random.uniform(key, (self.arms,), jnp.result_type(float)))

    def problem(self, mean_A: jax.Array) -> MDP:
        """The task with the arm means `mean_A`."""
        return MDP(
            transition=jnp.ones((self.arms, 1, 1)),
            reward=mean_A[None],
            arrival_reward=jnp.zeros(1),
            initial=jnp.ones(1),
            terminal=jnp.zeros(1, bool),
            discount=jnp.asarray(self.discount, jnp.result_type(float)),
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
        """A random permutation of the arms; it maps tasks to equally likely tasks."""
        return np.zeros(1, np.int64), rng.permutation(self.arms)

    def rules(self) -> dict[str, "BanditRule"]:
        """Index policies, which use only the pulls of the current episode."""
        return {rule: BanditRule(rule, self.arms, self.noise) for rule in RULES}

    def best_action_probabilities(self, trajectories: Any) -> np.ndarray:
        """P(a has the highest mean | the pulls before), (B, U, A)."""
        action_BT, reward_BT = (np.asarray(x)[:, 0] for x in (trajectories.action, trajectories.reward))
        return best_arm_probabilities(action_BT, reward_BT, self.arms, self.noise)

    def _likelihood(self, counts: Counts) -> tuple[jax.Array, jax.Array]:
        """Average and scale of the normal likelihood of each mean; the scale is 1000 if an arm was never pulled."""
        n_A = counts.visits[0]
        average_A = jnp.where(n_A > 0, counts.reward_sum[0] / jnp.maximum(n_A, 1), 0.5)
        return average_A, jnp.where(n_A > 0, self.noise / jnp.sqrt(jnp.maximum(n_A, 1)), 1e3)


@functools.partial(jax.tree_util.register_dataclass, data_fields=[], meta_fields=["rule", "arms", "noise"])
@dataclasses.dataclass(frozen=True)
class BanditRule:
    """Pulls the arm with the highest index; y is the average reward of n pulls of an arm.

    thompson_sampling:     a draw from the posterior, N(y, noise^2 / n) truncated to [0, 1] (Thompson, 1933).
    posterior_mean_greedy: the mean of that posterior.
    ucb:                   y + noise sqrt(2 log t / n) after one pull of every arm, t the number of all pulls (UCB1 of
                           Auer, Cesa-Bianchi, Fischer, 2002, for noise-subgaussian rewards).
    empirical_mean:        y after one pull of every arm.
    """

    rule: str
    arms: int
    noise: float

    def init(self, task_B: jax.Array) -> Carry:
        zeros_BA = jnp.zeros((task_B.shape[0], self.arms), jnp.float32)
        return zeros_BA, zeros_BA

    def act(self, carry: Carry, observation_B: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array, Carry]:
        n_BA, sum_BA = carry
        y_BA = sum_BA / jnp.maximum(n_BA, 1)
        scale_BA = self.noise / jnp.sqrt(jnp.maximum(n_BA, 1))
        if self.rule in ("ucb", "empirical_mean"):
            t_B1 = jnp.maximum(n_BA.sum(-1, keepdims=True), 1)
            bonus_BA = scale_BA * jnp.sqrt(2 * jnp.log(t_B1)) if self.rule == "ucb" else 0.0
            index_BA = jnp.where(n_BA > 0, y_BA + bonus_BA, jnp.inf)
        else:
            low_BA, high_BA = -y_BA / scale_BA, (1 - y_BA) / scale_BA
            if self.rule == "thompson_sampling":
                index_BA = y_BA + scale_BA * jax.random.truncated_normal(key, low_BA, high_BA)
                index_BA = jnp.where(n_BA > 0, index_BA, jax.random.uniform(jax.random.fold_in(key, 1), n_BA.shape))
            else:
                normal = jax.scipy.stats.norm
                mass_BA = jnp.maximum(normal.cdf(high_BA) - normal.cdf(low_BA), 1e-12)
                mean_BA = y_BA + scale_BA * (normal.pdf(low_BA) - normal.pdf(high_BA)) / mass_BA
                index_BA = jnp.where(n_BA > 0, jnp.clip(mean_BA, 0, 1), 0.5)
        return jnp.argmax(index_BA, -1).astype(jnp.int32), index_BA, carry

    def observe(self, carry: Carry, action_B: jax.Array, reward_B: jax.Array) -> Carry:
        one_BA = jax.nn.one_hot(action_B, self.arms)
        return carry[0] + one_BA, carry[1] + one_BA * reward_B[:, None]


def best_arm_probabilities(action_BT: np.ndarray, reward_BT: np.ndarray, arms: int, noise: float) -> np.ndarray:
    """P(a has the highest mean | the first t pulls), (B, U, A), for t = 0..T.

    P(a best) = int f_a(x) prod_{b != a} F_b(x) dx with the posterior densities f and distributions F of the
    means, by the midpoint rule on 400 points of [0, 1]. The mean of -log P at the best arm is the smallest expected
    cross-entropy of any predictor that observes the pulls.
    """
    rows, steps = action_BT.shape
    grid_G = (np.arange(400) + 0.5) / 400
    log_BAG = np.zeros((rows, arms, grid_G.size))
    probability_BUA = np.empty((rows, steps + 1, arms))
    for t in range(steps + 1):
        if t:
            row, arm, reward_B1 = (
                np.arange(rows),
                action_BT[:, t - 1],
                reward_BT[:, t - 1, None].astype(np.float64),
            )
            log_BAG[row, arm] -= 0.5 * ((reward_B1 - grid_G) / noise) ** 2
        density_BAG = np.exp(log_BAG - log_BAG.max(-1, keepdims=True))
        density_BAG /= density_BAG.sum(-1, keepdims=True)
        below_BAG = np.cumsum(density_BAG, -1) - density_BAG / 2
        for a in range(arms):
            probability_BUA[:, t, a] = (density_BAG[:, a] * np.delete(below_BAG, a, 1).prod(1)).sum(-1)
    return probability_BUA / probability_BUA.sum(-1, keepdims=True)
