"""Independent simulations over all of JAX's devices."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np


def spread(tree):
    """Puts the leading axis of every array across all devices (on one, if it does not divide evenly)."""
    devices = np.array(jax.devices())
    if jax.tree.leaves(tree)[0].shape[0] % len(devices):
        devices = devices[:1]
    rows = jax.sharding.NamedSharding(jax.sharding.Mesh(devices, ("rows",)), jax.sharding.PartitionSpec("rows"))
    return jax.device_put(tree, rows)


def simulate(draw: Callable, key: jax.Array, n_chunks: int, *arguments) -> np.ndarray:
    """`draw(key, *arguments)` for n_chunks keys: in turn on each device, side by side on different ones.

    `draw` is a function of a module (it is compiled once for each shape of its arguments) that returns an
    array; the result has its chunks along the first axis. The numbers do not depend on how many devices
    there are.
    """
    n_devices = len(jax.devices())
    rows = -(-n_chunks // n_devices)
    keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(n_devices * rows))
    chunks = _simulate(draw, spread(keys.reshape(n_devices, rows)), arguments)
    return np.asarray(chunks).reshape(n_devices * rows, *chunks.shape[2:])[:n_chunks]


@functools.partial(jax.jit, static_argnums=0)
def _simulate(draw, keys_DC, arguments):
    return jax.vmap(lambda keys_C: jax.lax.map(lambda key: draw(key, *arguments), keys_C))(keys_DC)
