"""Closed forms against brute-force Monte Carlo, and against their common wrong forms."""

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from icdm.errors import UserError
from theory.linear import laws
from theory.linear.closed_forms import (
    check_lengths,
    gamma,
    gaussian_squared_error,
    gram_moment,
    optimum,
    squared_error,
    upper_bound,
)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def random_law(name, rng):
    if name == "gaussian":
        root = rng.normal(size=(3, 3))
        return laws.gaussian(root @ root.T + 0.3 * np.eye(3))
    if name == "one-hot":
        return laws.one_hot([0.6, 0.3, 0.1])
    return laws.uniform_over(rng.dirichlet(np.ones(3), 7))


def draw(law, shape, seed=0):
    return np.asarray(law.sample(jax.random.key(seed), shape), np.float64)


@pytest.mark.parametrize("name", ["gaussian", "one-hot", "simplex"])
def test_moments_against_samples_and_rule(name, rng):
    law = random_law(name, rng)
    between = rng.normal(size=(3, 3))
    x = draw(law, (400_000,))
    points, weights = law.rule()
    rule = laws.Finite(points, weights)
    np.testing.assert_allclose(rule.second, law.second, atol=1e-12)
    np.testing.assert_allclose(rule.fourth(between), law.fourth(between), atol=1e-10)
    scale = np.abs(law.fourth(np.eye(3))).max()
    np.testing.assert_allclose(x.T @ x / len(x), law.second, atol=0.02 * np.abs(law.second).max())
    inner = np.einsum("ni,ij,nj->n", x, between, x)
    np.testing.assert_allclose((x * inner[:, None]).T @ x / len(x), law.fourth(between), atol=0.05 * scale)


@pytest.mark.parametrize("name", ["gaussian", "one-hot", "simplex"])
@pytest.mark.parametrize("noise", [0.0, 0.7])
def test_optimum_is_the_least_squares_solution(name, noise, rng):
    """No other U does better on simulated prompts than the closed form, up to sampling error."""
    law, n, prompts = random_law(name, rng), 5, 200_000
    task_root = np.array([[1.0, 0.0, 0.0], [0.5, 0.8, 0.0], [0.0, 0.2, 0.4]])
    tasks = laws.Gaussian(task_root)
    x, w, query = draw(law, (prompts, n), 1), draw(tasks, (prompts,), 2), draw(law, (prompts,), 3)
    y = np.einsum("bnf,bf->bn", x, w) + noise * rng.normal(size=(prompts, n))
    g = np.einsum("bn,bnf->bf", y, x) / n
    design = np.einsum("bi,bj->bij", query, g).reshape(prompts, 9)
    fitted = np.linalg.lstsq(design, np.einsum("bf,bf->b", query, w), rcond=None)[0].reshape(3, 3)
    u = optimum(law, tasks.second, n, noise)
    assert np.linalg.norm(fitted - u) <= 0.03 * np.linalg.norm(u)
    u_wrong = np.linalg.inv(gamma(law.second, n))
    assert np.linalg.norm(fitted - u_wrong) > 0.1 * np.linalg.norm(u)


def test_special_cases():
    covariance = laws.spectrum(4, 5.0)
    np.testing.assert_allclose(
        optimum(laws.gaussian(covariance), np.eye(4), 9), np.linalg.inv(gamma(covariance, 9)), atol=1e-12
    )
    rho = np.array([0.5, 0.3, 0.15, 0.05])
    tabular = optimum(laws.one_hot(rho), np.eye(4), 9)
    np.testing.assert_allclose(tabular, np.linalg.inv((1 - 1 / 9) * np.diag(rho) + np.eye(4) / 9), atol=1e-12)
    wrong = np.linalg.inv(gamma(np.diag(rho), 9))
    assert np.abs(tabular - wrong).max() > 0.1, "the Gaussian form does not hold for one-hot features"


@pytest.mark.parametrize("name", ["gaussian", "one-hot", "simplex"])
def test_squared_error_against_monte_carlo(name, rng):
    law, tasks, m, prompts = random_law(name, rng), laws.gaussian(np.diag([1.0, 0.5, 2.0])), 6, 300_000
    u = optimum(law, np.eye(3), 4)
    x, w, query = draw(law, (prompts, m), 4), draw(tasks, (prompts,), 5), draw(law, (prompts,), 6)
    y = np.einsum("bnf,bf->bn", x, w) + 0.5 * rng.normal(size=(prompts, m))
    g = np.einsum("bn,bnf->bf", y, x) / m
    error = (np.einsum("bi,ij,bj->b", query, u, g) - np.einsum("bf,bf->b", query, w)) ** 2
    bias, estimation = squared_error(law, tasks.second, u, m, 0.5)
    se = error.std() / np.sqrt(prompts)
    assert abs(error.mean() - bias - estimation) <= 4 * se
    spread = law.fourth(tasks.second) + 0.25 * law.second
    wrong = bias + np.trace(law.second @ u @ spread @ u.T) / m
    assert abs(error.mean() - wrong) > 8 * se, "N in place of N - 1 is seen"


@given(d=st.integers(1, 8), condition=st.floats(1, 50), n=st.integers(1, 500), m=st.integers(1, 500))
@settings(max_examples=60)
def test_gaussian_error_is_the_general_one_and_below_the_bound(d, condition, n, m):
    covariance = laws.spectrum(d, condition)
    law, inverse = laws.gaussian(covariance), np.linalg.inv(gamma(covariance, n))
    exact = gaussian_squared_error(covariance, n, m)
    np.testing.assert_allclose(sum(squared_error(law, np.eye(d), inverse, m)), exact, rtol=1e-8)
    assert exact <= upper_bound(covariance, n, m) * (1 + 1e-12)


def test_gram_moment_by_enumeration():
    law = laws.one_hot([0.7, 0.3])
    total = np.zeros((2, 2))
    for i in range(2):
        for j in range(2):
            g = (np.diag(np.eye(2)[i]) + np.diag(np.eye(2)[j])) / 2
            total += law.weights[i] * law.weights[j] * g @ g
    np.testing.assert_allclose(gram_moment(law, np.eye(2), 2), total, atol=1e-14)


def test_prompts_shorter_than_the_dimension_are_refused():
    with pytest.raises(UserError, match="dimension 5 exceeds the prompt length 4"):
        check_lengths(5, 8, 4)
    with pytest.raises(UserError, match="at most 4"):
        laws.gaussian(np.eye(5)).rule()
