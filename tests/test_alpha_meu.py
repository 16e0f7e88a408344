"""Alpha-maxmin oracles: published values, brute force, and the invariants of both objectives."""

import itertools
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_problems import random_pomdp, tiger

from icdm.errors import TooLarge, UserError
from icdm.oracles.alpha_meu import committed, recursive_at_points, shown_recursive, solve_recursive
from icdm.oracles.backward_induction import plan
from icdm.oracles.belief import belief_model, start_belief
from icdm.oracles.belief_tree import tree_values
from icdm.problems.ambiguous import make_ambiguous
from icdm.problems.family import make_family, sample_tasks

ALPHAS = (0.0, 0.25, 0.5, 0.75, 1.0)


def alone(tree):
    return jax.tree.map(lambda leaf: np.asarray(leaf)[None], tree)


def by_tree(models, pessimism):
    cloud = belief_model(make_ambiguous(models, pessimism=pessimism).models)
    belief = start_belief(belief_model(models[0]))
    return tree_values(cloud, belief, pessimism=pessimism).max()


def by_commitment(models, pessimism):
    return committed(make_ambiguous(models, pessimism=pessimism)).value


def variants(seed, n_models, horizon=2):
    """Models that differ in dynamics and emissions, and share rewards and start."""
    models = [
        random_pomdp(seed + 1000 * m, n_states=2, n_observations=2, horizon=horizon, first_emission=None)
        for m in range(n_models)
    ]
    first = models[0].mdp
    return [replace(m, mdp=replace(m.mdp, reward=first.reward, initial=first.initial)) for m in models]


@pytest.mark.parametrize("alpha, value", list(zip(ALPHAS, (3.60915, -0.12535, -1.91505, -3.21855, -4.52205))))
def test_committed_values_of_the_two_tigers(alpha, value):
    policy = committed(make_ambiguous([tiger(0.85, 1.0), tiger(0.65, 1.0)], pessimism=alpha))
    assert policy.value == pytest.approx(value, abs=1e-6)
    assert policy.action == 0
    blended = alpha * policy.model_values.min() + (1 - alpha) * policy.model_values.max()
    assert policy.value == pytest.approx(blended, abs=1e-9)


@settings(max_examples=8)
@given(st.integers(0, 10**6), st.sampled_from(ALPHAS))
def test_commitment_is_no_worse_than_any_deterministic_policy(seed, alpha):
    models = variants(seed, 2)
    values = []
    for first, *later in itertools.product(range(2), repeat=3):
        pair = []
        for problem in models:
            model = belief_model(problem)
            belief = start_belief(model)
            joint = np.einsum("s,zst->zt", belief, model.kernel[first])
            future = sum(joint[z] @ model.reward[:, a] for z, a in enumerate(later))
            pair.append(belief @ model.reward[:, first] + model.discount * future)
        values.append(alpha * min(pair) + (1 - alpha) * max(pair))
    policy = committed(make_ambiguous(models, pessimism=alpha))
    assert policy.value >= max(values) - 1e-9
    if policy.n_plans == 1:
        assert policy.value == pytest.approx(max(values), abs=1e-7)


@pytest.mark.parametrize("objective", [by_tree, by_commitment])
@settings(max_examples=6)
@given(seed=st.integers(0, 10**6))
def test_invariants(objective, seed):
    models = variants(seed, 3)
    of_one = tree_values(belief_model(models[0]), start_belief(belief_model(models[0]))).max()
    values = [objective(models[:2], alpha) for alpha in ALPHAS]
    assert (np.diff(values) <= 1e-9).all(), "non-increasing in alpha"
    for alpha in (0.0, 0.5, 1.0):
        assert objective(models[:1], alpha) == pytest.approx(of_one, abs=1e-7), "one model is a POMDP"
        assert objective([models[0], models[1], models[1]], alpha) == pytest.approx(
            objective(models[:2], alpha), abs=1e-7
        ), "copies change nothing"
    assert objective(models, 1.0) <= values[-1] + 1e-7, "a further model never raises the worst case"
    assert objective(models, 0.0) >= values[0] - 1e-7, "nor lowers the best case"


