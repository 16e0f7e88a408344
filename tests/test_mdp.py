"""Problems: validation, dynamics, and exact planning against brute force and published values."""

import itertools

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from icdm.errors import UserError
from icdm.oracles.backward_induction import (
    backward_induction,
    evaluate,
    optimal_value,
    plan,
    policy_value,
    until_absorption,
)
from icdm.problems.family import families, make_family
from icdm.problems.mdp import draw, expected_reward, make_mdp
from icdm.trajectories.collect import draw_problems

property_test = hypothesis.settings(max_examples=25)


def random_arrays(seed, states=3, actions=2):
    rng = np.random.default_rng(seed)
    transition = rng.dirichlet(np.full(states, 0.5), (actions, states))
    return transition, rng.normal(size=(states, actions)), rng.dirichlet(np.ones(states))


def test_rows_that_nearly_sum_to_one_are_renormalised():
    transition, reward, initial = random_arrays(0)
    mdp = make_mdp(transition * (1 + 5e-7), reward, initial, discount=0.9, horizon=3)
    np.testing.assert_allclose(mdp.transition.sum(-1), 1, atol=1e-15)


def test_a_wrong_row_is_named_with_its_sum():
    transition, reward, initial = random_arrays(0)
    transition[1, 2] *= 0.9
    with pytest.raises(UserError, match=r"action 1, state 2 sums to 0\.9"):
        make_mdp(transition, reward, initial, discount=0.9, horizon=3)


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(transition=np.ones((2, 3, 4)) / 4), "shape"),
        (dict(reward=np.zeros((2, 3))), "reward has shape"),
        (dict(reward=np.full((3, 2), np.nan)), "not finite"),
        (dict(initial=np.array([0.5, 0.7, -0.2])), "negative probability"),
        (dict(discount=1.5), "discount"),
        (dict(horizon=0), "horizon 0"),
        (dict(reward_noise="gausian"), "reward_noise"),
        (dict(reward=np.full((3, 2), 2.0), reward_noise="bernoulli"), "Bernoulli"),
    ],
)
def test_unusable_problems_are_refused(change, message):
    transition, reward, initial = random_arrays(0)
    arguments = dict(transition=transition, reward=reward, initial=initial, discount=0.9, horizon=3) | change
    with pytest.raises(UserError, match=message):
        make_mdp(**arguments)


def brute_force_value(mdp):
    """Best value over every deterministic time-dependent policy, each evaluated by summing over paths."""
    states, actions = mdp.n_states, mdp.n_actions
    reward = np.asarray(expected_reward(mdp))

    def value(policy):
        reach, total, discount = np.asarray(mdp.initial), 0.0, 1.0
        for t in range(mdp.horizon):
            rule = policy[t * states : (t + 1) * states]
            total += discount * sum(reach[s] * reward[s, rule[s]] for s in range(states))
            reach = sum(reach[s] * mdp.transition[rule[s], s] for s in range(states))
            discount *= mdp.discount
        return total

    return max(value(policy) for policy in itertools.product(range(actions), repeat=states * mdp.horizon))


def test_backward_induction_finds_the_best_of_all_policies():
    for seed in range(3):
        transition, reward, initial = random_arrays(seed)
        arrival = np.random.default_rng(seed).normal(size=3)
        mdp = make_mdp(transition, reward, initial, discount=0.9, horizon=2, arrival_reward=arrival)
        with jax.enable_x64(True):
            q, v = jax.jit(backward_induction)(mdp)
            np.testing.assert_allclose(initial @ v[0], brute_force_value(mdp), atol=1e-12)
            np.testing.assert_allclose(q.max(-1), v, atol=1e-15)


@property_test
@hypothesis.given(seed=st.integers(0, 10_000), horizon=st.integers(1, 6))
def test_no_policy_beats_the_optimum_and_the_greedy_one_attains_it(seed, horizon):
    transition, reward, initial = random_arrays(seed, states=4, actions=3)
    mdp = make_mdp(transition, reward, initial, discount=0.95, horizon=horizon)
    policy = np.random.default_rng(seed + 1).dirichlet(np.ones(3), (horizon, 4))
    with jax.enable_x64(True):
        q, v = backward_induction(mdp)
        greedy = jax.nn.one_hot(q.argmax(-1), 3, dtype=float)
        assert (evaluate(mdp, policy)[1] <= v + 1e-12).all()
        np.testing.assert_allclose(evaluate(mdp, greedy)[1], v, atol=1e-12)


def test_a_terminal_state_pays_nothing_more():
    transition = np.array([[[0.0, 1.0], [0.0, 1.0]]])
    mdp = make_mdp(
        transition, np.ones((2, 1)), [1.0, 0.0], discount=1.0, horizon=5, arrival_reward=[0, 10], terminal=[False, True]
    )
    with jax.enable_x64(True):
        assert backward_induction(mdp)[1][0, 0] == 11.0
        assert until_absorption(mdp)[0] == 11.0


@property_test
@hypothesis.given(st.integers(0, 10_000))
def test_draws_have_positive_probability_and_the_right_frequencies(seed):
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.ones(4)) * (rng.random(4) < 0.7)
    hypothesis.assume(p.sum() > 0.1)
    p /= p.sum()
    uniform = jnp.linspace(0, 1 - 2**-23, 4001, dtype=jnp.float32)
    drawn = np.asarray(draw(jnp.broadcast_to(jnp.asarray(p, jnp.float32), (4001, 4)), uniform))
    assert (p[drawn] > 0).all()
    np.testing.assert_allclose(np.bincount(drawn, minlength=4) / 4001, p, atol=1e-3)


@pytest.mark.parametrize("horizon, gap", [(5, 58.0), (10, 49.9), (15, 46.7)])
def test_energy_reproduces_the_gap_of_the_random_policy(horizon, gap):
    problems = draw_problems(make_family("energy", horizon=horizon), jax.random.key(0), 2000)
    optimal = np.asarray(optimal_value(problems, plan(problems)))
    random = np.asarray(policy_value(problems, np.full((2000, 1, 10, 3), 1 / 3)))
    assert abs(100 * ((optimal - random) / optimal).mean() - gap) < 1


def test_every_family_samples_valid_problems():
    for name in ("energy", "random_mdp"):
        family = make_family(name, horizon=4)
        problems = draw_problems(family, jax.random.key(1), 3)
        assert problems.transition.dtype == np.float64
        for i in range(3):
            one = jax.tree.map(lambda x: np.asarray(x[i]), problems)
            make_mdp(
                one.transition,
                one.reward,
                one.initial,
                discount=one.discount,
                horizon=one.horizon,
                arrival_reward=one.arrival_reward,
                terminal=one.terminal,
                reward_noise=one.reward_noise,
            )
            low, high = family.reward_range
            assert one.reward.min() >= low - 1e-12 and one.reward.max() <= high + 1e-12


def test_unknown_names_are_answered_with_the_nearest():
    with pytest.raises(UserError, match="did you mean 'energy'"):
        make_family("enrgy")
    with pytest.raises(UserError, match="did you mean 'horizon'"):
        make_family("energy", horizn=3)
    assert {"energy", "random_mdp", "icu_sepsis", "icu_sepsis_hospitals"} <= set(families())
