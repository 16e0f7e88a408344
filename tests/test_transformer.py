"""The transformer: causality by gradient, cache against no cache, readings, adapters, an overfitted batch."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import jax.test_util
import numpy as np
import optax
import pytest
from flax import nnx

from icdm.errors import UserError
from icdm.models import attention, transformer
from icdm.models.attention import rotate, rotation
from icdm.models.cpu_products import linear, products
from icdm.models.flops import training_flops
from icdm.models.lora import LoraConfig, adapted, init_factors
from icdm.models.taps import places, reading
from icdm.models.transformer import MATRICES, ModelConfig, Transformer, rms_norm
from icdm.trajectories.layouts.vocabulary import Tokens

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
        number=jnp.asarray(rng.normal(size=(rows, length, 1)), jnp.float32),
        valid=jnp.asarray(rng.random((rows, length)) < np.array([1.0, 0.8, 0.5, 0.6])[:, None]),
    )


@jax.jit
def run(model, tokens, cache=None):
    """The forward pass as one program: operation by operation it would be hundreds, which stay in memory."""
    return model(tokens, cache)


@pytest.fixture(params=CONFIGS)
def model(request):
    return make_model(CONFIGS[request.param])


def test_no_output_depends_on_a_later_or_an_invalid_input(model):
    tokens = ragged_tokens()

    def output(number, t):
        return model(dataclasses.replace(tokens, number=number)).hidden[:, t].sum()

    for t in (0, 5, 13):
        gradient = np.asarray(jax.jit(jax.grad(output), static_argnums=1)(tokens.number, t))[..., 0]
        here = np.asarray(tokens.valid[:, t])  # at a position that does not exist, anything may come out
        assert (gradient[here, t + 1 :] == 0).all()
        invalid = ~np.asarray(tokens.valid)
        assert (gradient[here][invalid[here]] == 0).all()
        assert (gradient[here, t] != 0).all()


@pytest.mark.parametrize("piece", [1, 3, 14])
def test_cached_equals_uncached_with_rows_at_different_positions(model, piece):
    tokens = ragged_tokens()
    whole = run(model, tokens).hidden
    cache, pieces = model.empty_cache(4, 14), []
    for start in range(0, 14, piece):
        part = jax.tree.map(lambda x: x[:, start : start + piece], tokens)
        output = run(model, part, cache)
        cache = output.cache
        pieces.append(output.hidden)
    logits, cached = (np.asarray(model.logits(h)) for h in (whole, jnp.concatenate(pieces, 1)))
    valid = np.asarray(tokens.valid)
    assert np.abs(logits - cached)[valid].max() < 1e-5
    np.testing.assert_array_equal(cache.length, valid.sum(1))


@pytest.mark.parametrize("length, context", [(14, 9), (80, 70)])
def test_positions_of_a_prefix_see_one_another_and_nothing_after_it(length, context):
    model = make_model(dataclasses.replace(CONFIGS["grouped"], prefix=True))
    tokens = ragged_tokens(length=length)
    valid = np.asarray(tokens.valid)

    def output(number, t):
        return model(dataclasses.replace(tokens, number=number), context=context).hidden[:, t].sum()

    for t in (0, context, length - 1):
        gradient = np.asarray(jax.jit(jax.grad(output), static_argnums=1)(tokens.number, t))[..., 0]
        here, last = valid[:, t], context if t < context else t + 1
        assert (gradient[here, last:] == 0).all()
        assert (gradient[here][:, :last][valid[here, :last]] != 0).all()
        assert (gradient[here][~valid[here]] == 0).all()


@pytest.mark.parametrize("length, context", [(14, 9), (80, 70)])
def test_a_prefix_is_read_into_the_cache_as_it_is_read_in_training(length, context):
    model = make_model(dataclasses.replace(CONFIGS["plain"], prefix=True, rotary_base=0.0))
    tokens = ragged_tokens(length=length)

    @jax.jit
    def in_pieces(tokens):
        read = jax.tree.map(lambda x: x[:, :context], tokens)
        output = model(read, model.empty_cache(4, length), context=context)
        pieces = [output.hidden]
        for t in range(context, length):
            output = model(jax.tree.map(lambda x: x[:, t : t + 1], tokens), output.cache)
            pieces.append(output.hidden)
        return jnp.concatenate(pieces, 1)

    whole = jax.jit(lambda tokens: model(tokens, context=context).hidden)(tokens)
    np.testing.assert_allclose(
        *(np.asarray(x)[np.asarray(tokens.valid)] for x in (in_pieces(tokens), whole)), atol=2e-5
    )
    assert np.abs(np.asarray(whole - run(model, tokens).hidden))[np.asarray(tokens.valid)].max() > 1e-3


def test_invalid_positions_leave_no_trace(model):
    tokens = ragged_tokens()
    for row in range(4):
        kept = np.asarray(tokens.valid[row])
        dense = jax.tree.map(lambda x: x[row : row + 1][:, kept], tokens)
        np.testing.assert_allclose(run(model, dense).hidden[0], run(model, tokens).hidden[row][kept], atol=2e-5)


def everything_read(model, tokens):
    found, taps = reading(*places(model.config.layers))
    return model(tokens, taps=taps).hidden, found


def test_readings_are_those_of_the_forward_pass(model):
    tokens, c = ragged_tokens(), model.config
    hidden, found = jax.jit(everything_read)(model, tokens)
    assert sorted(found) == sorted(places(c.layers))
    valid = np.asarray(tokens.valid)
    upper = np.triu(np.ones((14, 14), bool), 1)
    for i in range(c.layers):
        chex.assert_shape(found[f"{i}.heads"], (4, 14, c.heads, c.head_width))
        weight = np.asarray(found[f"{i}.attention"])
        chex.assert_shape(weight, (4, c.heads, 14, 14))
        np.testing.assert_allclose(np.moveaxis(weight, 2, 1)[valid].sum(-1), 1, atol=1e-5)
        for b, t in np.argwhere(valid):
            assert (weight[b, :, t][:, upper[t]] == 0).all() and (weight[b, :, t][:, ~valid[b]] == 0).all()
    np.testing.assert_allclose(rms_norm(found[f"{c.layers - 1}.out"], model.norm[...], 1e-6), hidden, atol=1e-6)
    np.testing.assert_allclose(hidden, run(model, tokens).hidden, atol=1e-5)


def test_what_a_tap_returns_takes_the_place_of_the_activation(model):
    """Patching every place of the last layer's end with another input's gives that input's output."""
    tokens = ragged_tokens()
    other = dataclasses.replace(tokens, number=tokens.number + 1)
    last = f"{model.config.layers - 1}.out"
    hidden, found = jax.jit(everything_read)(model, other)

    def tapped(taps):
        return jax.jit(lambda: model(tokens, taps=taps).hidden)()

    np.testing.assert_allclose(tapped({last: lambda x: found[last]}), hidden, atol=1e-6)
    silent = tapped({f"{i}.{place}": jnp.zeros_like for i in range(model.config.layers) for place in ("heads", "mlp")})
    embedded = jax.jit(everything_read)(model, tokens)[1]["embed"]
    np.testing.assert_allclose(silent, rms_norm(embedded, model.norm[...], 1e-6), atol=1e-6)
    even = tapped({"0.attention": lambda w: jnp.full_like(w, 1 / w.shape[-1])})
    assert jnp.abs(even - run(model, tokens).hidden)[tokens.valid].max() > 1e-3
    with pytest.raises(UserError, match="unknown place '0.head': did you mean '0.heads'"):
        model(tokens, taps={"0.head": lambda x: x})


