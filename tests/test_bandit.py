"""Bandits and Dark Room: problems, posteriors and references against independent computations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from icdm.errors import UserError
from icdm.families.bandit import RULES, BanditRule, best_arm_probabilities
from icdm.oracles.backward_induction import plan
from icdm.problems.counts import count
from icdm.problems.family import make_family, sample_tasks
from icdm.problems.policy import TableOracle
from icdm.trajectories.rollout import assess_along, rollout
from icdm.trajectories.trajectory import Trajectories

BANDIT = make_family("bandit", arms=3, horizon=30, noise=0.3)
ROOM = make_family("dark_room", size=4, horizon=9)


def test_rewards_are_gaussian_about_the_means():
    n = 20_000
    problem = jax.tree.map(lambda x: x[None], BANDIT.problem(jnp.array([0.2, 0.5, 0.9])))
    task, state = jnp.zeros(n, jnp.int32), jnp.zeros(n, jnp.int32)
    _, reward, _, _ = problem.step(task, state, jnp.full(n, 2), jax.random.key(0))
    assert abs(reward.mean() - 0.9) < 4 * 0.3 / n**0.5
    assert scipy.stats.kstest((np.asarray(reward) - 0.9) / 0.3, "norm").pvalue > 1e-4


def test_posterior_mean_by_quadrature():
    reward = jnp.array([0.9, 1.1, 0.3])
    zeros = jnp.zeros(3, jnp.int32)
    with jax.enable_x64(True):
        counts = count(zeros, jnp.array([0, 0, 2]), reward.astype(float), zeros, jnp.ones(3, bool), 1, 3)
        found = np.asarray(BANDIT.posterior_mean(counts).reward[0])
        draws = np.asarray(
            jax.vmap(lambda k: BANDIT.posterior_sample(k, counts).reward[0])(jax.random.split(jax.random.key(0), 4000))
        )
    grid = (np.arange(20_000) + 0.5) / 20_000
    for arm, pulls in enumerate([[0.9, 1.1], [], [0.3]]):
        weight = np.exp(-sum((np.array(r) - grid) ** 2 for r in pulls) / (2 * 0.09)) if pulls else np.ones_like(grid)
        mean = (weight * grid).sum() / weight.sum()
        assert found[arm] == pytest.approx(mean, abs=1e-5)
        assert draws[:, arm].mean() == pytest.approx(mean, abs=4 * draws[:, arm].std() / 4000**0.5)
    assert draws.min() >= 0 and draws.max() <= 1


def test_best_arm_probabilities_by_monte_carlo():
    actions, rewards = np.array([[0, 1, 0, 2]]), np.array([[0.8, 0.4, 0.7, 0.9]])
    found = best_arm_probabilities(actions, rewards, 3, 0.3)
    np.testing.assert_allclose(found[0, 0], 1 / 3, atol=1e-9)
    rng = np.random.default_rng(0)
    means = rng.uniform(size=(200_000, 3))
    weight = np.exp(-((means[:, actions[0]] - rewards) ** 2).sum(1) / (2 * 0.09))
    expected = [weight[means.argmax(1) == a].sum() / weight.sum() for a in range(3)]
    np.testing.assert_allclose(found[0, -1], expected, atol=0.01)


def test_ucb_explores_with_the_logarithm_of_time():
    policy = BanditRule("ucb", 2, 0.3)
    n, total = jnp.array([[8.0, 2.0]]), jnp.array([[4.0, 0.8]])
    _, index, _ = policy.act((n, total), jnp.zeros(1, jnp.int32), jax.random.key(0))
    bonus = 0.3 * np.sqrt(2 * np.log(10) / np.array([8.0, 2.0]))
    np.testing.assert_allclose(index[0], np.array([0.5, 0.4]) + bonus, rtol=1e-6)


def test_every_rule_learns_and_thompson_explores_more_than_greed():
    with jax.enable_x64(True):
        problem = sample_tasks(BANDIT, jax.random.split(jax.random.key(0), 300))
    q = plan(problem)
    small = jax.tree.map(lambda x: x.astype(jnp.float32) if x.dtype == jnp.float64 else x, problem)
    late = {}
    for rule in RULES:
        episode = rollout(small, jnp.arange(300), BanditRule(rule, 3, 0.3), jax.random.key(1))
        q_BTA, value_BT = assess_along(TableOracle(jnp.asarray(q, jnp.float32)), jnp.arange(300), episode)
        regret = value_BT - jnp.take_along_axis(q_BTA, episode.action[..., None], -1)[..., 0]
        assert regret[:, 20:].mean() < 0.5 * 0.25  # a random arm loses 1/4 on average with three uniform means
        late[rule] = float(jnp.mean(episode.action[:, 20:] != episode.action[:, 19:29]))
    assert late["thompson_sampling"] > late["posterior_mean_greedy"]


def test_dark_room_is_the_grid():
    problem = ROOM.problem(jax.nn.one_hot(11, 16))  # x = 2, y = 3
    q = np.asarray(plan(jax.tree.map(lambda x: x[None], problem)))[0]
    assert q[0, 0].max() == 9 - 4  # five steps away, paid on arriving and after
    best = ROOM.first_best_action()[11]
    states = np.arange(16)
    np.testing.assert_allclose(q[0, states, best], q[0].max(-1))
    assert best[11] == 4 and best[0] == 0 and best[8] == 2


def test_dark_room_posterior_excludes_what_was_seen():
    state, action = np.array([0, 4, 4]), np.array([0, 2, 1])
    arrived = ROOM.next_state[state, action]
    counts = count(state, action, np.zeros(3), arrived, np.ones(3, bool), 16, 5)
    expected = np.where(np.isin(np.arange(16), arrived), 0, 1.0)
    np.testing.assert_allclose(ROOM.posterior(counts), expected / expected.sum(), atol=1e-7)
    paid = count(state, action, np.array([0, 1.0, 0]), arrived, np.ones(3, bool), 16, 5)
    assert ROOM.posterior(paid)[arrived[1]] == 1
    steps = [np.asarray(x)[None, None] for x in (state, action, np.zeros(3), arrived)]
    shown = Trajectories(np.full((1, 1, 4), 5), steps[1], steps[2], np.ones((1, 1, 3), bool), None, steps[0], steps[3])
    found = ROOM.best_action_probabilities(shown)
    for k in range(4):
        possible = ~np.isin(np.arange(16), arrived[:k])
        expected = [(ROOM.first_best_action()[possible, 5] == a).mean() for a in range(5)]
        np.testing.assert_allclose(found[0, k], expected)


@pytest.mark.parametrize("family", [BANDIT, ROOM])
def test_symmetries_keep_the_problem(family):
    rng = np.random.default_rng(0)
    for _ in range(10):
        states, actions = family.symmetry(rng)
        assert sorted(states) == list(range(family.n_states)) and sorted(actions) == list(range(family.n_actions))
        if family is ROOM:
            np.testing.assert_array_equal(states[ROOM.next_state], ROOM.next_state[states][:, actions])
            best = ROOM.first_best_action()
            np.testing.assert_array_equal(actions[best], best[states][:, states])


def test_parameters_are_checked():
    for name, wrong in (
        ("bandit", {"arms": 1}),
        ("bandit", {"noise": 0.0}),
        ("dark_room", {"size": 1}),
        ("recorded", {"states": 0}),
    ):
        with pytest.raises(UserError):
            make_family(name, **wrong)
