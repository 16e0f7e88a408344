"""The transformer: causality by gradient, cache against no cache, readings, adapters, an overfitted batch."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from icdm.errors import UserError
from icdm.models import transformer
from icdm.models.lora import init_lora, merge_lora
from icdm.models.transformer import ModelConfig, Transformer, linear, products, rms_norm, rotate, rotation
from icdm.trajectories.layouts import Tokens

VOCABULARY = 11
CONFIGS = {
    "plain": ModelConfig(width=32, layers=2, heads=4, kv_heads=4, hidden=48),
    "grouped": ModelConfig(width=32, layers=3, heads=4, kv_heads=2, hidden=48, mlp="squared_relu"),
    "mixing": ModelConfig(width=32, layers=2, heads=2, kv_heads=1, hidden=48, mixing=2, rotary_base=0.0),
}


def make_model(config):
    model = Transformer(config, VOCABULARY, nnx.Rngs(0))
    if config.mixing:
        model.mixing[...] = 0.2 * jax.random.normal(jax.random.key(9), model.mixing.shape)
    return model


def ragged_tokens(rows=4, length=14, components=2):
    """Rows with different positions left out."""
    rng = np.random.default_rng(0)
    return Tokens(
        id=jnp.asarray(rng.integers(-1, VOCABULARY, (rows, length, components)), jnp.int32),
        number=jnp.asarray(rng.normal(size=(rows, length)), jnp.float32),
        valid=jnp.asarray(rng.random((rows, length)) < np.array([1.0, 0.8, 0.5, 0.6])[:, None]),
    )


@pytest.fixture(params=CONFIGS)
def model(request):
    return make_model(CONFIGS[request.param])


def test_no_output_depends_on_a_later_or_an_invalid_input(model):
    tokens = ragged_tokens()

    def output(number, t):
        return model(dataclasses.replace(tokens, number=number)).hidden[:, t].sum()

    for t in (0, 5, 13):
        gradient = np.asarray(jax.grad(output)(tokens.number, t))
        here = np.asarray(tokens.valid[:, t])  # at a position that does not exist, anything may come out
        assert (gradient[here, t + 1 :] == 0).all()
        invalid = ~np.asarray(tokens.valid)
        assert (gradient[here][invalid[here]] == 0).all()
        assert (gradient[here, t] != 0).all()


@pytest.mark.parametrize("piece", [1, 3, 14])
def test_cached_equals_uncached_with_rows_at_different_positions(model, piece):
    tokens = ragged_tokens()
    whole = model(tokens).hidden
    cache, pieces = model.empty_cache(4, 14), []
    for start in range(0, 14, piece):
        part = jax.tree.map(lambda x: x[:, start : start + piece], tokens)
        output = model(part, cache)
        cache = output.cache
        pieces.append(output.hidden)
    logits, cached = (np.asarray(model.logits(h)) for h in (whole, jnp.concatenate(pieces, 1)))
    valid = np.asarray(tokens.valid)
    assert np.abs(logits - cached)[valid].max() < 1e-5
    np.testing.assert_array_equal(cache.length, valid.sum(1))


def test_invalid_positions_leave_no_trace(model):
    tokens = ragged_tokens()
    for row in range(4):
        kept = np.asarray(tokens.valid[row])
        dense = jax.tree.map(lambda x: x[row : row + 1][:, kept], tokens)
        np.testing.assert_allclose(model(dense).hidden[0], model(tokens).hidden[row][kept], atol=2e-5)


def test_readings_are_those_of_the_forward_pass(model):
    tokens = ragged_tokens()
    output = model(tokens, read=True)
    c = model.config
    attention, residual = output.readings["attention"], output.readings["residual"]
    chex.assert_shape(attention, (c.layers, 4, c.heads, 14, 14))
    chex.assert_shape(residual, (c.layers + 1, 4, 14, c.width))
    valid = np.asarray(tokens.valid)
    rows = np.moveaxis(np.asarray(attention), 3, 2)[:, valid]
    np.testing.assert_allclose(rows.sum(-1), 1, atol=1e-5)
    upper = np.triu(np.ones((14, 14), bool), 1)
    assert (np.moveaxis(np.asarray(attention), (1, 3), (0, 1))[valid][..., :] >= 0).all()
    for b, t in np.argwhere(valid):
        assert (np.asarray(attention)[:, b, :, t][..., upper[t]] == 0).all()
        assert (np.asarray(attention)[:, b, :, t][..., ~valid[b]] == 0).all()
    np.testing.assert_array_equal(rms_norm(residual[-1], model.norm[...]), output.hidden)
    np.testing.assert_array_equal(output.hidden, model(tokens).hidden)


def test_blocks_of_queries_change_nothing(model, monkeypatch):
    """Outputs, attention and gradients, at a length that the blocks do not divide, with rows left out."""
    tokens = ragged_tokens(length=70)
    valid = tokens.valid[..., None]

    def found(model):
        def loss(model):
            output = model(tokens, read=True)
            return jnp.where(valid, jnp.sin(output.hidden), 0).sum(), output

        (_, output), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(model)
        rows = jnp.moveaxis(output.readings["attention"], 3, 2)[:, tokens.valid]
        return jnp.where(valid, output.hidden, 0), rows, gradient

    in_blocks = found(model)
    monkeypatch.setattr(transformer, "SHORTEST_IN_BLOCKS", 71)
    chex.assert_trees_all_close(in_blocks, found(model), atol=2e-5, rtol=2e-4)


@pytest.mark.parametrize("shape_x, shape_y", [((3, 5, 4), (4, 6)), ((3, 5, 7), (7, 2))])
def test_gradients_are_those_of_the_product(shape_x, shape_y):
    """Of a wide and of a narrow output: which factor is transposed depends on it."""
    x = jax.random.normal(jax.random.key(0), shape_x)
    weight = jax.random.normal(jax.random.key(1), shape_y)
    for product, y in ((linear, weight), (products, jnp.stack([weight, 2 * weight, -weight]))):
        ours = jax.grad(lambda x, y: jnp.sin(product(x, y)).sum(), argnums=(0, 1))(x, y)
        theirs = jax.grad(lambda x, y: jnp.sin(x @ y).sum(), argnums=(0, 1))(x, y)
        chex.assert_trees_all_close(ours, theirs, atol=1e-5)


def test_rotary_scores_depend_on_the_distance_only():
    q, k = (jax.random.normal(jax.random.key(i), (1, 1, 1, 8)) for i in (0, 1))

    def score(i, j):
        at = lambda x, position: rotate(x, rotation(jnp.array([[position]]), 8, 100.0))  # noqa: E731
        return float((at(q, i) * at(k, j)).sum())

    np.testing.assert_allclose(score(7, 3), score(14, 10), rtol=1e-4)
    assert abs(score(7, 3) - score(7, 4)) > 1e-3


def test_adapters_start_as_the_model_and_reach_every_matrix(model):
    tokens = ragged_tokens()
    adapters = init_lora(model, 2, jax.random.key(0))
    np.testing.assert_array_equal(merge_lora(model, adapters)(tokens).hidden, model(tokens).hidden)
    expected = 7 if model.config.mlp == "gated" else 6
    assert len(adapters) == expected

    def loss(adapters):
        return jnp.sin(merge_lora(model, adapters)(tokens).hidden).sum()

    assert all(np.abs(gradient["b"]).max() > 0 for gradient in jax.grad(loss)(adapters).values())


def test_one_batch_can_be_overfitted():
    model = make_model(CONFIGS["plain"])
    tokens = dataclasses.replace(ragged_tokens(), valid=jnp.ones((4, 14), bool))
    target = jax.random.randint(jax.random.key(3), (4, 14), 0, VOCABULARY)
    optimizer = optax.adam(3e-3)

    def loss(model):
        return optax.softmax_cross_entropy_with_integer_labels(model.logits(model(tokens).hidden), target).mean()

    @jax.jit
    @chex.assert_max_traces(n=1)
    def update(model, state):
        value, gradient = jax.value_and_grad(loss)(model)
        change, state = optimizer.update(gradient, state)
        return optax.apply_updates(model, change), state, value

    state = optimizer.init(model)
    for _ in range(150):
        model, state, value = update(model, state)
    assert value < 0.05


def test_bfloat16_stays_near_float32():
    exact = make_model(CONFIGS["plain"])
    rough = Transformer(dataclasses.replace(CONFIGS["plain"], dtype="bfloat16"), VOCABULARY, nnx.Rngs(0))
    tokens = ragged_tokens()
    valid = np.asarray(tokens.valid)
    difference = np.asarray(exact(tokens).hidden - rough(tokens).hidden.astype(jnp.float32))[valid]
    assert 0 < np.abs(difference).max() < 0.2


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(width=30), "multiple"),
        (dict(kv_heads=3), "divisor"),
        (dict(mlp="gatd"), "'gated'"),
        (dict(layers=0), "sizes"),
    ],
)
def test_unusable_shapes_are_refused(change, message):
    with pytest.raises(UserError, match=message):
        ModelConfig(**change)