def test_blocks_of_queries_change_nothing(model, monkeypatch):
    """Outputs and gradients, at a length that the blocks do not divide, with rows left out."""
    tokens = ragged_tokens(length=70)
    valid = tokens.valid[..., None]

    def found(model):
        def loss(model):
            hidden = jnp.where(valid, model(tokens).hidden, 0)
            return jnp.sin(hidden).sum(), hidden

        return jax.jit(jax.value_and_grad(loss, has_aux=True))(model)

    in_blocks = found(model)
    monkeypatch.setattr(attention, "SHORTEST_IN_BLOCKS", 71)
    chex.assert_trees_all_close(in_blocks, found(model), atol=2e-5, rtol=2e-4)


@pytest.mark.parametrize("layers", [3, 9])
def test_activations_that_are_computed_again_take_less_memory(layers):
    """Of a gradient, as compiled; outside a loop XLA on CPU would keep what it should compute again."""

    def bytes_of(remat):
        config = ModelConfig(width=32, layers=layers, heads=2, kv_heads=2, hidden=32, max_length=400, remat=remat)
        model = Transformer.described(config, 20, numbers=0)
        shape = jax.ShapeDtypeStruct
        tokens = Tokens(shape((1, 400, 1), jnp.int32), shape((1, 400, 0), jnp.float32), shape((1, 400), jnp.bool_))
        gradient = jax.jit(jax.grad(lambda model, tokens: model(tokens).hidden.sum()))
        return gradient.lower(model, tokens).compile().memory_analysis().temp_size_in_bytes

    assert bytes_of(True) < 0.6 * bytes_of(False)


