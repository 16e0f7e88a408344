"""Low-rank adaptation of a transformer: which weights get factors, and the model that has them.

Neither a weight nor a copy of it changes while its factors are trained (`icdm.models.adapters`). X layers.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from icdm.errors import UserError, unknown
from icdm.models.adapters import Adapters, Factors
from icdm.models.taps import NO_TAPS, Taps
from icdm.models.transformer import MATRICES, Cache, ModelConfig, Output, Transformer
from icdm.trajectories.layouts.vocabulary import Tokens


@dataclasses.dataclass(frozen=True)
class LoraConfig:
    """Which weights get factors, and of what size.

    Attributes:
      rank: r; 0 trains the weights themselves.
      alpha: the product of the factors is scaled by s = alpha / rank.
      dropout: the share of inputs that the factors do not read in training.
      targets: names of weights, of q, k, v, o, gate, up and down; those that a model does not have are left out.
    """

    rank: int = 0
    alpha: float = 16.0
    dropout: float = 0.0
    targets: tuple[str, ...] = MATRICES

    def check(self, phase: str) -> None:
        """Raises UserError, naming the field, for what cannot be used."""
        if self.rank < 0:
            raise UserError(f"{phase}.lora_rank {self.rank}: give at least 1, or 0 to train all weights")
        if not self.alpha > 0:
            raise UserError(f"{phase}.lora_alpha {self.alpha}: give a number above 0")
        if not 0 <= self.dropout < 1:
            raise UserError(f"{phase}.lora_dropout {self.dropout}: give a number from 0 to below 1")
        for target in self.targets:
            if target not in MATRICES:
                raise unknown(f"weight in {phase}.lora_targets", target, MATRICES)


@functools.partial(jax.tree_util.register_dataclass, data_fields=["base", "adapters"], meta_fields=[])
@dataclasses.dataclass(frozen=True)
class Adapted:
    """A transformer with adapters; it is called as a transformer is.

    Attributes:
      base: the model, whose weights stay as they are.
    """

    base: Transformer
    adapters: Adapters

    @property
    def config(self) -> ModelConfig:
        return self.base.config

    def __call__(self, tokens: Tokens, cache: Cache | None = None, taps: Taps = NO_TAPS, context: int = 0) -> Output:
        return self.base(tokens, cache, taps, self.adapters, context)

    def normed(self, stream_BLD: jax.Array) -> jax.Array:
        return self.base.normed(stream_BLD)

    def logits(self, hidden_BLD: jax.Array, ids: slice | np.ndarray = slice(None)) -> jax.Array:
        return self.base.logits(hidden_BLD, ids)

    def empty_cache(self, rows: int, capacity: int) -> Cache:
        return self.base.empty_cache(rows, capacity)

    def repeated(self, cache: Cache, rows: int) -> Cache:
        return self.base.repeated(cache, rows)

    def named_weights(self) -> dict[str, jax.Array]:
        """The factors alone, by names such as q.a: the base is found where it came from."""
        return {f"{name}.{part}": x for name, pair in self.adapters.factors.items() for part, x in pair.items()}

    def merged(self) -> Transformer:
        """The model with W + s A B in the place of each W that has factors."""
        model = jax.tree.map(lambda w: w, self.base)
        for name, weight in model.blocks.matrices().items():
            if name in self.adapters.factors:
                pair = self.adapters.factors[name]
                product = self.adapters.scale * (pair["a"] @ pair["b"])
                weight[...] = (weight[...] + product).astype(weight.dtype)
        return model


def init_factors(model: Transformer, config: LoraConfig, key: jax.Array) -> Factors:
    """A ~ N(0, 1 / in) and B = 0 for every target that the model has: at first nothing changes."""
    factors = {}
    for i, (name, weight) in enumerate(model.blocks.matrices().items()):
        if name in config.targets:
            layers, fan_in, fan_out = weight.shape
            a = fan_in**-0.5 * jax.random.normal(jax.random.fold_in(key, i), (layers, fan_in, config.rank))
            factors[name] = {"a": a, "b": jnp.zeros((layers, config.rank, fan_out))}
    return factors


def adapted(model: Transformer, factors: Factors, config: LoraConfig, key: jax.Array | None = None) -> Adapted:
    """The model with these factors; with a key, as it is in training, dropout included."""
    drops = key is not None and config.dropout
    keys = jax.random.split(key, model.config.layers) if drops else None
    return Adapted(model, Adapters(factors, keys, config.alpha / config.rank, config.dropout))
