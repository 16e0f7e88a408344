"""The most likely POMDP of a context: counts against enumeration, monotone ascent, recovery from much data."""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_problems import batch, random_pomdp

from icdm.problems.family import make_family, sample_tasks
from icdm.problems.policy import uniform_policy
from icdm.problems.spaces import Discrete
from icdm.readers.fitted_pomdp import FittedPOMDP, Parameters, climb, fit, log_forward, random_parameters
from icdm.trajectories.rollout import rollout
from icdm.trajectories.trajectory import episodes_per_row

S, A, O, K, T = 2, 2, 3, 2, 3  # noqa: E741 (the letters of docs/axes.md)


def episodes_of(seed, n_episodes=K, steps=T):
    """Random records, the last episode one step shorter: (observation, action, scaled reward, valid)."""
    rng = np.random.default_rng(seed)
    valid_KT = np.ones((n_episodes, steps), bool)
    valid_KT[-1, -1] = False
    shapes = (n_episodes, steps + 1), (n_episodes, steps)
    return rng.integers(O, size=shapes[0]), rng.integers(A, size=shapes[1]), rng.random(shapes[1]), valid_KT


def in_float64(function):
    @functools.wraps(function)
    def run(*arguments, **fields):
        with jax.enable_x64(True):
            return function(*arguments, **fields)

    return run


def enumerated(theta: Parameters, episodes, observes_first, shows_reward):
    """log L and the expected counts, summed over every path of states."""
    counts = jax.tree.map(np.zeros_like, theta)
    total = 0.0
    for seen_T, acted_T, reward_T, valid_T in zip(*episodes):
        steps = int(valid_T.sum())
        likelihood, weighted = 0.0, []
        for path in itertools.product(range(S), repeat=steps + 1):
            used = jax.tree.map(np.zeros_like, theta)
            used.initial[path[0]] += 1
            if observes_first:
                used.emission[path[0], seen_T[0]] += 1
            for t in range(steps):
                used.transition[acted_T[t], path[t], path[t + 1]] += 1
                used.emission[path[t + 1], seen_T[t + 1]] += 1
                used.pay[acted_T[t], path[t]] += reward_T[t], 1 - reward_T[t]
            counted = used if shows_reward else dataclasses.replace(used, pay=np.zeros_like(used.pay))
            chance = np.exp(sum((n * np.log(p)).sum() for n, p in zip(*map(jax.tree.leaves, (counted, theta)))))
            likelihood += chance
            weighted.append(jax.tree.map(lambda leaf: chance * leaf, used))
        total += np.log(likelihood)
        for one in weighted:
            counts = jax.tree.map(lambda count, leaf: count + leaf / likelihood, counts, one)
    return total, counts


@pytest.mark.parametrize("observes_first", [False, True])
@pytest.mark.parametrize("shows_reward", [False, True])
@in_float64
def test_likelihood_and_counts_are_sums_over_all_paths(observes_first, shows_reward):
    theta = jax.tree.map(np.asarray, random_parameters(jax.random.key(0), S, O, A))
    episodes = episodes_of(0)
    log = jax.tree.map(jnp.log, theta)
    value_and_counts = jax.jit(jax.value_and_grad(log_forward), static_argnums=(2, 3))
    found = value_and_counts(log, jax.tree.map(jnp.asarray, episodes), observes_first, shows_reward)
    value, counts = enumerated(theta, episodes, observes_first, shows_reward)
    assert float(found[0]) == pytest.approx(value, abs=1e-12)
    for ours, expected in zip(*map(jax.tree.leaves, (found[1], counts))):
        assert np.allclose(ours, expected, atol=1e-12)


jitted_climb = jax.jit(climb, static_argnums=(2, 3, 4))


@settings(max_examples=15)
@given(seed=st.integers(0, 10**6), shows_reward=st.booleans())
@in_float64
def test_no_iteration_lowers_the_objective(seed, shows_reward):
    start = random_parameters(jax.random.key(seed), S, O, A)
    episodes = jax.tree.map(jnp.asarray, episodes_of(seed, n_episodes=4, steps=5))
    end, objective_I = jitted_climb(start, episodes, 30, True, shows_reward)
    assert (np.diff(objective_I) >= -1e-9).all() and objective_I[-1] > objective_I[0]
    for rows in jax.tree.leaves(end):
        assert np.allclose(rows.sum(-1), 1) and (rows > 0).all()


