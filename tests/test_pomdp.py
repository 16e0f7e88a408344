"""POMDPs, ambiguity sets of them, and the Bayes filter."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_problems import batch, random_pomdp, tiger

from icdm.errors import UserError
from icdm.oracles.belief import belief_model, first_belief, updated_belief
from icdm.problems.ambiguous import make_ambiguous
from icdm.problems.mdp import make_mdp
from icdm.problems.pomdp import make_pomdp, shown


@pytest.mark.parametrize(
    "fields, named",
    [
        ({"emission": np.full((3, 2), 0.5)}, r"emission has shape \(3, 2\)"),
        (
            {"emission": np.full((3, 3, 2), 0.5)},
            r"emission has shape \(3, 3, 2\): give \(3, 2, observations\)",
        ),
        ({"emission": np.full((3, 2, 2), 0.6)}, "emission at action 0, state 0 sums to 1.2"),
        ({"emission": np.full((3, 2, 2), np.nan)}, "not finite"),
        ({"first_emission": np.full((2, 3), 1 / 3)}, r"first_emission has shape \(2, 3\): give \(2, 2\)"),
    ],
)
def test_wrong_emissions_are_refused_by_name(fields, named):
    good = {"emission": np.full((3, 2, 2), 0.5), **fields}
    with pytest.raises(UserError, match=named):
        make_pomdp([np.eye(2)] * 3, np.zeros((2, 3)), [0.5, 0.5], discount=0.9, horizon=2, **good)


def test_ambiguity_sets_refuse_what_does_not_fit_together():
    with pytest.raises(UserError, match="model 1 has .actions, states, observations. .2, 4, 3., model 0 .3, 2, 2."):
        make_ambiguous([tiger(), random_pomdp()], pessimism=0.5)
    for pessimism in (-0.1, 1.1, np.nan):
        with pytest.raises(UserError, match="alpha in"):
            make_ambiguous([tiger()], pessimism=pessimism)
    with pytest.raises(UserError, match="horizon 4"):
        make_ambiguous([tiger(), tiger(horizon=4)], pessimism=0)
    with pytest.raises(UserError, match="empty"):
        make_ambiguous([], pessimism=0)
    with pytest.raises(UserError, match="nominal model 2"):
        make_ambiguous([tiger(), tiger(0.7)], pessimism=0, nominal=2)


def test_an_ambiguous_problem_acts_as_its_nominal_model():
    ambiguous = make_ambiguous([tiger(0.6), tiger(0.99)], pessimism=0.5, nominal=1)
    task_B, action_B = jnp.zeros(4000, int), jnp.zeros(4000, int)
    state_B, _ = batch(ambiguous).reset(task_B, jax.random.key(0))
    next_B, _, observation_B, _ = batch(ambiguous).step(task_B, state_B, action_B, jax.random.key(1))
    assert np.mean(next_B == observation_B) == pytest.approx(0.99, abs=0.01)
    assert np.array_equal(ambiguous.model(0).emission, tiger(0.6).emission)


def test_simulated_frequencies_are_the_model():
    problem = random_pomdp()
    task_B = jnp.zeros(40_000, int)
    state_B, observation_B = batch(problem).reset(task_B, jax.random.key(0))
    joint = np.histogram2d(np.asarray(state_B), np.asarray(observation_B), [range(5), range(4)])[0] / task_B.size
    expected = problem.mdp.initial[:, None] * problem.first_emission
    assert np.abs(joint - expected).max() < 0.01
    _, _, observation_B, _ = batch(problem).step(task_B, state_B, jnp.ones_like(task_B), jax.random.key(1))
    expected = problem.mdp.initial @ problem.mdp.transition[1] @ problem.emission[1]
    assert np.abs(np.bincount(np.asarray(observation_B)) / task_B.size - expected).max() < 0.01


@pytest.mark.parametrize("noise, shows", [("none", False), ("none", True), ("bernoulli", True)])
def test_the_filter_is_the_frequency_of_states_among_equal_histories(noise, shows):
    problem = batch(random_pomdp(shows_reward=shows, reward_noise=noise))
    task_B = jnp.zeros(200_000, int)
    state_B, first_B = problem.reset(task_B, jax.random.key(0))
    action_B = jnp.ones_like(task_B)
    next_B, reward_B, observation_B, _ = problem.step(task_B, state_B, action_B, jax.random.key(1))
    belief_BS = first_belief(problem, task_B, first_B)
    belief_BS = updated_belief(problem, task_B, belief_BS, action_B, observation_B, reward_B)
    history = np.stack([first_B, observation_B] + ([np.round(reward_B, 3)] if shows else []), 1)
    for one in np.unique(history, axis=0)[:6]:
        same = (history == one).all(1)
        frequency = np.bincount(np.asarray(next_B)[same], minlength=4) / same.sum()
        assert np.abs(frequency - np.asarray(belief_BS)[same][0]).max() < 4 / np.sqrt(same.sum())


def test_an_impossible_observation_leaves_the_prediction():
    problem = batch(tiger(accuracy=1.0))
    zero_B, belief_BS = jnp.zeros(1, int), jnp.array([[1.0, 0.0]])
    updated_BS = updated_belief(problem, zero_B, belief_BS, zero_B, jnp.ones(1, int), jnp.zeros(1))
    assert updated_BS.tolist() == [[1.0, 0.0]]


def test_going_on_tells_that_no_terminal_state_was_reached():
    transition = [[[0.5, 0.3, 0.2], [0, 1, 0], [0, 0, 1]]]
    problem = make_pomdp(
        transition,
        np.ones((3, 1)),
        [1, 0, 0],
        np.ones((1, 3, 1)),
        discount=1,
        horizon=3,
        terminal=[False, False, True],
    )
    zero_B = jnp.zeros(1, int)
    updated_BS = updated_belief(batch(problem), zero_B, jnp.array([[1.0, 0, 0]]), zero_B, zero_B, jnp.ones(1))
    assert np.allclose(updated_BS, [[0.625, 0.375, 0]])
    assert belief_model(problem).kernel[0, 0, 0].sum() == pytest.approx(0.8)


def test_signals_of_shown_rewards_are_as_likely_as_they_should_be():
    hidden, shown_ = random_pomdp(), random_pomdp(shows_reward=True)
    kernel = belief_model(shown_).kernel
    assert np.allclose(kernel.sum(1), belief_model(hidden).kernel.sum(1))
    n_pays = np.unique(hidden.mdp.reward).size
    assert kernel.shape[1] <= 3 * n_pays
    for action in range(2):  # a signal comes from states that pay the same
        for signal in kernel[action]:
            assert np.unique(hidden.mdp.reward[signal.any(-1), action]).size <= 1


def test_models_of_a_batch_are_the_models_of_its_members():
    problems = [random_pomdp(seed, shows_reward=True) for seed in range(3)]
    together = belief_model(jax.tree.map(lambda *leaves: np.stack(leaves), *problems))
    for n, problem in enumerate(problems):
        alone = belief_model(problem)
        n_signals = alone.kernel.shape[1]
        assert np.allclose(together.kernel[n, :, :n_signals], alone.kernel)
        assert not together.kernel[n, :, n_signals:].any()


def test_an_mdp_is_a_pomdp_that_shows_its_state():
    rng = np.random.default_rng(0)
    mdp = make_mdp(rng.dirichlet(np.ones(3), (2, 3)), rng.random((3, 2)), np.ones(3) / 3, discount=0.9, horizon=3)
    problem = batch(shown(mdp))
    zero_B = jnp.zeros(1, int)
    assert np.allclose(first_belief(problem, zero_B, jnp.array([2])), [[0, 0, 1]])
    assert dataclasses.replace(problem).n_observations == 3
