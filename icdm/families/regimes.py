"""A portfolio in a market with an unobserved regime.

Axis letters as in docs/axes.md, and Y regimes, W shares of wealth.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp

from icdm.errors import UserError
from icdm.problems.family import register, sample_tasks
from icdm.problems.mdp import MDP, check_horizon
from icdm.problems.pomdp import POMDP
from icdm.problems.spaces import Discrete

WEIGHTS = (0.0, 0.5, 1.0)  # share of wealth in stocks; the rest is cash without interest
EDGES = (-0.06, -0.02, 0.02, 0.06)  # between the five bins of monthly returns
RETURNS = (-0.09, -0.04, 0.0, 0.04, 0.09)  # representative return of each bin, which the step pays
REGIMES = 2  # calm, turbulent


@register("regimes")
@dataclasses.dataclass(frozen=True)
class Regimes:
    """Monthly choice of the share of wealth in stocks; a hidden regime determines the distribution of returns.

    The state is the regime (calm or turbulent) and the current share w. An action sets the share w'. Then the
    regime moves, the monthly return x falls into one of five bins, which is observed, and the step pays the mean of

        100 (log(1 + w' x) - cost |w' - w|)    percent of wealth

    given the new regime.

    The task: mean monthly return and standard deviation ~ Uniform [0.5, 1.5) % and [2.5, 4) % in the calm
    regime, [-3, -0.5) % and [5, 8) % in the turbulent regime; the probability to stay in a regime ~ Uniform
    [0.9, 0.98) and [0.75, 0.92). Returns are normal, binned at -6, -2, 2 and 6 %. An episode starts in cash, with
    the regime's stationary distribution. The trading cost is a fraction of the traded value.

    Source: two-state regime switching of equity returns, with parameters around the monthly estimates of
    Hamilton and Susmel (J. Econometrics 64, 1994), Ang and Bekaert (Rev. Financial Studies 15, 2002) and
    Guidolin and Timmermann (J. Econ. Dynamics and Control 31, 2007).
    """

    horizon: int = 12
    discount: float = 1.0
    cost: float = 0.002
    n_states, n_actions, n_tasks = REGIMES * len(WEIGHTS), len(WEIGHTS), None
    observation_space, hides_state, shows_reward = Discrete(len(RETURNS)), True, False

    def __post_init__(self) -> None:
        check_horizon(self.horizon)
        if not 0 < self.discount <= 1 or not 0 <= self.cost < 1:
            raise UserError(f"{self}: give a discount in (0, 1] and a cost in [0, 1)")

    @property
    def reward_range(self) -> tuple[float, float]:
        return 100 * (math.log1p(RETURNS[0]) - self.cost), 100 * math.log1p(RETURNS[-1])

    def sample(self, key: jax.Array) -> POMDP:
        low = jnp.array([0.005, 0.025, 0.9, -0.03, 0.05, 0.75])
        high = jnp.array([0.015, 0.04, 0.98, -0.005, 0.08, 0.92])
        mean_Y, deviation_Y, stay_Y = (low + (high - low) * jax.random.uniform(key, (6,), low.dtype)).reshape(2, 3).T
        return self.problem(mean_Y, deviation_Y, stay_Y)

    def grid(self, n: int) -> tuple[POMDP, jax.Array]:
        """n equally likely draws from the prior, because a regular grid of six parameters is too large."""
        return sample_tasks(self, jax.random.split(jax.random.key(0), n)), jnp.full(n, 1 / n)

    def problem(self, mean_Y: jax.Array, deviation_Y: jax.Array, stay_Y: jax.Array) -> POMDP:
        """The task with these monthly means, standard deviations and probabilities to stay, each (Y,)."""
        below = jax.scipy.stats.norm.cdf((jnp.array(EDGES)[None] - mean_Y[:, None]) / deviation_Y[:, None])
        chance_YO = jnp.diff(below, prepend=0, append=1)
        regime_YY = jnp.stack([jnp.stack([stay_Y[0], 1 - stay_Y[0]]), jnp.stack([1 - stay_Y[1], stay_Y[1]])])
        stationary_Y = (1 - stay_Y[::-1]) / (2 - stay_Y.sum())
        weight_W, n = jnp.array(WEIGHTS), len(WEIGHTS)
        growth_YW = 100 * jnp.einsum("yo,ow->yw", chance_YO, jnp.log1p(jnp.outer(jnp.array(RETURNS), weight_W)))
        trade_WA = -100 * self.cost * jnp.abs(weight_W[:, None] - weight_W[None])
        cash_W = jnp.zeros(n).at[0].set(1)
        mdp = MDP(
            transition=jnp.einsum("yx,aw,v->ayvxw", regime_YY, jnp.eye(n), jnp.ones(n)).reshape(n, self.n_states, -1),
            reward=jnp.tile(trade_WA, (REGIMES, 1)),
            arrival_reward=growth_YW.ravel(),
            initial=jnp.outer(stationary_Y, cash_W).ravel(),
            terminal=jnp.zeros(self.n_states, bool),
            discount=jnp.asarray(self.discount, jnp.result_type(float)),
            horizon=self.horizon,
        )
        emission_SO = jnp.repeat(chance_YO, n, axis=0)
        first_SO = jnp.zeros_like(emission_SO).at[:, 0].set(1)
        emission = jnp.broadcast_to(emission_SO, (n, *emission_SO.shape))
        return POMDP(mdp, emission, first_SO, observes_first=False, shows_reward=False)