def test_the_two_objectives_differ():
    models = [tiger(0.85, 1.0), tiger(0.65, 1.0)]
    assert by_tree(models, 0.5) - by_commitment(models, 0.5) > 1


@pytest.mark.parametrize("alpha", ALPHAS)
def test_interpolation_meets_the_tree_on_small_problems(alpha):
    models = [tiger(0.85, 1.0), tiger(0.65, 1.0)]
    solution = solve_recursive(alone(make_ambiguous(models, pessimism=alpha)), jax.random.key(0), generations=8)
    assert solution.value[0] == pytest.approx(by_tree(models, alpha), abs=1e-6 + solution.error[0])
    assert solution.value[0] == pytest.approx(by_tree(models, alpha), abs=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("alpha", (0.0, 1.0))
def test_the_estimated_error_is_as_large_as_the_true_one(alpha):
    """On ten hidden levels, three steps from their end; the tree is exact."""
    family = make_family("energy_apomdp", horizon=3, n_models=3, pessimism=alpha)
    with jax.enable_x64(True):
        cloud = jax.tree.map(np.asarray, sample_tasks(family, jax.random.split(jax.random.key(0), 2)))
    solution, models = solve_recursive(cloud, jax.random.key(0)), belief_model(cloud.models)
    for n in range(2):
        one = jax.tree.map(lambda leaf: leaf[n], models)
        exact = sum(
            first.sum() * tree_values(one, first / first.sum(), pessimism=alpha).max() for first in one.first[0]
        )
        assert abs(solution.value[n] - exact) <= 3 * solution.error[n]
        assert solution.error[n] < 0.005


def test_invariants_of_the_interpolation_on_the_same_points():
    models = variants(5, 3, horizon=4)
    points = np.concatenate([np.eye(2), np.random.default_rng(0).dirichlet(np.ones(2), 8)])[None]

    def value(cloud, alpha):
        kernels = alone(belief_model(make_ambiguous(cloud, pessimism=alpha).models))
        with jax.enable_x64(True):
            alphas = jnp.zeros((1, 5, 1, 2))
            found = recursive_at_points(kernels, 0, jnp.array([alpha]), jnp.asarray(points), alphas)[1]
        return float(found[0])

    values = [value(models[:2], alpha) for alpha in ALPHAS]
    assert (np.diff(values) <= 1e-12).all()
    assert value(models, 1.0) <= values[-1] + 1e-12 and value(models, 0.0) >= values[0] - 1e-12
    assert value([models[0], models[1], models[1]], 0.5) == pytest.approx(values[2], abs=1e-12)


@settings(max_examples=8)
@given(st.integers(0, 10**6), st.sampled_from(ALPHAS))
def test_shown_states_are_exact(seed, alpha):
    """Against the recursion written out by loops, and against backward induction for one model."""
    models = variants(seed, 3, horizon=3)
    clouds = jax.tree.map(lambda *leaves: np.stack(leaves)[None], *(model.mdp for model in models))
    q_TSA = shown_recursive(clouds, alpha)[0]
    value = np.zeros(2)
    for t in reversed(range(3)):
        g = np.array([m.mdp.reward + m.discount * np.einsum("ast,t->sa", m.mdp.transition, value) for m in models])
        expected = alpha * g.min(0) + (1 - alpha) * g.max(0)
        assert np.allclose(q_TSA[t], expected, atol=1e-12)
        value = expected.max(-1)
    one = jax.tree.map(lambda leaf: leaf[:, :1], clouds)
    assert np.allclose(shown_recursive(one, alpha), plan(jax.tree.map(lambda leaf: leaf[:, 0], clouds)), atol=1e-12)


def test_refusals():
    with pytest.raises(UserError, match="generations"):
        solve_recursive(alone(make_ambiguous([tiger()], pessimism=0)), jax.random.key(0), generations=0)
    big = [random_pomdp(seed, horizon=3) for seed in range(2)]
    with pytest.raises(TooLarge, match="too large: [0-9,]+ candidates for exact alpha-vectors, the limit is") as caught:
        committed(make_ambiguous(big, pessimism=0.5), most=2)
    assert caught.value.size > caught.value.limit
