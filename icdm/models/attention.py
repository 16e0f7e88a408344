"""Attention: one interface, its kernel chosen here and nowhere else.

Axis letters as in docs/axes.md; D is here the width of a head, W counts key-value heads (H is a multiple), Y key slots.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from icdm.chips import target
from icdm.models.cpu_products import products

BLOCKS = 4  # of queries in training
SHORTEST_IN_BLOCKS = 64  # positions; a shorter sequence is one block
FLASH = "cudnn"  # which implementation of JAX's
WIDEST_FLASH = 128  # head that it reads, and a multiple of 8


def attend(
    q_BLHD: jax.Array,
    k_BWYD: jax.Array,
    v_BWYD: jax.Array,
    slot_BL: jax.Array,
    sight_BL: jax.Array,
    cached: bool,
    context: int = 0,
    tap: Callable[[jax.Array], jax.Array] | None = None,
    length_B: jax.Array | None = None,
) -> jax.Array:
    """What each query reads from the keys that it sees, the heads side by side: (B, L, H D).

    Args:
      slot_BL: the place of each query. A position that is not valid has a slot beyond all others: none reads it, and
        what it reads itself does not matter.
      sight_BL: the last slot that each query sees: its own, or the last of a context whose positions see one another.
      cached: keys lie at slots 0 to Y - 1; else they are those of the queries themselves, at the same slots.
      context: how many of the first positions see beyond their own slot, and not beyond these.
      tap: reads or replaces the weights (B, H, L, Y), whose rows sum to 1.
      length_B: how many positions of each row are valid, if these come first, each sees those before it, and cuDNN is
        to compute what they read (`flash_runs`); other positions read 0.
    """
    if length_B is not None:
        return _flash(q_BLHD, k_BWYD.swapaxes(1, 2), v_BWYD.swapaxes(1, 2), length_B)
    if not cached and tap is None and slot_BL.shape[1] >= SHORTEST_IN_BLOCKS:
        return _in_blocks(q_BLHD, k_BWYD, v_BWYD, slot_BL, sight_BL, context)
    key_slot = jnp.arange(k_BWYD.shape[2])[None] if cached else slot_BL
    return _whole(q_BLHD, k_BWYD, v_BWYD, key_slot[:, None] <= sight_BL[:, :, None], tap)


def _whole(
    q_BLHD: jax.Array,
    k_BWYD: jax.Array,
    v_BWYD: jax.Array,
    mask_BLY: jax.Array,
    tap: Callable[[jax.Array], jax.Array] | None = None,
):
    """softmax(q k / sqrt(D)) v, heads in groups that share keys and values; softmax in float32."""
    B, L, H, D = q_BLHD.shape
    W, Y = k_BWYD.shape[1:3]
    q_BWID = q_BLHD.swapaxes(1, 2).reshape(B, W, H // W * L, D) * D**-0.5  # I: head of the group and position
    score_BWIY = products(q_BWID, k_BWYD.swapaxes(2, 3))
    score_BHLY = score_BWIY.reshape(B, H, L, Y).astype(jnp.float32)
    weight_BHLY = jax.nn.softmax(score_BHLY + jnp.where(mask_BLY, 0.0, -1e30)[:, None], axis=-1)
    if tap is not None:
        weight_BHLY = tap(weight_BHLY)
    mixed_BWID = products(weight_BHLY.astype(v_BWYD.dtype).reshape(B, W, H // W * L, Y), v_BWYD)
    return mixed_BWID.reshape(B, H, L, D).swapaxes(1, 2).reshape(B, L, H * D)


def _in_blocks(
    q_BLHD: jax.Array,
    k_BWLD: jax.Array,
    v_BWLD: jax.Array,
    slot_BL: jax.Array,
    sight_BL: jax.Array,
    context: int,
):
    """Query block by query block, each without the keys that come after it: with 4 blocks, 3/8 of the scores are
    not computed. Positions that see one another are one block."""
    L = q_BLHD.shape[1]
    size = max(-(-(L - context) // BLOCKS), SHORTEST_IN_BLOCKS // BLOCKS)
    starts = [*range(0, context, context or 1), *range(context, L, size)]
    mixed = []
    for start, end in zip(starts, [*starts[1:], L]):
        block, before = slice(start, end), slice(0, end)
        mask_BLY = slot_BL[:, None, before] <= sight_BL[:, block, None]
        mixed.append(_whole(q_BLHD[:, block], k_BWLD[:, :, before], v_BWLD[:, :, before], mask_BLY))
    return jnp.concatenate(mixed, 1)


def _flash(q_BLHD: jax.Array, k_BLWD: jax.Array, v_BLWD: jax.Array, length_B: jax.Array):
    """cuDNN's flash attention (Dao, 2023): no (L, L) array of weights is ever written to memory."""
    lengths = dict(query_seq_lengths=length_B, key_value_seq_lengths=length_B)
    mixed_BLHD = jax.nn.dot_product_attention(q_BLHD, k_BLWD, v_BLWD, is_causal=True, implementation=FLASH, **lengths)
    B, L = mixed_BLHD.shape[:2]
    is_valid_BL = jnp.arange(L)[None] < length_B[:, None]  # cuDNN leaves whatever it likes behind the last one
    return jnp.where(is_valid_BL[..., None, None], mixed_BLHD, 0).reshape(B, L, -1)


