"""Who acted while the trajectories were recorded."""

import jax
import jax.numpy as jnp

from icdm.errors import UserError, unknown
from icdm.problems.family import Family, HasExpert, HasPosterior
from icdm.problems.policy import EpsilonGreedy, MarkovPolicy, Oracle, Policy, uniform_policy

LEARNS = "posterior_sampling"  # learns from episode to episode
BEHAVIORS = ("oracle", "uniform", "epsilon_greedy", "mixture", "expert", LEARNS)


def check_behavior(name: str, family: Family) -> None:
    """Raises UserError for a behavior that there is not, or that the family does not have."""
    if name not in BEHAVIORS:
        raise unknown("behavior", name, BEHAVIORS)
    if name == "expert" and not isinstance(family, HasExpert):
        raise UserError(f"family {type(family).__name__} has no expert policy: choose another behavior")
    if name == LEARNS and not isinstance(family, HasPosterior):
        raise UserError(f"family {type(family).__name__} computes no posterior to sample from: choose another behavior")


def behavior_policy(name: str, family: Family, oracle: Oracle, key: jax.Array, n_rows: int, epsilon: float) -> Policy:
    """The recording policy of n_rows episodes, of a behavior that does not learn.

    oracle: greedy in Q*; uniform: uniformly random; epsilon_greedy: the oracle, with probability
    epsilon uniform; mixture: epsilon-greedy with an epsilon ~ Uniform[0, 1] of each episode's own;
    expert: the family's own expert.
    """
    if name == "oracle":
        return oracle
    if name == "uniform":
        return uniform_policy(family.observation_space.n, family.n_actions)
    if name == "expert":
        return MarkovPolicy(jnp.asarray(family.expert, jnp.float32)[None, None])
    if name == "mixture":
        epsilon = jax.random.uniform(key, (n_rows,), jnp.float32)
    return EpsilonGreedy(oracle, epsilon)