def test_layers_in_a_loop_compute_what_unrolled_layers_do(model, monkeypatch):
    """Without a cache and with one, gradients of weights and of adapters, and taps, which unroll the loop."""
    tokens = ragged_tokens()
    lora = LoraConfig(rank=2)
    drawn = jax.tree.map(lambda x: x + 0.1, init_factors(model, lora, jax.random.key(0)))

    def found(model):
        def loss(model, adapters):
            hidden = adapted(model, adapters, lora)(tokens).hidden
            return jnp.where(tokens.valid[..., None], jnp.sin(hidden), 0).sum()

        first = jax.tree.map(lambda x: x[:, :9], tokens)
        output = model(first, model.empty_cache(4, 14))
        rest = model(jax.tree.map(lambda x: x[:, 9:], tokens), output.cache).hidden
        read = everything_read(model, tokens)[1]
        return jnp.where(tokens.valid[:, 9:, None], rest, 0), jax.grad(loss, (0, 1))(model, drawn), read

    unrolled = jax.jit(found)(model)
    monkeypatch.setattr(transformer, "MOST_UNROLLED", dict.fromkeys(transformer.MOST_UNROLLED, 1))
    assert model.empty_cache(4, 14).k.shape[0] == model.config.layers
    in_a_loop = jax.jit(lambda model: found(model))(model)  # traced anew
    chex.assert_trees_all_close(in_a_loop, unrolled, atol=2e-3, rtol=2e-4)  # gradients reach 80


@pytest.mark.parametrize("loops", [1, 3, 9])
def test_loops_are_layers_that_hold_the_same_weights(loops):
    """Forward, with a cache, at every place, and back; nine are a loop of the program, three are not."""
    tied = make_model(dataclasses.replace(CONFIGS["grouped"], tied=True, layers=3)).looped(loops)
    assert tied.blocks.q.shape[0] == 1
    untied = make_model(dataclasses.replace(CONFIGS["grouped"], layers=loops))
    named = tied.named_weights()
    untied = untied.with_weights(
        lambda name: jnp.repeat(named[name], loops, 0) if name.startswith("blocks") else named[name]
    )
    tokens = ragged_tokens()

    @jax.jit
    def found(model):
        def loss(model):
            return jnp.where(tokens.valid[..., None], jnp.sin(model(tokens).hidden), 0).sum()

        first = jax.tree.map(lambda x: x[:, :9], tokens)
        output = model(first, model.empty_cache(4, 14))
        rest = model(jax.tree.map(lambda x: x[:, 9:], tokens), output.cache).hidden
        read = everything_read(model, tokens)[1]
        return jnp.where(tokens.valid[:, 9:, None], rest, 0), read, jax.grad(loss)(model)

    *ours, own_gradient = found(tied)
    *theirs, gradient = found(untied)
    chex.assert_trees_all_close(ours, theirs, atol=1e-5, rtol=1e-5)
    summed = {
        name: leaf.sum(0, keepdims=True) if name.startswith("blocks") else leaf
        for name, leaf in gradient.named_weights().items()
    }
    chex.assert_trees_all_close(own_gradient.named_weights(), summed, atol=2e-3, rtol=2e-4)


def test_the_gradient_of_loops_is_that_of_finite_differences():
    model = make_model(ModelConfig(width=8, layers=4, heads=1, kv_heads=1, hidden=8, tied=True))
    tokens = ragged_tokens()

    def loss(up_XDF):
        named = model.named_weights() | {"blocks.up": up_XDF}
        hidden = model.with_weights(lambda name: named[name])(tokens).hidden
        return jnp.where(tokens.valid[..., None], jnp.sin(hidden), 0).sum()

    jax.test_util.check_grads(jax.jit(loss), (model.blocks.up[...],), order=1, modes=["rev"], atol=0.02, rtol=0.02)


def test_layers_with_weights_of_their_own_are_no_loops(model):
    with pytest.raises(UserError, match="3 loops: the . layers have weights of their own"):
        model.looped(3)
    with pytest.raises(UserError, match="sizes"):
        make_model(ModelConfig(width=8, layers=2, heads=1, kv_heads=1, hidden=8, tied=True)).looped(0)


