"""The reader of a context over a grid of tasks: its weights are Bayes' rule, its decisions those of who knows."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_problems import random_pomdp, tiger

from icdm.families.energy import Energy
from icdm.oracles.belief import belief_model
from icdm.oracles.certify import OracleConfig
from icdm.problems.counts import count
from icdm.problems.family import make_family, sample_tasks
from icdm.problems.policy import uniform_policy
from icdm.problems.pomdp import shown
from icdm.readers.posterior_grid import Plans, PosteriorGrid, mean_q, plan_grid, read
from icdm.trajectories.rollout import rollout
from icdm.trajectories.trajectory import episodes_per_row

KEY = jax.random.key(0)


def stacked(problems):
    return jax.tree.map(lambda *leaves: np.stack(leaves), *problems)


def recorded(problem, task, n_episodes, key=KEY):
    """One row of episodes of a uniformly random decider in task `task` of a batch."""
    policy = uniform_policy(problem.n_observations, problem.n_actions)
    problem = jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf)), problem)
    play = jax.jit(lambda problem, task_B: rollout(problem, task_B, policy, key))
    return episodes_per_row(play(problem, jnp.full(n_episodes, task)), n_episodes)


def unsolved(problem, prior):
    """A grid whose weights are wanted, not its plans."""
    return Plans(problem, belief_model(problem), None, np.asarray(prior), None)


@pytest.mark.parametrize("noise, shows", [("none", False), ("bernoulli", True)])
def test_weights_are_bayes_rule_over_all_paths_of_states(noise, shows):
    fields = {"n_states": 2, "n_observations": 2, "horizon": 3, "reward_noise": noise, "shows_reward": shows}
    problems = [random_pomdp(seed, **fields) for seed in range(3)]
    context = recorded(stacked(problems), 1, 2)
    prior = np.array([0.5, 0.3, 0.2])
    log_weight_G = read(unsolved(stacked(problems), prior), context)[0]
    expected_G = prior.copy()
    for episode in range(2):
        record = context.observation, context.action, context.reward
        seen, acted, paid = (np.asarray(leaf)[0, episode] for leaf in record)
        for g, problem in enumerate(problems):
            total = 0.0
            for path in itertools.product(range(2), repeat=4):
                chance = problem.mdp.initial[path[0]] * problem.first_emission[path[0], seen[0]]
                for t in range(3):
                    mean = problem.mdp.reward[path[t], acted[t]]
                    chance *= (mean if paid[t] else 1 - mean) if shows else 1
                    chance *= problem.mdp.transition[acted[t], path[t], path[t + 1]]
                    chance *= problem.emission[acted[t], path[t + 1], seen[t + 1]]
                total += chance
            expected_G[g] *= total
    assert np.allclose(np.exp(log_weight_G), expected_G / expected_G.sum(), atol=1e-12)


def test_what_was_recorded_after_the_end_is_not_read():
    problem = stacked([random_pomdp(s, horizon=4) for s in range(3)])
    plans = unsolved(problem, np.full(3, 1 / 3))
    context = recorded(problem, 0, 1)
    short = dataclasses.replace(context, valid=context.valid.at[:, :, 2:].set(False))
    two_steps = {name: getattr(context, name)[..., :2] for name in ("action", "reward", "valid")}
    cut = dataclasses.replace(context, observation=context.observation[..., :3], **two_steps)
    assert np.allclose(read(plans, short), read(plans, cut), atol=1e-12)


def test_a_perfect_meter_gives_the_posterior_of_the_chain():
    chain, family = Energy(horizon=8), make_family("energy_pomdp", horizon=8, fidelity=1.0)
    with jax.enable_x64(True):
        mdp, prior = jax.tree.map(np.asarray, chain.grid(20))
        metered = jax.tree.map(np.asarray, family.grid(20)[0])
    context = recorded(metered, 13, 3)
    uncovered = jax.tree.map(np.asarray, shown(mdp))
    ours, theirs = (np.exp(read(unsolved(problem, prior), context)[0]) for problem in (metered, uncovered))
    assert np.allclose(ours, theirs, atol=1e-12)
    with jax.enable_x64(True):
        before, after = context.observation[..., :-1], context.observation[..., 1:]
        steps = before, context.action, context.reward, after, context.valid
        p_X, weight_X = chain._posterior(count(*(jnp.ravel(leaf) for leaf in steps), 10, 3), n_points=20)
    assert np.allclose(ours, weight_X, atol=1e-9)
    assert np.allclose(mdp.transition[:, 0, 3, 4], p_X)


@pytest.mark.slow
def test_an_endless_context_leads_to_the_oracles_decisions():
    """Regret, by the oracle's own Q, of the decisions in episodes of a random decider."""
    family = make_family("energy_pomdp", horizon=5)
    plans = plan_grid(family, 8, OracleConfig(), KEY)
    task = 2
    context = recorded(plans.problem, task, 1500)
    informed, none = read(plans, context), np.log(plans.prior)[None]
    assert np.exp(informed[0, task]) > 0.9
    episodes = jax.tree.map(lambda leaf: leaf[0], recorded(plans.problem, task, 200, jax.random.key(1)))
    true_BG = jnp.broadcast_to(jax.nn.one_hot(task, 8), (200, 8))

    @jax.jit
    def regret(log_weight):
        policy = PosteriorGrid(plans, log_weight)
        carry = policy.init(jnp.zeros(200, int))
        lost = []
        for t in range(5):
            action_B, _, carry = policy.act(carry, episodes.observation[:, t], None)
            q_BA = mean_q(policy.plans, carry[1], true_BG, carry[0])
            lost.append(q_BA.max(-1) - jnp.take_along_axis(q_BA, action_B[:, None], 1)[:, 0])
            carry = policy.observe(carry, episodes.action[:, t], episodes.reward[:, t])
        return jnp.stack(lost).mean()

    assert float(regret(informed)) < 1e-4 < float(regret(none))


