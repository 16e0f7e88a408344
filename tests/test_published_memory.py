"""The memory of the paper's own run, computed from shapes, and the formula against what XLA reserves."""

import jax
import jax.numpy as jnp
import optax
import pytest

from icdm.learning.train import TrainState, make_update
from icdm.models.lora import LoraConfig, init_factors
from icdm.models.transformer import ModelConfig, Transformer
from icdm.published.memory import LLAMA_2_7B, LLAMA_2_WORDS, adapter_training_bytes
from icdm.trajectories.layouts.vocabulary import Tokens


def test_the_papers_run_fits_one_device_of_80_gb():
    """Rank 64, alpha 64, dropout 0.1, all projections; 1,284 tokens a row at horizon 15, all of them scored."""
    lora = LoraConfig(rank=64, alpha=64.0, dropout=0.1)
    parts = adapter_training_bytes(LLAMA_2_7B, LLAMA_2_WORDS, lora, rows=8, length=1284, scored=1284)
    assert parts["weights"] == 2 * 6_738_415_616  # what Llama 2 7B has, by its publishers
    assert parts["adapters"] == 4 * 159_907_840  # what peft prints for rank 64
    assert parts["moments"] == 2 * parts["gradients"] == 2 * parts["adapters"]
    assert 25e9 < sum(parts.values()) < 35e9
    larger = adapter_training_bytes(LLAMA_2_7B, LLAMA_2_WORDS, lora, rows=32, length=1284, scored=1284)
    assert sum(larger.values()) < 80e9


@pytest.mark.slow
def test_the_formula_is_near_what_xla_reserves():
    config = ModelConfig(width=256, layers=12, heads=4, kv_heads=2, hidden=688, max_length=256, remat=True)
    lora = LoraConfig(rank=8, alpha=8.0, dropout=0.1)
    optimizer = optax.adamw(1e-3)

    def loss(model, tokens, key):
        logits = model.logits(model(tokens).hidden)
        return optax.softmax_cross_entropy_with_integer_labels(logits, tokens.id[..., 0]).mean(), 1

    def state(model):
        factors = init_factors(model, lora, jax.random.key(0))
        return TrainState(factors, optimizer.init(factors), jnp.int32(0), jax.random.key_data(jax.random.key(0)))

    model = Transformer.described(config, 1000, numbers=0)
    shape = jax.ShapeDtypeStruct
    tokens = Tokens(shape((4, 256, 1), jnp.int32), shape((4, 256, 0), jnp.float32), shape((4, 256), jnp.bool_))
    update = make_update(loss, optimizer, lora).lower(jax.eval_shape(state, model), model, tokens)
    reserved = update.compile().memory_analysis()
    parts = adapter_training_bytes(config, 1000, lora, rows=4, length=256, scored=256)
    kept = parts.pop("weights") + parts.pop("adapters") + parts.pop("moments")
    assert reserved.argument_size_in_bytes == pytest.approx(kept, rel=0.01)
    assert reserved.temp_size_in_bytes == pytest.approx(sum(parts.values()), rel=0.2)