def test_a_model_is_described_without_its_weights(model):
    described = Transformer.described(model.config, VOCABULARY)
    assert jax.tree.structure(described) == jax.tree.structure(model)
    assert [leaf.shape for leaf in jax.tree.leaves(described)] == [leaf.shape for leaf in jax.tree.leaves(model)]
    assert all(type(leaf) is jax.ShapeDtypeStruct for leaf in jax.tree.leaves(described))
    billions = Transformer.described(ModelConfig(width=8192, layers=80, heads=64, hidden=28672, kv_heads=64), 128_000)
    assert sum(leaf.size for leaf in jax.tree.leaves(billions)) > 6e10


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
        def at(x, position):
            return rotate(x, rotation(jnp.array([[position]]), 8, 100.0))

        return float((at(q, i) * at(k, j)).sum())

    np.testing.assert_allclose(score(7, 3), score(14, 10), rtol=1e-4)
    assert abs(score(7, 3) - score(7, 4)) > 1e-3


def test_adapters_start_as_the_model_and_reach_every_matrix(model):
    tokens, lora = ragged_tokens(), LoraConfig(rank=2)
    adapters = init_factors(model, lora, jax.random.key(0))
    with_adapters = run(adapted(model, adapters, lora), tokens).hidden
    np.testing.assert_allclose(with_adapters, run(model, tokens).hidden, atol=2e-6)  # another program fuses otherwise
    assert set(adapters) == set(MATRICES) - (set() if model.config.mlp == "gated" else {"gate"})

    def loss(adapters):
        return jnp.sin(adapted(model, adapters, lora)(tokens).hidden).sum()

    assert all(np.abs(gradient["b"]).max() > 0 for gradient in jax.jit(jax.grad(loss))(adapters).values())


def test_adapters_beside_the_weights_are_adapters_in_them(model):
    """x W + s (x A) B = x (W + s A B), for some of the weights, with and without a cache; s = alpha / rank."""
    tokens, lora = ragged_tokens(), LoraConfig(rank=2, alpha=3.0, targets=("q", "down"))
    adapters = init_factors(model, lora, jax.random.key(0))
    adapters = jax.tree.map(lambda x: x + 0.3 * jax.random.normal(jax.random.key(1), x.shape), adapters)
    beside = adapted(model, adapters, lora)
    assert set(adapters) == {"q", "down"} and beside.adapters.scale == 1.5
    expected = model.blocks.q[...] + 1.5 * adapters["q"]["a"] @ adapters["q"]["b"]
    np.testing.assert_allclose(beside.merged().blocks.q[...], expected, atol=1e-6)
    np.testing.assert_array_equal(beside.merged().blocks.k[...], model.blocks.k[...])
    valid = tokens.valid[..., None]
    for cache in (None, model.empty_cache(4, 14)):
        ours, theirs = (jnp.where(valid, run(m, tokens, cache).hidden, 0) for m in (beside, beside.merged()))
        np.testing.assert_allclose(ours, theirs, atol=2e-5)
    assert jnp.abs(run(beside, tokens).hidden - run(model, tokens).hidden)[tokens.valid].max() > 1e-2


def test_dropout_of_adapters_is_of_training_alone_and_drops_nothing_on_average(model):
    tokens, lora = ragged_tokens(), LoraConfig(rank=2, dropout=0.5)
    factors = jax.tree.map(lambda x: x + 0.3, init_factors(model, lora, jax.random.key(0)))
    acting, training = adapted(model, factors, lora), adapted(model, factors, lora, jax.random.key(1))
    without = adapted(model, factors, dataclasses.replace(lora, dropout=0.0), jax.random.key(1))
    np.testing.assert_array_equal(run(acting, tokens).hidden, run(without, tokens).hidden)
    assert jnp.abs(run(training, tokens).hidden - run(acting, tokens).hidden)[tokens.valid].max() > 1e-2
    x, weight = jnp.ones((1, 4000, model.config.width)), model.blocks.q[...][0]
    one = jax.tree.map(lambda leaf: leaf[0], training.adapters)
    plain = jax.tree.map(lambda leaf: leaf[0], acting.adapters)
    [dropped], [whole] = one.project(x, {"q": weight}), plain.project(x, {"q": weight})
    np.testing.assert_allclose(dropped.mean(1), whole.mean(1), rtol=0.05)
    assert dropped.std(1).min() > 0.1


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(targets=("qq",)), "did you mean 'q'"),
        (dict(alpha=0.0), "lora_alpha 0.0"),
        (dict(rank=-1), "lora_rank -1"),
        (dict(dropout=1.0), "lora_dropout 1.0"),
    ],
)
def test_adapters_that_cannot_be_had(change, message):
    with pytest.raises(UserError, match=message):
        LoraConfig(**change).check("fine_tune")


