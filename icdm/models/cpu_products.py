"""Matrix products whose gradients are fast on CPU; on other devices they cost what plain products cost."""

import jax
import jax.numpy as jnp

from icdm.chips import target


@jax.custom_vjp
def linear(x: jax.Array, w: jax.Array) -> jax.Array:
    """x @ w, with a gradient that is fast on CPU: see `transposed_product`."""
    return x @ w


def _linear_backward(saved: tuple[jax.Array, jax.Array], ct: jax.Array):
    x, w = saved
    return ct @ w.T, transposed_product(x.reshape(-1, x.shape[-1]), ct.reshape(-1, ct.shape[-1]))


linear.defvjp(lambda x, w: (x @ w, (x, w)), _linear_backward)


@jax.custom_vjp
def products(x: jax.Array, y: jax.Array) -> jax.Array:
    """x @ y for each of the leading indices, with a gradient that is fast on CPU: see `transposed_product`."""
    return x @ y


def _products_backward(saved: tuple[jax.Array, jax.Array], ct: jax.Array):
    x, y = saved
    return ct @ y.swapaxes(-1, -2), transposed_product(x, ct)


products.defvjp(lambda x, y: (x @ y, (x, y)), _products_backward)


def transposed_product(x: jax.Array, y: jax.Array) -> jax.Array:
    """x^T y over the next to last axis.

    XLA on CPU copies the transpose of the first factor. Autodiff makes that the output's gradient, fused into a
    strided loop with whatever it came from; here it is the narrower of the two, and the barrier keeps it so.
    """
    batch = tuple(range(x.ndim - 2))
    rows = (((x.ndim - 2,), (x.ndim - 2,)), (batch, batch))
    if x.shape[-1] <= y.shape[-1]:
        return jax.lax.dot_general(x, y, rows)
    return jax.lax.optimization_barrier(jax.lax.dot_general(y, x, rows)).swapaxes(-1, -2)


def linears(x: jax.Array, *weights: jax.Array) -> list[jax.Array]:
    """x @ w for several w, as one product, except on TPU: weights that are split over devices do not lie side by side
    once they are put together, and would have to be sent around."""
    if target() == "tpu":
        return [linear(x, w) for w in weights]
    ends = [sum(w.shape[1] for w in weights[: i + 1]) for i in range(len(weights) - 1)]
    return jnp.split(linear(x, jnp.concatenate(weights, axis=1)), ends, axis=-1)
