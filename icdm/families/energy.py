"""The energy chain of arXiv 2605.09009: a machine charges at a cost or works with its energy."""

import dataclasses

import jax
import jax.numpy as jnp

from icdm.errors import UserError
from icdm.problems.counts import Counts
from icdm.problems.family import midpoints, register
from icdm.problems.mdp import MDP, check_horizon
from icdm.problems.spaces import Discrete

LEVELS = 10
CHARGE_COST = 0.02
WORK = 1  # actions 0 and 2 charge
WORDS = (
    f"A machine has an energy level from 0 to {LEVELS - 1}. Actions 0 and 2 charge it: they cost {CHARGE_COST}, and "
    "the level rises by one with an unknown probability p. Action 1 works: it pays the level divided by "
    f"{LEVELS - 1}, and the level falls by one with probability p."
)


@register("energy")
@dataclasses.dataclass(frozen=True)
class Energy:
    """Ten energy levels; the probability p that an action has its effect is the task.

    Actions 0 and 2 charge: level + 1 with probability p, cost 0.02. Action 1 works: reward s / 9 at
    the current level s, level - 1 with probability p. The level stays within 0 to 9. The first level is
    uniform, p ~ Uniform[lowest, highest).

    Source: the MDP experiment of arXiv 2605.09009. The paper does not give every detail; this variant reproduces
    its gaps of the uniform random policy (57.6 / 49.6 / 46.4 % at horizon 5 / 10 / 15; here 58.0 / 49.9 / 46.7 %).
    """

    horizon: int = 5
    discount: float = 0.95
    lowest: float = 0.5
    highest: float = 1.0
    n_states, n_actions, reward_range, n_tasks = LEVELS, 3, (-CHARGE_COST, 1.0), None
    observation_space, hides_state, shows_reward = Discrete(LEVELS), False, True

    def __post_init__(self) -> None:
        check_horizon(self.horizon)
        if not 0 < self.discount <= 1:
            raise UserError(f"discount {self.discount}: give a number in (0, 1]")
        if not 0 <= self.lowest < self.highest <= 1:
            raise UserError(
                f"p from {self.lowest} to {self.highest}: give lowest and highest with 0 <= lowest < highest <= 1"
            )

    def sample(self, key: jax.Array) -> MDP:
        return self.problem(
            jax.random.uniform(key, minval=self.lowest, maxval=self.highest, dtype=jnp.result_type(float))
        )

    def problem(self, p: jax.Array) -> MDP:
        """The task whose actions have their effect with probability p."""
        level = jnp.arange(LEVELS)
        stay = jnp.eye(LEVELS)
        up = jax.nn.one_hot(jnp.minimum(level + 1, LEVELS - 1), LEVELS, dtype=stay.dtype)
        down = jax.nn.one_hot(jnp.maximum(level - 1, 0), LEVELS, dtype=stay.dtype)
        charge, work = p * up + (1 - p) * stay, p * down + (1 - p) * stay
        cost = jnp.full(LEVELS, -CHARGE_COST)
        return MDP(
            transition=jnp.stack([charge, work, charge]),
            reward=jnp.stack([cost, level / (LEVELS - 1), cost], -1),
            arrival_reward=jnp.zeros(LEVELS),
            initial=jnp.full(LEVELS, 1 / LEVELS),
            terminal=jnp.zeros(LEVELS, bool),
            discount=jnp.asarray(self.discount, jnp.result_type(float)),
            horizon=self.horizon,
        )

    def words(self) -> str:
        return WORDS + " The level is observed."

    def grid(self, n: int) -> tuple[MDP, jax.Array]:
        """The tasks of n values of p, the midpoints of equal parts of its range, and their prior weights (n,)."""
        return jax.vmap(self.problem)(midpoints(self.lowest, self.highest, n)), jnp.full(n, 1 / n)

    def posterior_mean(self, counts: Counts) -> MDP:
        """The problem of the posterior mean of p: the transition is linear in p."""
        p_G, weight_G = self._posterior(counts)
        return self.problem(p_G @ weight_G)

    def posterior_sample(self, key: jax.Array, counts: Counts) -> MDP:
        p_G, weight_G = self._posterior(counts)
        return self.problem(jax.random.choice(key, p_G, p=weight_G))

    def _posterior(self, counts: Counts, n_points: int = 1000) -> tuple[jax.Array, jax.Array]:
        """Midpoints (G,) of a grid of p over its range and their posterior weights (G,)."""
        p_G = midpoints(self.lowest, self.highest, n_points)
        can_move = jnp.ones((3, LEVELS)).at[WORK, 0].set(0).at[jnp.array([0, 2]), LEVELS - 1].set(0)
        stayed = (jnp.diagonal(counts.transition, axis1=-2, axis2=-1) * can_move).sum()
        moved = (counts.transition.sum(-1) * can_move).sum() - stayed
        return p_G, jax.nn.softmax(moved * jnp.log(p_G) + stayed * jnp.log1p(-p_G))
