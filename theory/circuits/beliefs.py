"""Where states are hidden: beliefs, and Q over beliefs as the exact posterior has it.

The exact posterior is that over the family's grid of tasks (`icdm.readers.posterior_grid`): at a decision it has the
weight w_g of each task g and the belief b_g in it, so its belief is sum_g w_g b_g and its Q is sum_g w_g Q_g(b_g, a).
Axis letters: N tasks, W decisions of the last episode, S states, A actions, G tasks of the grid.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from icdm.evaluation.references import GRID
from icdm.oracles.belief import first_belief, updated_belief
from icdm.oracles.certify import OracleConfig
from icdm.problems.family import HasGrid
from icdm.problems.policy import Carry
from icdm.readers.posterior_grid import Plans, PosteriorGrid, plan_grid, read
from icdm.trajectories.trajectory import Trajectories


@functools.cache
def plans_of(family: HasGrid) -> Plans:
    """The solved tasks of the family's grid, as an experiment's references have them."""
    return plan_grid(family, GRID, OracleConfig(), jax.random.key(0))


def posterior(family: HasGrid, episodes: Trajectories, steps: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Q (N, W, A) and belief (N, W, S) of the exact posterior, given all that was observed before these decisions."""
    plans = plans_of(family)
    context, own = (jax.tree.map(lambda x, part=part: x[:, part], episodes) for part in (slice(None, -1), -1))
    policy = PosteriorGrid(plans, read(plans, context))
    carry, found = policy.init(jnp.zeros(len(episodes.action), jnp.int32)), {}
    for t in range(max(steps) + 1):
        q_NA, carry = _acted(policy, carry, jnp.asarray(own.observation[:, t]))
        _, belief_NGS, log_NG, *_ = carry
        found[t] = q_NA, jnp.einsum("ng,ngs->ns", jnp.exp(log_NG), belief_NGS)
        carry = policy.observe(carry, jnp.asarray(own.action[:, t]), jnp.asarray(own.reward[:, t]))
    q, belief = zip(*(found[t] for t in steps))
    return np.stack(q, 1).astype(np.float64), np.stack(belief, 1).astype(np.float64)


@jax.jit
def _acted(policy: PosteriorGrid, carry: Carry, observation_N: jax.Array):
    return policy.act(carry, observation_N, None)[1:]


def beliefs_in_the_task(problem, episodes: Trajectories, steps: tuple[int, ...]) -> np.ndarray:
    """The belief of a decider who knows the row's task, (N, W, S): that of the oracle, whose Q is the true one."""
    own, task_N = jax.tree.map(lambda x: x[:, -1], episodes), jnp.arange(len(episodes.action))
    belief_NS, found = first_belief(problem.nominal, task_N, own.observation[:, 0]), {}
    for t in range(max(steps) + 1):
        found[t] = belief_NS
        signals = own.action[:, t], own.observation[:, t + 1], own.reward[:, t]
        belief_NS = updated_belief(problem.nominal, task_N, belief_NS, *signals)
    return np.stack([found[t] for t in steps], 1).astype(np.float64)
