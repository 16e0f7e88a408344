"""ICU-Sepsis: exact values as published with its package, and hospitals that keep its support."""

import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from icdm.families.icu_sepsis import nominal_mdp
from icdm.oracles.backward_induction import optimal_value, plan, until_absorption
from icdm.problems.counts import Counts
from icdm.problems.family import make_family
from icdm.trajectories.collect import draw_problems

pytestmark = pytest.mark.skipif(importlib.util.find_spec("icu_sepsis") is None, reason="needs the extra `clinical`")


@pytest.mark.parametrize("horizon, value", [(20, 0.7922164101), (50, 0.8691389033)])
def test_finite_horizon_optimum(horizon, value):
    problems = draw_problems(make_family("icu_sepsis", horizon=horizon), jax.random.key(0), 1)
    assert abs(float(optimal_value(problems, plan(problems))[0]) - value) < 1e-8


@pytest.mark.slow
def test_values_until_absorption():
    family = make_family("icu_sepsis")
    mdp = nominal_mdp(family.horizon)
    with jax.enable_x64(True):
        value = jax.jit(until_absorption)
        for policy, expected in [
            (np.full((716, 25), 1 / 25), 0.7800709046),
            (family.expert, 0.7818448903),
            (None, 0.8751416996),
        ]:
            assert abs(float(mdp.initial @ value(mdp, policy)) - expected) < 1e-8


@pytest.mark.slow
def test_hospitals_keep_the_support_and_differ():
    family = make_family("icu_sepsis_hospitals", horizon=5)
    nominal = nominal_mdp(family.horizon).transition
    hospitals = np.asarray(draw_problems(family, jax.random.key(0), 2).transition)
    assert (hospitals[:, nominal == 0] == 0).all()
    np.testing.assert_allclose(hospitals.sum(-1), 1, atol=1e-6)
    assert np.abs(hospitals[0] - hospitals[1]).max() > 0.1
    with jax.enable_x64(True):
        seen = jnp.zeros((25, 716, 716)).at[3, 10].set(1e6 * jnp.asarray(nominal[3, 10]))
        drawn = np.asarray(family.posterior_sample(jax.random.key(1), Counts(seen, jnp.zeros((716, 25)))).transition)
    np.testing.assert_allclose(drawn[3, 10], nominal[3, 10], atol=0.01)  # what was seen often is known
    assert (drawn[nominal == 0] == 0).all()
