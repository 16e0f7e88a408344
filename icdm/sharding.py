"""One device is a mesh of one: axes `data` (rows of a batch) and `model` (columns of weights)."""

from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding

from icdm.errors import UserError

P = jax.P


def make_mesh(model_devices: int = 1) -> Mesh:
    """All devices, `model_devices` of them for each copy of the model."""
    n = jax.device_count()
    if model_devices < 1 or n % model_devices:
        raise UserError(f"mesh_model {model_devices}: give a divisor of the number of devices, {n}")
    return jax.make_mesh((n // model_devices, model_devices), ("data", "model"), (AxisType.Auto, AxisType.Auto))


def check_rows(mesh: Mesh, name: str, rows: int) -> None:
    if rows % mesh.shape["data"]:
        raise UserError(f"{name} {rows}: give a multiple of the {mesh.shape['data']} devices that share a batch")


def place_state(mesh: Mesh, state: Any):
    """Weights and optimizer moments split over `model` along their last axis where it divides evenly."""

    def sharding(leaf: Any):
        shape = np.shape(leaf)
        split = len(shape) >= 2 and shape[-1] % mesh.shape["model"] == 0
        return NamedSharding(mesh, P(*[None] * (len(shape) - 1), "model") if split else P())

    return jax.device_put(state, jax.tree.map(sharding, state))


def place_copies(mesh: Mesh, tree: Any):
    """A copy on every device."""
    return jax.device_put(tree, NamedSharding(mesh, P()))


def place_rows(mesh: Mesh, tree: Any, rows: int):
    """Arrays whose first axis has `rows` entries are split over `data`, others are copied everywhere."""

    def sharding(leaf: Any):
        by_row = np.ndim(leaf) > 0 and leaf.shape[0] == rows and rows % mesh.shape["data"] == 0
        return NamedSharding(mesh, P("data") if by_row else P())

    return jax.device_put(tree, jax.tree.map(sharding, tree))
