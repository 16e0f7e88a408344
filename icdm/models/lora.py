"""Low-rank adapters beside the weights (Hu et al., "LoRA", ICLR 2022).

A weight W of a layer with an adapter (A, B) maps x to x W + s (x A) B with s = alpha / rank. Neither W nor a copy of
it changes while the adapters are trained. X layers.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from icdm.errors import UserError, unknown
from icdm.models.taps import NO_TAPS, Taps
from icdm.models.transformer import MATRICES, Cache, ModelConfig, Output, Transformer
from icdm.trajectories.layouts.vocabulary import Tokens

Adapters = dict[str, dict[str, jax.Array]]


@dataclasses.dataclass(frozen=True)
class LoraConfig:
    """Which weights get an adapter, and of what size.

    Attributes:
      rank: r; 0 trains the weights themselves.
      alpha: the adapter's output is scaled by s = alpha / rank.
      targets: names of weights, of q, k, v, o, gate, up and down; those that a model does not have are left out.
    """

    rank: int = 0
    alpha: float = 16.0
    targets: tuple[str, ...] = MATRICES

    def check(self, phase: str) -> None:
        """Raises UserError, naming the field, for what cannot be used."""
        if self.rank < 0:
            raise UserError(f"{phase}.lora_rank {self.rank}: give at least 1, or 0 to train all weights")
        if not self.alpha > 0:
            raise UserError(f"{phase}.lora_alpha {self.alpha}: give a number above 0")
        for target in self.targets:
            if target not in MATRICES:
                raise unknown(f"weight in {phase}.lora_targets", target, MATRICES)


@functools.partial(jax.tree_util.register_dataclass, data_fields=["base", "adapters"], meta_fields=["scale"])
@dataclasses.dataclass(frozen=True)
class Adapted:
    """A transformer with adapters; it is called as a transformer is.

    Attributes:
      base: the model, whose weights stay as they are.
      adapters: {name of the weight: {"a": (X, in, r), "b": (X, r, out)}}.
      scale: s.
    """

    base: Transformer
    adapters: Adapters
    scale: float

    @property
    def config(self) -> ModelConfig:
        return self.base.config

    def __call__(self, tokens: Tokens, cache: Cache | None = None, taps: Taps = NO_TAPS) -> Output:
        return self.base(tokens, cache, taps, self.adapters, self.scale)

    def logits(self, hidden_BLD: jax.Array, ids: slice | np.ndarray) -> jax.Array:
        return self.base.logits(hidden_BLD, ids)

    def empty_cache(self, rows: int, capacity: int) -> Cache:
        return self.base.empty_cache(rows, capacity)

    def merged(self) -> Transformer:
        """The model with W + s A B in the place of each adapted W."""
        model = jax.tree.map(lambda w: w, self.base)
        for name, weight in model.blocks.matrices().items():
            if name in self.adapters:
                adapter = self.adapters[name]
                weight[...] = weight[...] + self.scale * (adapter["a"] @ adapter["b"])
        return model


def init_adapters(model: Transformer, config: LoraConfig, key: jax.Array) -> Adapters:
    """A ~ N(0, 1 / in) and B = 0 for every target that the model has: at first nothing changes."""
    adapters = {}
    for i, (name, weight) in enumerate(model.blocks.matrices().items()):
        if name in config.targets:
            layers, fan_in, fan_out = weight.shape
            a = fan_in**-0.5 * jax.random.normal(jax.random.fold_in(key, i), (layers, fan_in, config.rank))
            adapters[name] = {"a": a, "b": jnp.zeros((layers, config.rank, fan_out))}
    return adapters


def adapted(model: Transformer, adapters: Adapters, config: LoraConfig) -> Adapted:
    """The model with these adapters."""
    return Adapted(model, adapters, config.alpha / config.rank)
