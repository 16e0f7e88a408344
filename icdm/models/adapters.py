"""Low-rank factors beside the weights of a transformer's layers (Hu et al., "LoRA", ICLR 2022).

A weight W with factors A (in, r) and B (r, out) maps x to x W + s (drop(x) A) B. X layers.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp

from icdm.models.cpu_products import linear, linears

Factors = dict[str, dict[str, jax.Array]]


@functools.partial(jax.tree_util.register_dataclass, data_fields=["factors", "keys"], meta_fields=["scale", "dropout"])
@dataclasses.dataclass(frozen=True)
class Adapters:
    """Factors of some weights, for all layers or, without the leading axis X, for one.

    Attributes:
      factors: {name of the weight: {"a": (X, in, r), "b": (X, r, out)}}.
      keys: (X,) random keys of the dropout; None leaves every entry of x as it is.
      scale: s.
      dropout: the share of entries of x that A does not read in training; the others are scaled up.
    """

    factors: Factors
    keys: jax.Array | None = None
    scale: float = 1.0
    dropout: float = 0.0

    def project(self, x: jax.Array, weights: dict[str, jax.Array]) -> list[jax.Array]:
        """The product of x with each named weight of one layer, the term of its factors added where there are some.

        What is trained of several weights that read the same x is joined into one product: the weights themselves, or
        the A of their factors. Weights that stay as they are would only be copied by that, and the copies kept for the
        gradient.
        """
        own = [name for name in weights if name in self.factors]
        if not own:
            return linears(x, *weights.values())
        narrow = linears(self._dropped(x, own[0]), *(self.factors[name]["a"] for name in own))
        wide = {name: linear(self.scale * low, self.factors[name]["b"]) for name, low in zip(own, narrow)}
        return [linear(x, w) + wide[name] if name in wide else linear(x, w) for name, w in weights.items()]

    def _dropped(self, x: jax.Array, first: str) -> jax.Array:
        """x with random entries set to 0; `first` names the product, so that each of a layer draws anew."""
        if self.keys is None:
            return x
        key = jax.random.fold_in(self.keys, sorted(self.factors).index(first))
        kept = jax.random.bernoulli(key, 1 - self.dropout, x.shape)
        return jnp.where(kept, x / (1 - self.dropout), 0)


NONE = Adapters({})