def test_one_batch_can_be_overfitted():
    model = make_model(CONFIGS["plain"])
    tokens = dataclasses.replace(ragged_tokens(), valid=jnp.ones((4, 14), bool))
    target = jax.random.randint(jax.random.key(3), (4, 14), 0, VOCABULARY)
    optimizer = optax.adam(3e-3)

    def loss(model):
        return optax.softmax_cross_entropy_with_integer_labels(model.logits(run(model, tokens).hidden), target).mean()

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
    difference = np.asarray(run(exact, tokens).hidden - run(rough, tokens).hidden.astype(jnp.float32))[valid]
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


@pytest.mark.parametrize("kv_heads", [4, 2])
def test_packed_rows_are_read_as_those_with_gaps_are(kv_heads, monkeypatch):
    config = ModelConfig(width=32, layers=2, heads=4, kv_heads=kv_heads, hidden=48, mixing=1)
    model, tokens = make_model(config), ragged_tokens(length=80)

    def loss(model, tokens):
        hidden = model(tokens).hidden
        return jnp.where(tokens.valid[..., None], jnp.sin(hidden), 0).sum(), hidden

    grad = jax.value_and_grad(loss, has_aux=True)
    (plain, hidden), gradient = jax.jit(lambda *a: grad(*a))(model, tokens)
    monkeypatch.setattr(transformer, "flash_runs", lambda *_: True)
    monkeypatch.setattr(attention, "FLASH", "xla")  # the same mathematics without cuDNN
    (packed, packed_hidden), packed_gradient = jax.jit(lambda *a: grad(*a))(model, tokens)
    valid = np.asarray(tokens.valid)
    np.testing.assert_allclose(packed_hidden[valid], hidden[valid], atol=2e-5)
    chex.assert_trees_all_close(packed_gradient, gradient, atol=2e-4)


@pytest.mark.skipif(jax.default_backend() != "gpu", reason="cuDNN's flash attention needs a GPU")
@pytest.mark.parametrize(("heads", "kv_heads", "width"), [(4, 4, 64), (8, 2, 128)])
def test_flash_attention_reads_what_the_other_kernel_reads(heads, kv_heads, width, monkeypatch):
    config = ModelConfig(
        width=256, layers=2, heads=heads, kv_heads=kv_heads, hidden=128, head_width=width, dtype="bfloat16"
    )
    assert attention.flash_runs("bfloat16", heads, kv_heads, width)
    model, tokens = make_model(config), ragged_tokens(length=200)

    def loss(model, tokens):
        hidden = model(tokens).hidden.astype(jnp.float32)
        return jnp.where(tokens.valid[..., None], jnp.sin(hidden), 0).sum(), hidden

    grad = jax.value_and_grad(loss, has_aux=True)
    (_, flash), flash_gradient = jax.jit(lambda *a: grad(*a))(model, tokens)
    monkeypatch.setattr(transformer, "flash_runs", lambda *_: False)
    (_, plain), gradient = jax.jit(lambda *a: grad(*a))(model, tokens)
    valid = np.asarray(tokens.valid)
    assert np.abs(flash - plain)[valid].mean() < 0.02 * np.abs(plain)[valid].mean()
    for a, b in zip(jax.tree.leaves(flash_gradient), jax.tree.leaves(gradient)):
        assert optax.tree.norm(a - b) < 0.05 * optax.tree.norm(b) + 1e-3


@pytest.mark.parametrize("mlp", ["gated", "squared_relu"])
def test_operations_are_those_that_the_compiler_counts(mlp):
    config = ModelConfig(width=64, layers=2, heads=4, kv_heads=2, hidden=96, mlp=mlp, mixing=1)
    model, length = make_model(config), 60  # one block of attention, which computes the masked half too
    tokens = jax.tree.map(lambda x: x[:1], ragged_tokens(length=length))
    counted = jax.jit(lambda model, tokens: model(tokens).hidden).lower(model, tokens).cost_analysis()["flops"]
    masked = 2 * config.layers * config.heads * config.head_width * length
    embedding = 2 * VOCABULARY * config.width
    forward = training_flops(config, length) / 3 + masked + embedding
    assert counted == pytest.approx(length * forward, rel=0.1)  # norms and such are in the compiler's count alone
