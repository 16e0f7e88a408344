"""Low-rank adapters (Hu et al., 2022): W + (scale / r) A B for every weight matrix of the layers."""

import jax
import jax.numpy as jnp

from icdm.models.transformer import Transformer

SCALE = 16.0


def init_lora(model: Transformer, rank: int, key: jax.Array) -> dict[str, dict[str, jax.Array]]:
    """Adapters {path: {"a": (X, in, r), "b": (X, r, out)}} with b = 0: at first nothing changes."""
    adapters = {}
    for i, (path, weight) in enumerate(_matrices(model)):
        layers, fan_in, fan_out = weight.shape
        a = fan_in**-0.5 * jax.random.normal(jax.random.fold_in(key, i), (layers, fan_in, rank))
        adapters[path] = {"a": a, "b": jnp.zeros((layers, rank, fan_out))}
    return adapters


def merge_lora(model: Transformer, adapters: dict[str, dict[str, jax.Array]]) -> Transformer:
    """The model with its adapters added to its weights."""

    def merged(path, weight):
        adapter = adapters.get(jax.tree_util.keystr(path))
        if adapter is None:
            return weight
        return weight + SCALE / adapter["a"].shape[-1] * (adapter["a"] @ adapter["b"])

    return jax.tree_util.tree_map_with_path(merged, model)


def _matrices(model):
    """The stacked weight matrices of the layers, (path, (X, in, out))."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(model):
        name = jax.tree_util.keystr(path)
        if leaf.ndim == 3 and "blocks" in name:
            yield name, leaf
