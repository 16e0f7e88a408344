"""A decoder-only transformer: pre-norm, RMSNorm, rotary positions, grouped-query attention, KV cache.

Axis letters: B rows, L positions of the input, S slots of the keys (L without a cache, the cache's
capacity with one), D width, N heads, M key-value heads, G = N / M, H width of a head, F hidden, V
vocabulary, X layers. The weights of a layer are stacked along a leading axis X; their names and the
split-half rotary convention are those of Llama and Qwen checkpoints.
"""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from icdm.errors import UserError, unknown
from icdm.trajectories.layouts import Tokens

nnx.set_graph_mode(False)  # modules are plain pytrees
nnx.set_graph_updates(False)

MLPS = ("gated", "squared_relu")
DTYPES = ("float32", "bfloat16")
BLOCKS = 4  # of queries in training
SHORTEST_IN_BLOCKS = 64  # positions; a shorter sequence is one block


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """Shape of the transformer.

    Attributes:
      width, layers, heads, hidden: D, X, N, F.
      kv_heads: M, a divisor of heads.
      mlp: "gated" (SiLU) or "squared_relu".
      mixing: how many positions before it are mixed into each position's embedding by learned linear
        maps; 0 switches it off.
      rotary_base: wavelength base of the rotary positions; 0 leaves attention blind to order.
      max_length: the longest input, in positions.
      dtype: of the computation; weights are float32.
    """

    width: int = 64
    layers: int = 4
    heads: int = 4
    kv_heads: int = 4
    hidden: int = 128
    mlp: str = "gated"
    mixing: int = 0
    rotary_base: float = 10_000.0
    max_length: int = 1024
    dtype: str = "float32"

    def __post_init__(self):
        if min(self.width, self.layers, self.heads, self.kv_heads, self.hidden, self.max_length) < 1 or self.mixing < 0:
            raise UserError(f"model sizes must be at least 1 (mixing 0): {self}")
        if self.width % (2 * self.heads):
            raise UserError(f"model.width {self.width}: give a multiple of twice model.heads = {2 * self.heads}")
        if self.heads % self.kv_heads:
            raise UserError(f"model.kv_heads {self.kv_heads}: give a divisor of model.heads = {self.heads}")
        if self.mlp not in MLPS:
            raise unknown("model.mlp", self.mlp, MLPS)
        if self.dtype not in DTYPES:
            raise unknown("model.dtype", self.dtype, DTYPES)

    @property
    def head_width(self) -> int:
        return self.width // self.heads


class Cache(NamedTuple):
    """Keys and values of what each row has read; rows may be at different positions.

    k, v: a (B, M, S, H) array of each layer; embedding: (B, S, D), for mixing; length: (B,) positions
    read so far.
    """

    k: tuple[jax.Array, ...]
    v: tuple[jax.Array, ...]
    embedding: jax.Array
    length: jax.Array


class Output(NamedTuple):
    """hidden: (B, L, D) after the last norm; cache: the new one, or None; readings: see `__call__`."""

    hidden: jax.Array
    cache: Cache | None
    readings: dict[str, jax.Array] | None


class Block(nnx.Module):
    """One layer's weights."""

    def __init__(self, c: ModelConfig, rngs: nnx.Rngs):
        def weight(fan_in, *shape):
            return nnx.Param(fan_in**-0.5 * jax.random.normal(rngs.params(), shape))

        heads, kv_heads, depth = c.heads * c.head_width, c.kv_heads * c.head_width, (2 * c.layers) ** 0.5
        self.attention_norm = nnx.Param(jnp.ones(c.width))
        self.q = weight(c.width, c.width, heads)
        self.k = weight(c.width, c.width, kv_heads)
        self.v = weight(c.width, c.width, kv_heads)
        self.o = weight(heads * depth**2, heads, c.width)
        self.mlp_norm = nnx.Param(jnp.ones(c.width))
        if c.mlp == "gated":
            self.gate = weight(c.width, c.width, c.hidden)
        self.up = weight(c.width, c.width, c.hidden)
        self.down = weight(c.hidden * depth**2, c.hidden, c.width)

    def mlp(self, x_BLD):
        if hasattr(self, "gate"):
            gate_BLF, up_BLF = linears(x_BLD, self.gate[...], self.up[...])
            hidden_BLF = jax.nn.silu(gate_BLF) * up_BLF
        else:
            hidden_BLF = jnp.square(jax.nn.relu(linear(x_BLD, self.up[...])))
        return linear(hidden_BLF, self.down[...])


