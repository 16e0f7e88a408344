"""What can be done in a Gaussian bandit with means ~ Uniform[0, 1]: index policies and the Bayes floor.

B episodes, A arms, T pulls, G points of a grid over [0, 1].
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

RULES = ("thompson_sampling", "posterior_mean_greedy", "ucb", "empirical_mean")


@functools.partial(jax.tree_util.register_dataclass, data_fields=[], meta_fields=["rule", "arms", "noise"])
@dataclasses.dataclass(frozen=True)
class BanditPolicy:
    """Pulls the arm of the highest index, from an empty history on; n pulls of an arm with average y.

    thompson_sampling:     a draw from the posterior, N(y, noise^2 / n) cut to [0, 1] (Thompson, 1933).
    posterior_mean_greedy: the mean of that posterior.
    ucb:                   y + noise sqrt(2 log t / n), every arm first pulled once; t pulls so far (UCB1 of
                           Auer, Cesa-Bianchi, Fischer, 2002, for noise-subgaussian rewards).
    empirical_mean:        y, every arm first pulled once.
    """

    rule: str
    arms: int
    noise: float

    def init(self, task_B):
        zeros_BA = jnp.zeros((task_B.shape[0], self.arms), jnp.float32)
        return zeros_BA, zeros_BA

    def act(self, carry, observation_B, key):
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

    def observe(self, carry, action_B, reward_B):
        one_BA = jax.nn.one_hot(action_B, self.arms)
        return carry[0] + one_BA, carry[1] + one_BA * reward_B[:, None]


def best_arm_probabilities(action_BT: np.ndarray, reward_BT: np.ndarray, arms: int, noise: float) -> np.ndarray:
    """P(a has the highest mean | the first t pulls), (B, T + 1, A), for t = 0..T.

    P(a best) = int f_a(x) prod_{b != a} F_b(x) dx with the posterior densities f and distributions F of the
    means, by the midpoint rule on 400 points of [0, 1]. Its mean -log at the best arm is the smallest
    cross-entropy that any reader of the pulls can expect.
    """
    rows, steps = action_BT.shape
    grid_G = (np.arange(400) + 0.5) / 400
    log_BAG = np.zeros((rows, arms, grid_G.size))
    found = np.empty((rows, steps + 1, arms))
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
            found[:, t, a] = (density_BAG[:, a] * np.delete(below_BAG, a, 1).prod(1)).sum(-1)
    return found / found.sum(-1, keepdims=True)
