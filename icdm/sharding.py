"""One device is a mesh of one: axes `data` (rows of a batch) and `model` (columns of weights)."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding

from icdm.errors import UserError

P = jax.P


def make_mesh(model_devices: int = 1, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """All devices, or those given, `model_devices` of them for each copy of the model."""
    devices = jax.devices() if devices is None else devices
    n = len(devices)
    if model_devices < 1 or n % model_devices:
        raise UserError(f"mesh_model {model_devices}: give a divisor of the number of devices, {n}")
    shape = n // model_devices, model_devices
    return jax.make_mesh(shape, ("data", "model"), (AxisType.Auto, AxisType.Auto), devices=devices)


def check_rows(mesh: Mesh, name: str, rows: int) -> None:
    if rows % mesh.shape["data"]:
        raise UserError(f"{name} {rows}: give a multiple of the {mesh.shape['data']} devices that share a batch")


def place_copies(mesh: Mesh, tree: Any):
    """A copy on every device."""
    return jax.device_put(tree, NamedSharding(mesh, P()))


def row_shardings(mesh: Mesh, tree: Any, rows: int):
    """Where the arrays of a tree belong: those whose first axis has `rows` entries are split over `data`, others are
    copied everywhere."""

    def sharding(leaf: Any):
        by_row = np.ndim(leaf) > 0 and leaf.shape[0] == rows and rows % mesh.shape["data"] == 0
        return NamedSharding(mesh, P("data") if by_row else P())

    return jax.tree.map(sharding, tree)


def place_rows(mesh: Mesh, tree: Any, rows: int):
    """The tree where `row_shardings` says."""
    return jax.device_put(tree, row_shardings(mesh, tree, rows))


def rows_stay(x: jax.Array) -> jax.Array:
    """x with its rows split over `data`, if a mesh is set (`jax.set_mesh`) that divides them; else x.

    Where weights are split over `data` too, XLA would otherwise send rows around in place of weights.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or x.shape[0] % mesh.shape["data"]:
        return x
    return jax.lax.with_sharding_constraint(x, P("data", *[None] * (x.ndim - 1)))
