"""Attention: one interface, its kernel chosen here and nowhere else.

B rows, L queries, S keys, N heads, M key-value heads, G = N / M, H width of a head.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from icdm.models.cpu_products import products

BLOCKS = 4  # of queries in training
SHORTEST_IN_BLOCKS = 64  # positions; a shorter sequence is one block


def attend(
    q_BLNH: jax.Array,
    k_BMSH: jax.Array,
    v_BMSH: jax.Array,
    slot_BL: jax.Array,
    cached: bool,
    tap: Callable[[jax.Array], jax.Array] | None = None,
) -> jax.Array:
    """What each query reads from the keys up to its own slot, the heads side by side: (B, L, N H).

    Args:
      slot_BL: the place of each query. A position that is not valid has a slot beyond all others: none reads it, and
        what it reads itself does not matter.
      cached: keys lie at slots 0 to S - 1; else they are those of the queries themselves, at the same slots.
      tap: reads or replaces the weights (B, N, L, S), whose rows sum to 1.
    """
    if not cached and tap is None and slot_BL.shape[1] >= SHORTEST_IN_BLOCKS:
        return _in_blocks(q_BLNH, k_BMSH, v_BMSH, slot_BL)
    key_slot = jnp.arange(k_BMSH.shape[2])[None] if cached else slot_BL
    return _whole(q_BLNH, k_BMSH, v_BMSH, key_slot[:, None] <= slot_BL[:, :, None], tap)


def _whole(
    q_BLNH: jax.Array,
    k_BMSH: jax.Array,
    v_BMSH: jax.Array,
    mask_BLS: jax.Array,
    tap: Callable[[jax.Array], jax.Array] | None = None,
):
    """softmax(q k / sqrt(H)) v, heads in groups that share keys and values; softmax in float32."""
    B, L, N, H = q_BLNH.shape
    M, S = k_BMSH.shape[1:3]
    q_BMRH = q_BLNH.swapaxes(1, 2).reshape(B, M, N // M * L, H) * H**-0.5  # R: group and position
    score_BMRS = products(q_BMRH, k_BMSH.swapaxes(2, 3))
    score_BNLS = score_BMRS.reshape(B, N, L, S).astype(jnp.float32)
    weight_BNLS = jax.nn.softmax(score_BNLS + jnp.where(mask_BLS, 0.0, -1e30)[:, None], axis=-1)
    if tap is not None:
        weight_BNLS = tap(weight_BNLS)
    mixed_BMRH = products(weight_BNLS.astype(v_BMSH.dtype).reshape(B, M, N // M * L, S), v_BMSH)
    return mixed_BMRH.reshape(B, N, L, H).swapaxes(1, 2).reshape(B, L, N * H)


def _in_blocks(q_BLNH: jax.Array, k_BMLH: jax.Array, v_BMLH: jax.Array, slot_BL: jax.Array):
    """Query block by query block, each without the keys that come after it: with 4 blocks, 3/8 of the scores are
    not computed."""
    L = q_BLNH.shape[1]
    size = -(-L // BLOCKS)
    mixed = []
    for start in range(0, L, size):
        block, before = slice(start, min(start + size, L)), slice(0, min(start + size, L))
        mask_BLS = slot_BL[:, None, before] <= slot_BL[:, block, None]
        mixed.append(_whole(q_BLNH[:, block], k_BMLH[:, :, before], v_BMLH[:, :, before], mask_BLS))
    return jnp.concatenate(mixed, 1)


def rotation(position_BL: jax.Array, width: int, base: float) -> tuple[jax.Array, jax.Array] | None:
    """Sine and cosine of each position's angles, (B, L, 1, H/2), for heads of that width; None for base 0.

    The barrier has them computed once, not again for every head of every layer.
    """
    if base == 0:
        return None
    frequency = base ** (-2 * jnp.arange(width // 2, dtype=jnp.float32) / width)
    angle = position_BL[:, :, None, None] * frequency[None, None, None]
    return jax.lax.optimization_barrier((jnp.sin(angle), jnp.cos(angle)))


def rotate(x_BLNH: jax.Array, turn: tuple[jax.Array, jax.Array] | None) -> jax.Array:
    """Rotary positions (Su et al., 2021), split-half convention; without a rotation x is left as it is."""
    if turn is None:
        return x_BLNH
    sin, cos = (part.astype(x_BLNH.dtype) for part in turn)
    a, b = jnp.split(x_BLNH, 2, axis=-1)
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], -1)