@pytest.mark.slow
def test_shown_rewards_are_rounded_to_what_the_grid_pays():
    family = make_family("tiger", horizon=3)
    with jax.enable_x64(True):
        true = jax.tree.map(lambda leaf: np.asarray(leaf)[None], family.problem(0.8, 63.0, 8.2))
    plans = plan_grid(family, 4, OracleConfig(tolerance=0.05), KEY)
    context = recorded(true, 0, 60)
    weight_G = np.exp(read(plans, context)[0])
    bite_G, treasure_G = -plans.problem.mdp.reward[:, 0, 1], plans.problem.mdp.reward[:, 1, 1]
    assert weight_G @ (np.abs(bite_G - 63) <= 5) > 0.999
    assert weight_G @ (np.abs(treasure_G - 8.2) <= 0.5) > 0.999
    assert weight_G @ plans.problem.emission[:, 0, 0, 0] == pytest.approx(0.8, abs=0.06)


def test_beliefs_and_weights_follow_the_episode():
    """Acting is the same as reading the episode so far as a context."""
    problem = stacked([tiger(accuracy, horizon=4) for accuracy in (0.6, 0.75, 0.9)])
    context = recorded(problem, 2, 5)
    plans = dataclasses.replace(unsolved(problem, np.full(3, 1 / 3)), alpha=np.zeros((3, 5, 1, 2)))
    policy, episode = PosteriorGrid(plans, read(plans, context)), recorded(problem, 2, 1, jax.random.key(9))
    observation_T, action_T, reward_T = (leaf[0] for leaf in (episode.observation, episode.action, episode.reward))
    carry = policy.init(jnp.zeros(1, int))
    for t in range(5):
        _, _, carry = policy.act(carry, observation_T[:, t], None)
        if t < 4:
            carry = policy.observe(carry, action_T[:, t], reward_T[:, t])
    both = jax.tree.map(lambda *leaves: jnp.concatenate(leaves, 1), context, episode)
    assert np.allclose(carry[2], read(plans, both), atol=1e-4)
    assert carry[1].shape == (1, 3, 2)


@pytest.mark.parametrize("name", ["energy", "energy_pomdp", "energy_apomdp", "tiger", "regimes"])
def test_grids_are_problems_of_the_family(name):
    family = make_family(name)
    with jax.enable_x64(True):
        problem, weight_G = jax.tree.map(np.asarray, jax.jit(family.grid, static_argnums=0)(6))
        sampled = jax.tree.map(np.asarray, sample_tasks(family, jax.random.split(KEY, 300)))
    assert weight_G.sum() == pytest.approx(1) and weight_G.shape == problem.discount.shape
    assert (problem.horizon, problem.n_states, problem.n_actions) == (family.horizon, family.n_states, family.n_actions)
    sampled = sampled.model(0) if name == "energy_apomdp" else sampled
    for ours, theirs in zip(*map(jax.tree.leaves, (problem, sampled))):
        slack = 0.05 * np.ptp(theirs.astype(float), 0) + 1e-12
        assert (ours.min(0) >= theirs.min(0) - slack).all() and (ours.max(0) <= theirs.max(0) + slack).all()
