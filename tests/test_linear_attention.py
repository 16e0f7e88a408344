"""The linear self-attention layer against its formula, written out in NumPy, and its TD form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from icdm.models.linear_attention import (
    LinearAttention,
    context_mask,
    linear_attention,
    linear_transformer,
    regression_prediction,
    regression_prompt,
    td_layer,
    td_prompt,
    td_values,
    trace_mask,
)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def random_layer(rng, size):
    return LinearAttention(*(jnp.asarray(rng.normal(size=(size, size))) for _ in range(2)))


def test_layer_is_its_formula(rng):
    layer, prompt = random_layer(rng, 4), rng.normal(size=(4, 7))
    mask = rng.normal(size=(7, 7))
    expected = prompt + layer.value @ prompt @ mask @ (prompt.T @ layer.key_query @ prompt) / 6
    np.testing.assert_allclose(linear_attention(layer, prompt, 6, mask), expected, atol=1e-10)
    diagonal = np.arange(7.0)
    np.testing.assert_allclose(
        linear_attention(layer, prompt, 6, diagonal),
        linear_attention(layer, prompt, 6, np.diag(diagonal)),
        atol=1e-10,
    )
    np.testing.assert_allclose(
        linear_attention(layer, prompt, 6), linear_attention(layer, prompt, 6, np.eye(7)), atol=1e-10
    )


def test_prediction_is_the_last_entry_of_the_layer(rng):
    layer, x, y, query = random_layer(rng, 4), rng.normal(size=(9, 3)), rng.normal(size=9), rng.normal(size=3)
    whole = linear_attention(layer, regression_prompt(x, y, query), 9)
    np.testing.assert_allclose(regression_prediction(layer, x, y, query), whole[-1, -1], atol=1e-12)


def test_transformer_applies_layers_in_turn(rng):
    layers = jax.tree.map(lambda *x: jnp.stack(x), random_layer(rng, 3), random_layer(rng, 3))
    prompt, mask = 0.1 * rng.normal(size=(3, 5)), context_mask(4, 1)
    outputs = linear_transformer(layers, prompt, 4, mask)
    for i in range(2):
        prompt = linear_attention(jax.tree.map(lambda x: x[i], layers), prompt, 4, mask)
        np.testing.assert_allclose(outputs[i], prompt, atol=1e-12)


def test_queries_attend_and_are_not_attended_to(rng):
    layer = random_layer(rng, 5)
    prompt = rng.normal(size=(5, 6))
    other = prompt.copy()
    other[:, -1] += 1.0
    mask = context_mask(4, 2)
    difference = linear_attention(layer, prompt, 4, mask) - linear_attention(layer, other, 4, mask)
    assert np.abs(difference[:, :-1]).max() == 0.0
    assert np.abs(difference[:, -1]).max() > 0


def test_trace_mask_sums_traces(rng):
    mask = np.asarray(trace_mask(4, 2, 0.5))
    phi, trace, traces = rng.normal(size=(4, 3)), 0.0, []
    for row in phi:
        trace = row + 0.5 * trace
        traces.append(trace)
    np.testing.assert_allclose(mask[:4, :4] @ phi, traces, atol=1e-12)
    assert not mask[4:].any() and not mask[:, 4:].any()
    np.testing.assert_allclose(trace_mask(4, 2, 0.0), np.diag(context_mask(4, 2)))


@pytest.mark.parametrize("residual", [False, True])
def test_one_layer_is_one_td_step_by_finite_differences(residual, rng):
    """The step is minus the (semi-)gradient of half the mean squared TD error at w = 0."""
    phi, following, reward = rng.normal(size=(8, 3)), rng.normal(size=(8, 3)), rng.normal(size=8)
    step, queries = rng.normal(size=(3, 3)), np.eye(3)

    def half_error(w, target_w):
        return 0.5 * np.mean((reward + 0.9 * following @ target_w - phi @ w) ** 2)

    epsilon, gradient = 1e-5, np.zeros(3)
    for i in range(3):
        shift = epsilon * np.eye(3)[i]
        moving = shift if residual else np.zeros(3)
        gradient[i] = (half_error(shift, moving) - half_error(-shift, -moving)) / (2 * epsilon)
    prompt = td_prompt(phi, following, reward, queries, 0.9)
    learned = td_values(linear_attention(td_layer(step, residual), prompt, 8, context_mask(8, 3)), 3)
    np.testing.assert_allclose(learned, -step @ gradient, atol=1e-8)
