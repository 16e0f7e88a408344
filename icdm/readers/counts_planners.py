"""Planners that know a task only from its context: references between the random policy and the oracle.

Each planner estimates a model of the task from the counts of a context and plans in that model; the policy is greedy
in the model's Q-function. Axis letters as in docs/axes.md.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp

from icdm.oracles.backward_induction import backward_induction
from icdm.problems.counts import Counts, count
from icdm.problems.family import Family, HasPosterior
from icdm.problems.mdp import MDP, tasks_at_once
from icdm.problems.policy import MarkovPolicy, greedy_policy
from icdm.trajectories.collect import Tasks, to_float32
from icdm.trajectories.trajectory import Trajectories

PLANNERS = ("certainty_equivalence", "posterior_mean", "posterior_sampling")
# Certainty equivalence with so many standard errors added to rewards.
DOUBTING = {"optimistic": 1.0, "pessimistic": -1.0}


def planners_of(family: Family) -> tuple[str, ...]:
    """The available planners; posterior planners need a family with `HasPosterior`."""
    return PLANNERS if isinstance(family, HasPosterior) else PLANNERS[:1]


@dataclasses.dataclass(frozen=True)
class CountsPlanner:
    """Acts greedily on the Q-function of one of PLANNERS or DOUBTING."""

    family: Family
    planner: str

    def policy(self, tasks: Tasks, task_B: jax.Array, context: Trajectories, key: jax.Array) -> MarkovPolicy:
        q_BTSA = to_float32(plan_from_context(self.family, tasks.problem, context, self.planner, key))
        return MarkovPolicy(greedy_policy(q_BTSA).table, index=jnp.arange(task_B.size))


def plan_from_context(family: Family, problem: MDP, context: Trajectories, planner: str, key: jax.Array) -> jax.Array:
    """Q-function of each row's model in float64, (B, T, S, A).

    Args:
      problem: N problems of the family; the function uses only the terminal states, the discount and the horizon of
        the first, which a decider may know.
      context: Trajectories (B, K, ...), the only source of transitions and rewards.
      planner: one of PLANNERS or DOUBTING.
    """
    with jax.enable_x64(True):
        known = jax.tree.map(lambda x: x[0].astype(jnp.promote_types(x.dtype, jnp.float64)), problem)
        known = dataclasses.replace(known, terminal=problem.terminal[0])
        return _plan_rows(family, planner, known, context, key)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _plan_rows(family: Family, planner: str, known: MDP, context: Trajectories, key: jax.Array) -> jax.Array:
    def plan_row(row: tuple[Trajectories, jax.Array]) -> jax.Array:
        context, key = row
        counts = counts_of(family, context)
        if planner == "certainty_equivalence":
            model = maximum_likelihood(known, counts)
        elif planner in DOUBTING:
            model = doubting(maximum_likelihood(known, counts), counts, DOUBTING[planner], *family.reward_range)
        elif planner == "posterior_mean":
            model = family.posterior_mean(counts)
        else:
            model = family.posterior_sample(key, counts)
        return backward_induction(model)[0]

    rows = context.action.shape[0]
    batch = tasks_at_once(rows, family.n_actions, family.n_states)
    return jax.lax.map(plan_row, (context, jax.random.split(key, rows)), batch_size=batch)


def counts_of(family: Family, context: Trajectories) -> Counts:
    """The counts of one row's context, (K, ...)."""
    steps = (x.ravel() for x in (*context.steps, context.valid))
    return count(*steps, family.n_states, family.n_actions)


def maximum_likelihood(known: MDP, counts: Counts) -> MDP:
    """The model of observed frequencies.

    An untried pair (s, a) leads to all states with equal probability and pays the mean of all recorded rewards.
    """
    visits_AS1 = counts.transition.sum(-1, keepdims=True)
    tried = counts.visits > 0
    mean_reward = counts.reward_sum.sum() / jnp.maximum(counts.visits.sum(), 1)
    frequency = counts.transition / jnp.maximum(visits_AS1, 1)
    return dataclasses.replace(
        known,
        transition=jnp.where(visits_AS1 > 0, frequency, 1 / counts.visits.shape[0]),
        reward=jnp.where(tried, counts.reward_sum / jnp.maximum(counts.visits, 1), mean_reward),
        arrival_reward=jnp.zeros_like(known.initial),
        reward_noise="none",
    )


def doubting(fitted: MDP, counts: Counts, errors: float, low: float, high: float) -> MDP:
    """The model of observed frequencies with rewards r(s, a) + errors (high - low) / (2 sqrt(n(s, a))): so many of the
    largest standard error that the mean of n rewards within [low, high] can have. What such a reward can be at most, or
    at least, is also that of an untried pair.

    Source: Strehl and Littman, "An analysis of model-based interval estimation for Markov decision processes" (J.
    Computer and System Sciences 74, 2008), MBIE-EB.
    """
    error = (high - low) / (2 * jnp.sqrt(jnp.maximum(counts.visits, 1)))
    tried = jnp.clip(fitted.reward + errors * error, low, high)
    return dataclasses.replace(fitted, reward=jnp.where(counts.visits > 0, tried, high if errors > 0 else low))
