"""Devices as a mesh of axes `data` (rows of a batch) and `model` (columns of weights); one device is a mesh of one.

In a run of several processes (`icdm.processes`) the mesh has the devices of all of them. Each process then holds a part
of an array, and computes what it places there itself, from the same random numbers as the others.
"""

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


def placed(leaf: Any, sharding: NamedSharding) -> jax.Array:
    """An array where `sharding` says; of one that every process has whole, each takes its part."""
    is_whole = not isinstance(leaf, jax.Array) or leaf.is_fully_addressable
    if sharding.is_fully_addressable or not is_whole:
        return jax.device_put(leaf, sharding)
    return jax.make_array_from_process_local_data(sharding, leaf, leaf.shape)


def place_copies(mesh: Mesh, tree: Any):
    """A copy on every device."""
    return jax.tree.map(lambda leaf: placed(leaf, NamedSharding(mesh, P())), tree)


def row_sharding(mesh: Mesh, rows: int) -> NamedSharding:
    """Where arrays with so many rows belong: split over `data`, or on every device if `data` does not divide them."""
    return NamedSharding(mesh, P("data") if rows % mesh.shape["data"] == 0 else P())


def place_rows(mesh: Mesh, tree: Any, rows: int):
    """A tree whose leaves have an axis of rows first, where `row_sharding` says."""
    return jax.tree.map(lambda leaf: placed(leaf, row_sharding(mesh, rows)), tree)


def own_rows(mesh: Mesh, rows: int) -> np.ndarray:
    """The numbers of the rows that devices of this process hold."""
    parts = row_sharding(mesh, rows).addressable_devices_indices_map((rows,)).values()
    return np.unique(np.concatenate([np.arange(rows)[part] for part in parts]))


def join_rows(mesh: Mesh, tree: Any, rows: int):
    """The tree of all rows, of which every process gives its `own_rows`."""
    sharding = row_sharding(mesh, rows)
    if sharding.is_fully_addressable:
        return jax.device_put(tree, sharding)

    def joined(leaf: Any) -> jax.Array:
        return jax.make_array_from_process_local_data(sharding, leaf, (rows, *leaf.shape[1:]))

    return jax.tree.map(joined, tree)


def gathered(x: jax.Array) -> np.ndarray:
    """The whole array on the host, in every process."""
    if x.is_fully_addressable or x.is_fully_replicated:
        return np.asarray(x)
    from jax.experimental import multihost_utils

    return multihost_utils.process_allgather(x, tiled=True)


def rows_stay(x: jax.Array) -> jax.Array:
    """x with its rows split over `data`, if a mesh is set (`jax.sharding.use_abstract_mesh`) that divides them; else x.

    Where weights are split over `data` too, XLA would otherwise send rows around in place of weights.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or x.shape[0] % mesh.shape["data"]:
        return x
    return jax.lax.with_sharding_constraint(x, P("data", *[None] * (x.ndim - 1)))


def everywhere(tree: Any):
    """The tree with a copy on every device, if a mesh is set (`jax.sharding.use_abstract_mesh`); else the tree.

    XLA does not know that rows lie beside what they are looked up in, and would ask all devices at each look-up.
    """
    return tree if jax.sharding.get_abstract_mesh().empty else jax.lax.with_sharding_constraint(tree, P())