def flash_runs(dtype: str, heads: int, kv_heads: int, width: int) -> bool:
    """Whether cuDNN's flash attention computes heads of that width, forward and backward, on this machine.

    It is tried once, on a GPU, for bfloat16 and widths that it is made for. If it fails there, one line says so.
    """
    if target() != "gpu" or dtype != "bfloat16" or width % 8 or width > WIDEST_FLASH:
        return False
    return _flash_compiles(heads, kv_heads, width)


@functools.cache
def _flash_compiles(heads: int, kv_heads: int, width: int) -> bool:
    q, k = (jax.ShapeDtypeStruct((1, 128, n, width), jnp.bfloat16) for n in (heads, kv_heads))
    length = jax.ShapeDtypeStruct((1,), jnp.int32)

    def total(*arguments: jax.Array):
        return _flash(*arguments).astype(jnp.float32).sum()

    try:
        jax.jit(jax.grad(total, (0, 1, 2))).lower(q, k, k, length).compile()
    except Exception as error:  # whatever JAX, XLA or cuDNN raise
        reason = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
        print(f"attention: cuDNN's flash attention does not run here, XLA computes it instead ({reason})", flush=True)
        return False
    return True


def rotation(
    position_BL: jax.Array, width: int, base: float, divisors: tuple[float, ...] = ()
) -> tuple[jax.Array, jax.Array] | None:
    """Sine and cosine of each position's angles, (B, L, 1, D/2), for heads of that width; None for base 0.

    The angle of pair i at position p is p base^(-2 i / D) / divisors[i]; () divides by 1. The barrier has the angles
    computed once, not again for every head of every layer.
    """
    if base == 0:
        return None
    frequency = base ** (-2 * jnp.arange(width // 2, dtype=jnp.float32) / width)
    if divisors:
        frequency = frequency / jnp.asarray(divisors, jnp.float32)
    angle = position_BL[:, :, None, None] * frequency[None, None, None]
    return jax.lax.optimization_barrier((jnp.sin(angle), jnp.cos(angle)))


def rotate(x_BLHD: jax.Array, turn: tuple[jax.Array, jax.Array] | None) -> jax.Array:
    """Rotary positions (Su et al., 2021), split-half convention; without a rotation x is left as it is."""
    if turn is None:
        return x_BLHD
    sin, cos = (part.astype(x_BLHD.dtype) for part in turn)
    a, b = jnp.split(x_BLHD, 2, axis=-1)
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], -1)
