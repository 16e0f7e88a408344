"""Gymnasium's tables: exact values against published ones and against the environments' own steps."""

import importlib.util

import jax
import numpy as np
import pytest

from icdm.errors import UserError
from icdm.families.gym import _read, _separated
from icdm.oracles.backward_induction import optimal_value, plan, policy_value
from icdm.problems.family import make_family
from icdm.trajectories.collect import draw_problems

needs_gymnasium = pytest.mark.skipif(not importlib.util.find_spec("gymnasium"), reason="Gymnasium is not installed")


def value_of(env, horizon):
    problem = draw_problems(make_family("gym", env=env, horizon=horizon), jax.random.key(0), 1)
    return problem, float(optimal_value(problem, plan(problem))[0])


@needs_gymnasium
def test_values_of_the_toy_environments():
    """FrozenLake 4x4: 0.74 within 100 steps and 0.8235 without a limit, the shares of success known for it.
    CliffWalking: 13 steps of -1 along the cliff; the 10 cells of the cliff are never a state."""
    assert value_of("FrozenLake-v1", 100)[1] == pytest.approx(0.744, abs=5e-4)
    assert value_of("FrozenLake-v1", 3000)[1] == pytest.approx(0.8235, abs=5e-5)
    problem, value = value_of("CliffWalking-v1", 20)
    assert value == pytest.approx(-13) and problem.n_states == 38 and problem.terminal.sum() == 1


@needs_gymnasium
@pytest.mark.parametrize("env", ["FrozenLake-v1", "CliffWalking-v1"])
def test_the_uniform_policy_is_worth_what_the_environment_pays_it(env):
    import gymnasium

    problem, _ = value_of(env, 30)
    exact = float(policy_value(problem, np.full((1, 1, 1, problem.n_actions), 1 / problem.n_actions))[0])
    played, rng, returns = gymnasium.make(env, max_episode_steps=30), np.random.default_rng(0), []
    for seed in range(1500):
        played.reset(seed=seed)
        total, over = 0.0, False
        while not over:
            _, reward, ended, cut, _ = played.step(int(rng.integers(problem.n_actions)))
            total, over = total + float(reward), ended or cut
        returns.append(total)
    assert abs(np.mean(returns) - exact) < 4 * np.std(returns) / len(returns) ** 0.5


@needs_gymnasium
@pytest.mark.parametrize(
    "env, message",
    [("CartPole-v1", "holds no table"), ("Nope-v1", "cannot make 'Nope-v1'"), ("x:y", "cannot make 'x:y'")],
)
def test_an_environment_without_a_table_is_refused(env, message):
    with pytest.raises(UserError, match=message):
        make_family("gym", env=env)


def test_rewards_are_split_where_both_ends_of_a_step_pay():
    """Two states, one action: 1 for leaving state 0, 5 for arriving in state 1."""
    paid = np.array([[[1.0, 6.0], [0.0, 5.0]]])
    reward, arrival = _separated("x", paid)
    np.testing.assert_allclose(reward[:, :1] + arrival, paid[0], atol=1e-12)
    with pytest.raises(UserError, match="no sum of one term for state and action"):
        _separated("x", np.array([[[1.0, 6.0], [0.0, 9.0]]]))
    reward, arrival = _separated("x", np.array([[[0.0, 5.0], [np.nan, 5.0]]]))
    assert (reward == 0).all() and arrival.tolist() == [0, 5]


def test_tables_that_say_two_things_are_refused():
    start = np.array([1.0, 0, 0])
    ends = {0: {0: [(0.5, 1, 0.0, True), (0.5, 2, 0.0, False)]}, 1: {0: []}, 2: {0: [(1.0, 1, 0.0, False)]}}
    with pytest.raises(UserError, match="the episode ends in state 1 after some steps and goes on after others"):
        _read("x", ends, start)
    pays = {0: {0: [(0.5, 1, 0.0, True), (0.5, 1, 1.0, True)]}, 1: {0: []}, 2: {0: []}}
    with pytest.raises(UserError, match="state 0, action 0 and next state 1 pay more than one reward"):
        _read("x", pays, start)
