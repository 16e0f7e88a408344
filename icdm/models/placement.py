"""Which devices hold which part of the weights."""

from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding

from icdm.errors import UserError
from icdm.models.transformer import ModelConfig
from icdm.sharding import placed

P = jax.P

# The axes of the mesh over which the last axes of a weight are split. Heads and hidden units are split over `model`, so
# that each layer sums over its devices twice, after o and after down. Over `data` weights are split on request alone.
AXES = {
    **dict.fromkeys(("q", "k", "v", "gate", "up", "mixing"), ("data", "model")),
    **dict.fromkeys(("o", "down"), ("model", "data")),
    **dict.fromkeys(("q_bias", "k_bias", "v_bias"), ("model",)),
    "embed": (None, "model"),  # a vocabulary is of any size
    "unembed": ("model", None),
}


def check_divides(config: ModelConfig, devices: dict[str, int], fsdp: bool) -> None:
    """Refuses a mesh over which the weights cannot be split.

    Args:
      devices: how many there are along `data` and `model`.
      fsdp: whether weights are split over `data` too.

    Raises:
      UserError: a size of the model that is no multiple of the devices that share it.
    """
    c, n = config, devices["model"]
    sizes = {"heads times head width": c.heads * c.head_width, "hidden": c.hidden, "width": c.width}
    sizes["kv_heads times head width"] = c.kv_heads * c.head_width
    for name, size in sizes.items():
        if size % n:
            raise UserError(f"mesh_model {n} does not divide the model's {name}, {size}: give a divisor of all sizes")
        if fsdp and size % devices["data"]:
            raise UserError(
                f"mesh_fsdp: {devices['data']} devices do not divide the model's {name}, {size}: set it to False"
            )


def weight_sharding(mesh: Mesh, name: str, ndim: int, fsdp: bool = False) -> NamedSharding:
    """Where a weight belongs, or a moment of it: as AXES says of the last part of its name, all else everywhere.

    Args:
      fsdp: fully sharded data parallelism (Rajbhandari et al., 2020): weights are split over `data` too.
    """
    kept = ("data", "model") if fsdp else ("model",)
    axes = [axis if axis in kept else None for axis in AXES.get(name.split(".")[-1], ())]
    return NamedSharding(mesh, P(*[None] * (ndim - len(axes)), *axes))


def state_shardings(mesh: Mesh, state: Any, fsdp: bool = False):
    """Where the arrays of a training state belong."""

    def sharding(path: tuple, leaf: Any):
        name = jax.tree_util.keystr(path, simple=True, separator=".").removesuffix(".value")
        return weight_sharding(mesh, name, leaf.ndim, fsdp)

    return jax.tree_util.tree_map_with_path(sharding, state)


def place_state(mesh: Mesh, state: Any, fsdp: bool = False):
    """The state where `state_shardings` says."""
    return jax.tree.map(placed, state, state_shardings(mesh, state, fsdp))