class Transformer(nnx.Module):
    """Reads Tokens, gives hidden states; `logits` turns them into scores over the vocabulary."""

    def __init__(self, config: ModelConfig, vocabulary: int, rngs: nnx.Rngs):
        c = config
        self.config = c
        self.embed = nnx.Param(jax.random.normal(rngs.params(), (vocabulary, c.width)))
        self.number = nnx.Param(jax.random.normal(rngs.params(), (c.width,)))
        if c.mixing:
            self.mixing = nnx.Param(jnp.zeros((c.mixing, c.width, c.width)))
        self.blocks = nnx.vmap(lambda r: Block(c, r))(rngs.split(c.layers))
        self.norm = nnx.Param(jnp.ones(c.width))
        self.unembed = nnx.Param(c.width**-0.5 * jax.random.normal(rngs.params(), (c.width, vocabulary)))

    def __call__(self, tokens: Tokens, cache: Cache | None = None, read: bool = False) -> Output:
        """Hidden states of every position, each of which attends to the valid ones up to itself.

        With a cache the tokens are appended to what each row has read before; tokens that are not
        valid leave no trace. With `read`, the readings hold `attention` (X, B, N, L, S), whose rows
        sum to 1, and `residual` (X + 1, B, L, D), the stream before each layer and after the last.
        """
        dtype = jnp.dtype(self.config.dtype)
        model = jax.tree.map(lambda w: w.astype(dtype), self)
        start_B1 = 0 if cache is None else cache.length[:, None]
        capacity = tokens.valid.shape[1] if cache is None else cache.k[0].shape[2]
        # A position is how many valid ones came before; the others get a slot that does not exist.
        slot_BL = jnp.where(tokens.valid, start_B1 + jnp.cumsum(tokens.valid, 1) - 1, capacity)
        x_BLD = model._embed(tokens).astype(dtype)
        x_BLD, embedding = model._mix(x_BLD, slot_BL, cache)
        turn = rotation(slot_BL, self.config.head_width, self.config.rotary_base)
        memories, streams, attentions = [], [x_BLD], []
        for i in range(self.config.layers):
            block = jax.tree.map(lambda w: w[i], model.blocks)
            memory = None if cache is None else (cache.k[i], cache.v[i])
            x_BLD, memory, attention = model._layer(x_BLD, slot_BL, turn, memory, block)
            memories, streams, attentions = memories + [memory], streams + [x_BLD], attentions + [attention]
        if cache is not None:
            length = cache.length + tokens.valid.sum(1, dtype=cache.length.dtype)
            cache = Cache(*map(tuple, zip(*memories)), embedding, length)
        readings = {"residual": jnp.stack(streams), "attention": jnp.stack(attentions)} if read else None
        return Output(rms_norm(x_BLD, model.norm[...]), cache, readings)

    def logits(self, hidden_BLD: jax.Array, part: slice = slice(None)) -> jax.Array:
        """Scores over (a part of) the vocabulary, float32."""
        unembed_DV = self.unembed[...][:, part].astype(hidden_BLD.dtype)
        return linear(hidden_BLD, unembed_DV).astype(jnp.float32)

    def empty_cache(self, rows: int, capacity: int) -> Cache:
        c = self.config
        dtype = jnp.dtype(c.dtype)
        kv = tuple(jnp.zeros((rows, c.kv_heads, capacity, c.head_width), dtype) for _ in range(c.layers))
        embedding = jnp.zeros((rows, capacity if c.mixing else 0, c.width), dtype)
        return Cache(kv, kv, embedding, jnp.zeros(rows, jnp.int32))

    def _embed(self, tokens):
        table_VD = self.embed[...]
        one_hot = functools.partial(jax.nn.one_hot, num_classes=table_VD.shape[0], dtype=table_VD.dtype)
        if table_VD.shape[0] <= 256:  # a product is faster than a gather and its scattering gradient
            x_BLD = linear(one_hot(tokens.id).sum(-2), table_VD)
        else:
            found_BLCD = table_VD.at[tokens.id].get(mode="clip")
            x_BLD = jnp.where(tokens.id[..., None] >= 0, found_BLCD, 0).sum(-2)
        return x_BLD + tokens.number[..., None].astype(table_VD.dtype) * self.number[...][None, None]

    def _mix(self, x_BLD, slot_BL, cache):
        """Adds learned linear maps of the embeddings one, two, ... positions before."""
        if not self.config.mixing:
            return x_BLD, None if cache is None else cache.embedding
        row_B1 = jnp.arange(x_BLD.shape[0])[:, None]
        history_BSD = jnp.zeros_like(x_BLD) if cache is None else cache.embedding
        history_BSD = history_BSD.at[row_B1, slot_BL].set(x_BLD, mode="drop")
        for back in range(1, self.config.mixing + 1):
            before_BLD = history_BSD.at[row_B1, jnp.maximum(slot_BL - back, 0)].get(mode="clip")
            before_BLD = jnp.where((slot_BL >= back)[..., None], before_BLD, 0)
            x_BLD = x_BLD + linear(before_BLD, self.mixing[...][back - 1])
        return x_BLD, history_BSD

    def _layer(self, x_BLD, slot_BL, turn, memory, block):
        c = self.config
        h_BLD = rms_norm(x_BLD, block.attention_norm[...])
        q_BLE, k_BLE, v_BLE = linears(h_BLD, block.q[...], block.k[...], block.v[...])
        q_BLNH = rotate(_heads(q_BLE, c.heads), turn)
        k_BLMH = rotate(_heads(k_BLE, c.kv_heads), turn)
        v_BLMH = _heads(v_BLE, c.kv_heads)
        if memory is None:
            k_BMSH, v_BMSH = k_BLMH.swapaxes(1, 2), v_BLMH.swapaxes(1, 2)
            mixed_BLE, attention_BNLS = attend_in_blocks(q_BLNH, k_BMSH, v_BMSH, slot_BL)
        else:
            row_B1 = jnp.arange(x_BLD.shape[0])[:, None]
            k_BMSH = memory[0].at[row_B1, :, slot_BL].set(k_BLMH, mode="drop")
            v_BMSH = memory[1].at[row_B1, :, slot_BL].set(v_BLMH, mode="drop")
            mask_BLS = jnp.arange(k_BMSH.shape[2])[None, None] <= slot_BL[:, :, None]
            mixed_BLE, attention_BNLS = attend(q_BLNH, k_BMSH, v_BMSH, mask_BLS)
            memory = (k_BMSH, v_BMSH)
        x_BLD = x_BLD + linear(mixed_BLE, block.o[...])
        x_BLD = x_BLD + block.mlp(rms_norm(x_BLD, block.mlp_norm[...]))
        return x_BLD, memory, attention_BNLS


