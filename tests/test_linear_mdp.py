"""Linear MDPs: distributions, exact weights against tabular backward induction, and the family."""

import jax
import numpy as np
import pytest

from icdm.errors import UserError
from icdm.families.linear_mdp import (
    LinearMDP,
    optimal_weights,
    sample_linear_mdp,
    simplex_features,
    time_augmented,
    with_optimal_weights,
)
from icdm.problems.family import make_family


@pytest.fixture(scope="module")
def problem():
    with jax.enable_x64(True):
        features = simplex_features(jax.random.key(0), 6, 3, 4)
        return jax.tree.map(np.asarray, sample_linear_mdp(jax.random.key(1), features, 5))


def backward(transition, reward):
    q, value = [], np.zeros(reward.shape[1])
    for p, r in zip(transition[::-1], reward[::-1]):
        q.insert(0, r + p @ value)
        value = q[0].max(-1)
    return np.stack(q)


def test_transitions_are_distributions(problem):
    with jax.enable_x64(True):
        transition = np.asarray(problem.transition())
    assert transition.shape == (5, 6, 3, 6) and transition.min() >= 0
    np.testing.assert_allclose(transition.sum(-1), 1, atol=1e-12)


def test_optimal_weights_give_q_star(problem):
    with jax.enable_x64(True):
        weights = np.asarray(optimal_weights(problem))
        q = backward(np.asarray(problem.transition()), np.asarray(problem.reward()))
    np.testing.assert_allclose(np.einsum("saf,tf->tsa", problem.features, weights), q, atol=1e-12)
    assert np.abs(weights - problem.weights).max() > 0.1, "w* is not theta"


def test_prescribed_weights_are_optimal(problem):
    wanted = np.random.default_rng(0).normal(size=(5, 4))
    with jax.enable_x64(True):
        made = with_optimal_weights(problem, wanted)
        np.testing.assert_allclose(optimal_weights(made), wanted, atol=1e-12)
        q = backward(np.asarray(made.transition()), np.asarray(made.reward()))
    np.testing.assert_allclose(q, np.einsum("saf,tf->tsa", problem.features, wanted), atol=1e-12)


def test_time_augmented_mdp_has_the_same_value(problem):
    with jax.enable_x64(True):
        mdp = jax.tree.map(np.asarray, time_augmented(problem))
        q = backward(np.asarray(problem.transition()), np.asarray(problem.reward()))
    np.testing.assert_allclose(mdp.transition.sum(-1), 1, atol=1e-12)
    value = np.zeros(mdp.n_states)
    for _ in range(mdp.horizon):
        value = (mdp.reward + np.einsum("axy,y->xa", mdp.transition, value)).max(-1)
    np.testing.assert_allclose(mdp.initial @ value, problem.initial @ q[0].max(-1), atol=1e-12)


def test_family_is_registered_and_shares_features():
    family = make_family("linear_mdp", horizon=3)
    first, second = (family.sample(jax.random.key(seed)) for seed in (0, 1))
    assert first.transition.shape == (family.n_actions, family.n_states, family.n_states)
    assert np.abs(np.asarray(first.reward - second.reward)).max() > 0.01
    assert float(first.reward.min()) >= 0 and float(first.reward.max()) <= 1
    with pytest.raises(UserError, match="at least 1"):
        make_family("linear_mdp", dimension=0)


def test_is_a_pytree(problem):
    batch = jax.tree.map(lambda x: np.stack([x, x]), problem)
    assert isinstance(batch, LinearMDP)
    assert jax.vmap(optimal_weights)(batch).shape == (2, 5, 4)
