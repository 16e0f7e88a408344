"""Our GPT: the plain transformer on random tokens, for training speed."""

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from icdm.learning.train import TrainConfig, fresh_state, make_update
from icdm.models.transformer import ModelConfig, Transformer
from icdm.trajectories.layouts.vocabulary import Tokens


def config_of(length: int, width: int, layers: int, heads: int, dtype: str) -> ModelConfig:
    """The shape that `benchmarks.torch_gpt` has too: an MLP of two matrices and four times the width."""
    sizes = dict(width=width, layers=layers, heads=heads, kv_heads=heads, hidden=4 * width)
    return ModelConfig(**sizes, mlp="squared_relu", max_length=length, dtype=dtype)


def training_step(
    vocabulary: int, length: int, width: int, layers: int, heads: int, batch: int, dtype: str = "float32"
):
    """A function that does one step of AdamW on random tokens, and returns its loss without waiting for it."""
    model = Transformer(config_of(length, width, layers, heads, dtype), vocabulary, nnx.Rngs(0))
    training = TrainConfig()

    def loss(model: Transformer, id_BL: jax.Array, key: jax.Array):
        tokens = Tokens(id_BL[..., None], jnp.zeros((*id_BL.shape, 1)), jnp.ones(id_BL.shape, bool))
        inputs = jax.tree.map(lambda x: x[:, :-1], tokens)
        logits = model.logits(model(inputs).hidden)
        return optax.softmax_cross_entropy_with_integer_labels(logits, id_BL[:, 1:]).mean(), id_BL.size

    update = make_update(loss, training.optimizer())
    held = [fresh_state(model, training, jax.random.key(0))]
    tokens = jax.random.randint(jax.random.key(1), (batch, length + 1), 0, vocabulary)

    def step():
        held[0], numbers = update(held[0], None, tokens)
        return numbers[0]

    return step