def attend(q_BLNH, k_BMSH, v_BMSH, mask_BLS):
    """softmax(q k / sqrt(H)) v, heads in groups that share keys and values; softmax in float32.

    Returns the heads' values side by side, (B, L, N H), and the attention, (B, N, L, S).
    """
    B, L, N, H = q_BLNH.shape
    M, S = k_BMSH.shape[1:3]
    q_BMRH = q_BLNH.swapaxes(1, 2).reshape(B, M, N // M * L, H) * H**-0.5  # R: group and position
    score_BMRS = products(q_BMRH, k_BMSH.swapaxes(2, 3))
    score_BNLS = score_BMRS.reshape(B, N, L, S).astype(jnp.float32)
    attention_BNLS = jax.nn.softmax(score_BNLS + jnp.where(mask_BLS, 0.0, -1e30)[:, None], axis=-1)
    mixed_BMRH = products(attention_BNLS.astype(v_BMSH.dtype).reshape(B, M, N // M * L, S), v_BMSH)
    return mixed_BMRH.reshape(B, N, L, H).swapaxes(1, 2).reshape(B, L, N * H), attention_BNLS


def attend_in_blocks(q_BLNH, k_BMLH, v_BMLH, slot_BL):
    """`attend` of a sequence to itself, query block by query block, each without the keys that come after it.

    With 4 blocks, 3/8 of the scores are not computed. A position that is not valid has a slot beyond all
    others: none reads it, and what it reads itself does not matter.
    """
    L = q_BLNH.shape[1]
    size = -(-L // BLOCKS) if L >= SHORTEST_IN_BLOCKS else L
    mixed, attention = [], []
    for start in range(0, L, size):
        block, before = slice(start, min(start + size, L)), slice(0, min(start + size, L))
        mask_BLS = slot_BL[:, None, before] <= slot_BL[:, block, None]
        mixed_BLE, attention_BNLS = attend(q_BLNH[:, block], k_BMLH[:, :, before], v_BMLH[:, :, before], mask_BLS)
        after = ((0, 0), (0, 0), (0, 0), (0, L - before.stop))
        mixed, attention = mixed + [mixed_BLE], attention + [jnp.pad(attention_BNLS, after)]
    return jnp.concatenate(mixed, 1), jnp.concatenate(attention, 2)


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


def rms_norm(x_BLD: jax.Array, scale_D: jax.Array, epsilon: float = 1e-6) -> jax.Array:
    """x / sqrt(mean(x^2) + epsilon) * scale, computed in float32."""
    x = x_BLD.astype(jnp.float32)
    x = x * jax.lax.rsqrt(jnp.mean(jnp.square(x), -1, keepdims=True) + epsilon)
    return x.astype(x_BLD.dtype) * scale_D[None, None]


@jax.custom_vjp
def linear(x: jax.Array, w: jax.Array) -> jax.Array:
    """x @ w, with a gradient that is fast on CPU: see `transposed_product`."""
    return x @ w


def _linear_backward(saved, ct):
    x, w = saved
    return ct @ w.T, transposed_product(x.reshape(-1, x.shape[-1]), ct.reshape(-1, ct.shape[-1]))


linear.defvjp(lambda x, w: (x @ w, (x, w)), _linear_backward)


@jax.custom_vjp
def products(x: jax.Array, y: jax.Array) -> jax.Array:
    """x @ y for each of the leading indices, with a gradient that is fast on CPU: see `transposed_product`."""
    return x @ y


def _products_backward(saved, ct):
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
    """x @ w for several w, as one product."""
    ends = [sum(w.shape[1] for w in weights[: i + 1]) for i in range(len(weights) - 1)]
    return jnp.split(linear(x, jnp.concatenate(weights, axis=1)), ends, axis=-1)


def _heads(x_BLE: jax.Array, n: int) -> jax.Array:
    return x_BLE.reshape(*x_BLE.shape[:2], n, -1)