def recorded(problem, n_episodes, key):
    policy = uniform_policy(problem.n_observations, problem.n_actions)
    return episodes_per_row(rollout(batch(problem), jnp.zeros(n_episodes, int), policy, key), n_episodes)


def log_likelihood(parameters, context):
    episodes = jax.tree.map(lambda leaf: leaf[0], (context.observation, context.action, context.reward, context.valid))
    return float(log_forward(jax.tree.map(lambda leaf: jnp.log(leaf + 1e-12), parameters), episodes, True, True))


def parameters_of(problem) -> Parameters:
    mean_AS = problem.mdp.reward.T
    pay = np.stack([mean_AS, 1 - mean_AS], -1)
    return Parameters(problem.mdp.initial, problem.mdp.transition, problem.first_emission, pay)


@dataclasses.dataclass(frozen=True)
class Sizes:
    n_states, n_actions, observation_space, reward_range = 3, 2, Discrete(3), (0.0, 1.0)


@pytest.mark.slow
@in_float64
def test_much_data_gives_the_model_back():
    """Up to names of states: episodes that were not fitted are as likely as under the truth, and not under others."""
    emission = np.array([[0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.1, 0.1, 0.8]])
    fields = {"first_emission": emission, "reward_noise": "bernoulli", "shows_reward": True}
    problem = random_pomdp(1, n_states=3, n_observations=3, horizon=10, **fields)
    problem = dataclasses.replace(problem, emission=np.broadcast_to(emission, (2, 3, 3)))
    context, others = (recorded(problem, n, jax.random.key(n)) for n in (800, 500))
    found = fit(Sizes(), batch(problem), context, jax.random.key(2), restarts=3, iterations=100)
    model = jax.tree.map(lambda leaf: leaf[0], found.problem)
    fitted, truth = (log_likelihood(parameters_of(one), others) / 5000 for one in (model, problem))
    other = log_likelihood(jax.tree.map(np.asarray, random_parameters(jax.random.key(0), 3, 3, 2)), others) / 5000
    assert abs(fitted - truth) < 0.005 and other < truth - 0.05
    order = np.argmax(model.first_emission, 1).argsort()
    assert np.abs(model.first_emission[order] - emission).max() < 0.1
    assert np.abs(model.mdp.reward[order] - problem.mdp.reward).max() < 0.1


def test_what_was_recorded_after_the_end_is_not_read():
    problem = random_pomdp(2, n_states=3, n_observations=3, horizon=6, reward_noise="bernoulli", shows_reward=True)
    context = recorded(problem, 5, jax.random.key(0))
    valid = jnp.arange(6)[None, None] < jnp.array([6, 3, 4, 6, 1])[None, :, None]
    context = dataclasses.replace(context, valid=valid)
    seen = jnp.concatenate([jnp.ones_like(valid[..., :1]), valid], -1)
    blank = dataclasses.replace(
        context,
        observation=jnp.where(seen, context.observation, 0),
        action=jnp.where(valid, context.action, 1),
        reward=jnp.where(valid, context.reward, 0),
    )
    pair = [fit(Sizes(), batch(problem), one, jax.random.key(1), restarts=2, iterations=5) for one in (context, blank)]
    for ours, theirs in zip(*map(jax.tree.leaves, (pair[0].problem, pair[1].problem))):
        assert np.allclose(ours, theirs, atol=1e-12)


@pytest.mark.slow
def test_acting_in_the_fitted_model_is_worth_more_than_chance():
    n_tasks, n_context = 6, 30
    family = make_family("random_pomdp", states=3, observations=3, horizon=6)
    with jax.enable_x64(True):
        problem = jax.tree.map(np.asarray, sample_tasks(family, jax.random.split(jax.random.key(0), n_tasks)))
    simulated = jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf)), problem)
    random = uniform_policy(3, 3)
    task_B = jnp.arange(n_tasks)
    context = rollout(simulated, jnp.repeat(task_B, n_context), random, jax.random.key(1))
    reader = FittedPOMDP(family, problem)
    fitted = reader.policy(None, None, episodes_per_row(context, n_context), jax.random.key(2))

    @jax.jit
    def earned(policy):
        return jax.vmap(lambda key: rollout(simulated, task_B, policy, key).reward)(
            jax.random.split(jax.random.key(3), 40)
        ).sum((0, 2))

    difference = (earned(jax.tree.map(np.asarray, fitted)) - earned(random)) / 40
    assert difference.mean() > 0.5
