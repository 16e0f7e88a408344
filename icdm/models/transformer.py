"""A decoder-only transformer: pre-norm, RMSNorm, rotary positions, grouped-query attention, KV cache.

The same class holds the small models that are trained from nothing and published ones of the Llama and Qwen kind.

Axis letters as in docs/axes.md; D is the width of the stream or of a head, F counts hidden units, W key-value heads
(H is a multiple), Y key slots: L without a cache, the cache's capacity with one. The weights of a layer are stacked
along a leading axis X; their names and the split-half rotary convention are those of Llama and Qwen checkpoints.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from icdm.chips import target
from icdm.errors import UserError, unknown
from icdm.models.adapters import NONE, Adapters
from icdm.models.attention import attend, flash_runs, rotate, rotation
from icdm.models.cpu_products import linear
from icdm.models.taps import NO_TAPS, Taps, check_places, tapped
from icdm.processes import are_several
from icdm.sharding import rows_stay
from icdm.trajectories.layouts.vocabulary import Tokens

nnx.set_graph_mode(False)  # modules are plain pytrees
nnx.set_graph_updates(False)

MLPS = ("gated", "squared_relu")
DTYPES = ("float32", "bfloat16")
MATRICES = ("q", "k", "v", "o", "gate", "up", "down")  # weights of a layer that are matrices
# Layers; more are a loop, which runs slower, but compiles faster on CPU, and for TPU much faster.
MOST_UNROLLED = {"cpu": 8, "gpu": 64, "tpu": 0}


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """Shape of the transformer.

    Attributes:
      width, layers, heads, hidden: D, X, H, F.
      kv_heads: W, a divisor of heads.
      mlp: "gated" (SiLU) or "squared_relu".
      mixing: how many positions before it are mixed into each position's embedding by learned linear
        maps; 0 switches it off.
      rotary_base: wavelength base of the rotary positions; 0 leaves attention blind to order.
      rotary_divisors: what the frequency of each pair is divided by, (D/2,); () for nothing. Published models stretch
        their positions so.
      tied: whether all layers are one, applied `layers` times over, as loops (Dehghani et al., "Universal
        transformers", 2019); `looped` gives the same model with more or fewer of them. What was read stays in the
        stream throughout.
      prefix: whether the positions of a context attend to one another in both directions, as in a prefix language
        model (Raffel et al., 2020). Values that a layer computes at one transition can then be read at every other.
      max_length: the longest input, in positions.
      dtype: of the computation; weights that are trained are float32.
      remat: whether the backward pass computes a layer's activations again rather than keep them.
      head_width: D of a head; 0 for width / heads.
      biases: whether q, k and v have a bias (Qwen2).
      head_norms: whether q and k of each head are normalised before they are rotated (Qwen3).
      tied_embedding: whether the embedding is the output matrix too.
      norm_epsilon: of RMSNorm.
    """

    width: int = 64
    layers: int = 4
    heads: int = 4
    kv_heads: int = 4
    hidden: int = 128
    mlp: str = "gated"
    mixing: int = 0
    rotary_base: float = 10_000.0
    rotary_divisors: tuple[float, ...] = ()
    tied: bool = False
    prefix: bool = False
    max_length: int = 1024
    dtype: str = "float32"
    remat: bool = False
    head_width: int = 0
    biases: bool = False
    head_norms: bool = False
    tied_embedding: bool = False
    norm_epsilon: float = 1e-6

    def __post_init__(self):
        if min(self.width, self.layers, self.heads, self.kv_heads, self.hidden, self.max_length) < 1 or self.mixing < 0:
            raise UserError(f"model sizes must be at least 1 (mixing 0): {self}")
        if not self.head_width:
            if self.width % (2 * self.heads):
                raise UserError(f"model.width {self.width}: give a multiple of twice model.heads = {2 * self.heads}")
            object.__setattr__(self, "head_width", self.width // self.heads)
        if self.heads % self.kv_heads:
            raise UserError(f"model.kv_heads {self.kv_heads}: give a divisor of model.heads = {self.heads}")
        if self.mlp not in MLPS:
            raise unknown("model.mlp", self.mlp, MLPS)
        if self.dtype not in DTYPES:
            raise unknown("model.dtype", self.dtype, DTYPES)


class Cache(NamedTuple):
    """Keys and values of what each row has read; rows may be at different positions.

    k, v: a (B, W, Y, D) array for each layer, or one (X, B, W, Y, D) array where layers are a loop; embedding:
    (B, Y, D), for mixing; length: (B,) positions read so far.
    """

    k: tuple[jax.Array, ...] | jax.Array
    v: tuple[jax.Array, ...] | jax.Array
    embedding: jax.Array
    length: jax.Array


class Output(NamedTuple):
    """hidden: (B, L, D) after the last norm; cache: the new one, or None."""

    hidden: jax.Array
    cache: Cache | None


class Block(nnx.Module):
    """One layer's weights; all layers' along a leading axis X, which is of length 1 if they are tied."""

    def __init__(self, c: ModelConfig, rngs: nnx.Rngs):
        def weight(fan_in: float, *shape):
            return nnx.Param(fan_in**-0.5 * jax.random.normal(rngs.params(), shape))

        heads, kv_heads, depth = c.heads * c.head_width, c.kv_heads * c.head_width, (2 * c.layers) ** 0.5
        self.attention_norm = nnx.Param(jnp.ones(c.width))
        self.q = weight(c.width, c.width, heads)
        self.k = weight(c.width, c.width, kv_heads)
        self.v = weight(c.width, c.width, kv_heads)
        self.o = weight(heads * depth**2, heads, c.width)
        if c.biases:
            self.q_bias, self.k_bias, self.v_bias = (nnx.Param(jnp.zeros(n)) for n in (heads, kv_heads, kv_heads))
        if c.head_norms:
            self.q_norm, self.k_norm = (nnx.Param(jnp.ones(c.head_width)) for _ in range(2))
        self.mlp_norm = nnx.Param(jnp.ones(c.width))
        if c.mlp == "gated":
            self.gate = weight(c.width, c.width, c.hidden)
        self.up = weight(c.width, c.width, c.hidden)
        self.down = weight(c.hidden * depth**2, c.hidden, c.width)

    def matrices(self) -> dict[str, nnx.Param]:
        """The weights that are matrices, by name."""
        return {name: weight for name, weight in vars(self).items() if name in MATRICES}


class Transformer(nnx.Module):
    """Reads Tokens, gives hidden states; `logits` turns them into scores over the vocabulary.

    Args:
      vocabulary: how many ids there are.
      numbers: R, how many numbers each position holds.
    """

    def __init__(self, config: ModelConfig, vocabulary: int, rngs: nnx.Rngs, numbers: int = 1):
        c = config
        self.config = c
        scale = c.width**-0.5 if c.tied_embedding else 1.0
        self.embed = nnx.Param(scale * jax.random.normal(rngs.params(), (vocabulary, c.width)))
        if numbers:
            self.number = nnx.Param(numbers**-0.5 * jax.random.normal(rngs.params(), (numbers, c.width)))
        if c.mixing:
            self.mixing = nnx.Param(jnp.zeros((c.mixing, c.width, c.width)))
        self.blocks = nnx.vmap(lambda r: Block(c, r))(rngs.split(1 if c.tied else c.layers))
        self.norm = nnx.Param(jnp.ones(c.width))
        if not c.tied_embedding:
            self.unembed = nnx.Param(c.width**-0.5 * jax.random.normal(rngs.params(), (c.width, vocabulary)))

    @classmethod
    def described(cls, config: ModelConfig, vocabulary: int, numbers: int = 1) -> "Transformer":
        """The same with shapes in the place of weights: nothing is drawn, nothing allocated."""
        return jax.eval_shape(lambda: cls(config, vocabulary, nnx.Rngs(0), numbers))

    def with_weights(self, weight: Callable[[str], jax.Array]) -> "Transformer":
        """The model with weight(name) in the place of each weight; the names are those of `named_weights`.

        One of another shape but the same size is taken in the new shape: vectors have become matrices of one row.
        """
        return jax.tree_util.tree_map_with_path(lambda path, old: weight(_name(path)).reshape(old.shape), self)

    def named_weights(self) -> dict[str, jax.Array]:
        """Every weight by its name, such as embed and blocks.q."""
        return {_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(self)}

    def merged(self) -> "Transformer":
        """The model itself: it has no adapters."""
        return self

    def __call__(
        self,
        tokens: Tokens,
        cache: Cache | None = None,
        taps: Taps = NO_TAPS,
        adapters: Adapters = NONE,
        context: int = 0,
    ) -> Output:
        """Hidden states of every position, each of which attends to the valid ones up to itself.

        Args:
          context: how many of the first positions are a context; if the config says `prefix`, each of them attends to
            all valid ones among them.
          cache: the tokens are appended to what each row has read before; those that are not valid leave no trace.
          taps: functions that read or replace activations (`icdm.models.taps`); layers are then not a loop.
          adapters: low-rank factors beside the weights of the layers.

        Raises:
          UserError: a tap at a place that there is not.
        """
        check_places(taps, self.config.layers)
        dtype = jnp.dtype(self.config.dtype)
        model, adapters = _cast((self, adapters), dtype)
        start_B1 = 0 if cache is None else cache.length[:, None]
        capacity = tokens.valid.shape[1] if cache is None else cache.k[0].shape[-2]
        # A position is how many valid ones came before; the others get a slot that does not exist.
        slot_BL = jnp.where(tokens.valid, start_B1 + jnp.cumsum(tokens.valid, 1) - 1, capacity)
        context = context if self.config.prefix else 0
        sight_BL = slot_BL
        if context:
            last_B1 = start_B1 + tokens.valid[:, :context].sum(1, keepdims=True) - 1
            sight_BL = jnp.where(jnp.arange(slot_BL.shape[1])[None] < context, last_B1, slot_BL)
        x_BLD = model._embed(tokens).astype(dtype)
        x_BLD, embedding = model._mix(x_BLD, slot_BL, cache)
        x_BLD = tapped(taps, "embed", x_BLD)
        length_B = None
        c = self.config
        is_causal = cache is None and not taps and not context
        if is_causal and flash_runs(c.dtype, c.heads, c.kv_heads, c.head_width):
            length_B = tokens.valid.sum(1)
            x_BLD, slot_BL, place_BL = _packed(x_BLD, tokens.valid)
            sight_BL = slot_BL
        turn = rotation(slot_BL, self.config.head_width, self.config.rotary_base, self.config.rotary_divisors)
        layer = functools.partial(model._layer, slot_BL, sight_BL, context, turn, length_B)
        blocks = model.blocks
        if c.tied:
            blocks = jax.tree.map(lambda w: jnp.repeat(w, c.layers, 0), blocks)
        weights = blocks, adapters
        if self._is_a_loop and not taps:
            memories = None if cache is None else (cache.k, cache.v)
            scanned = self._again(lambda x, own: layer(x, *own), taps)
            x_BLD, memories = jax.lax.scan(scanned, x_BLD, (*weights, memories))
        else:
            memories = []
            for i, own in enumerate(_of_each_layer(weights, self.config.layers)):
                memory = None if cache is None else (cache.k[i], cache.v[i])
                numbered = self._again(functools.partial(layer, taps=taps, number=i), taps)
                x_BLD, memory = numbered(x_BLD, *own, memory)
                memories.append(memory)
            if cache is not None:
                memories = tuple(map(self._beside, zip(*memories)))
        if cache is not None:
            length = cache.length + tokens.valid.sum(1, dtype=cache.length.dtype)
            cache = Cache(*memories, embedding, length)
        if length_B is not None:
            x_BLD = _permuted(x_BLD, place_BL)
        return Output(model.normed(x_BLD), cache)

    def looped(self, loops: int) -> "Transformer":
        """The same weights, the one layer of a tied model applied so many times; each number is a program of its own.

        Raises:
          UserError: layers are not tied, or there is to be none.
        """
        if not self.config.tied:
            raise UserError(f"{loops} loops: the {self.config.layers} layers have weights of their own (model.tied)")
        model = jax.tree.map(lambda w: w, self)
        model.config = dataclasses.replace(self.config, layers=loops)
        return model

    def normed(self, stream_BLD: jax.Array) -> jax.Array:
        """The stream as the output matrix reads it, after the last layer or, for a probe, after another."""
        return rms_norm(stream_BLD, self.norm[...], self.config.norm_epsilon)

    def logits(self, hidden_BLD: jax.Array, ids: slice | np.ndarray = slice(None)) -> jax.Array:
        """Scores over (a part of) the vocabulary, float32."""
        unembed_DV = self.embed[...][ids].T if self.config.tied_embedding else self.unembed[...][:, ids]
        return linear(hidden_BLD, unembed_DV.astype(hidden_BLD.dtype)).astype(jnp.float32)

    def empty_cache(self, rows: int, capacity: int) -> Cache:
        """A cache with room for so many positions in each row."""
        c = self.config
        dtype = jnp.dtype(c.dtype)
        kv = self._beside([jnp.zeros((rows, c.kv_heads, capacity, c.head_width), dtype)] * c.layers)
        embedding = jnp.zeros((rows, capacity if c.mixing else 0, c.width), dtype)
        return Cache(kv, kv, embedding, jnp.zeros(rows, jnp.int32))

    def repeated(self, cache: Cache, rows: int) -> Cache:
        """The cache of one row in each of so many rows."""
        axis = 1 if self._is_a_loop else 0
        k, v = jax.tree.map(lambda x: jnp.repeat(x, rows, axis), (cache.k, cache.v))
        return Cache(k, v, jnp.repeat(cache.embedding, rows, 0), jnp.repeat(cache.length, rows))

    @property
    def _is_a_loop(self) -> bool:
        if target() == "cpu" and are_several():
            return False  # weights that are split are gathered in the loop: see `icdm.processes`
        # Outside a loop XLA on CPU keeps the activations that it should compute again.
        return self.config.layers > MOST_UNROLLED[target()] or self.config.remat

    def _again(self, layer: Callable, taps: Taps) -> Callable:
        """The layer, its activations computed again in the backward pass if the config says so; taps need them once."""
        return jax.checkpoint(layer) if self.config.remat and not taps else layer

    def _beside(self, arrays: Sequence[jax.Array]):
        """The arrays of all layers as a cache holds them."""
        return jnp.stack(arrays) if self._is_a_loop else tuple(arrays)

    def _embed(self, tokens: Tokens):
        table_VD = self.embed[...]
        one_hot = functools.partial(jax.nn.one_hot, num_classes=table_VD.shape[0], dtype=table_VD.dtype)
        if table_VD.shape[0] <= 256:  # a product is faster than a gather and its scattering gradient
            x_BLD = linear(one_hot(tokens.id).sum(-2), table_VD)
        else:
            embedded_BLID = table_VD.at[tokens.id].get(mode="clip")
            x_BLD = jnp.where(tokens.id[..., None] >= 0, embedded_BLID, 0).sum(-2)
        if not tokens.number.shape[-1]:
            return x_BLD
        return x_BLD + linear(tokens.number.astype(table_VD.dtype), self.number[...])

    def _mix(self, x_BLD: jax.Array, slot_BL: jax.Array, cache: Cache | None):
        """Adds learned linear maps of the embeddings one, two, ... positions before."""
        if not self.config.mixing:
            return x_BLD, None if cache is None else cache.embedding
        row_B1 = jnp.arange(x_BLD.shape[0])[:, None]
        history_BYD = jnp.zeros_like(x_BLD) if cache is None else cache.embedding
        history_BYD = history_BYD.at[row_B1, slot_BL].set(x_BLD, mode="drop")
        for back in range(1, self.config.mixing + 1):
            before_BLD = history_BYD.at[row_B1, jnp.maximum(slot_BL - back, 0)].get(mode="clip")
            before_BLD = jnp.where((slot_BL >= back)[..., None], before_BLD, 0)
            x_BLD = x_BLD + linear(before_BLD, self.mixing[...][back - 1])
        return x_BLD, history_BYD

    def _layer(
        self,
        slot_BL: jax.Array,
        sight_BL: jax.Array,
        context: int,
        turn: tuple[jax.Array, jax.Array] | None,
        length_B: jax.Array | None,
        x_BLD: jax.Array,
        block: Block,
        adapters: Adapters,
        memory: tuple[jax.Array, jax.Array] | None,
        taps: Taps = NO_TAPS,
        number: int = 0,
    ):
        """The stream after a layer, and its keys and values with the new ones in them."""
        c = self.config

        def project(x: jax.Array, **weights):
            return adapters.project(x, weights)

        x_BLD = rows_stay(x_BLD)
        h_BLD = rms_norm(x_BLD, block.attention_norm[...], c.norm_epsilon)
        q_BLD, k_BLD, v_BLD = project(h_BLD, q=block.q[...], k=block.k[...], v=block.v[...])
        if c.biases:
            biases = block.q_bias, block.k_bias, block.v_bias
            q_BLD, k_BLD, v_BLD = (x + bias[...][None, None] for x, bias in zip((q_BLD, k_BLD, v_BLD), biases))
        q_BLHD, k_BLWD, v_BLWD = _heads(q_BLD, c.heads), _heads(k_BLD, c.kv_heads), _heads(v_BLD, c.kv_heads)
        if c.head_norms:
            q_BLHD = rms_norm(q_BLHD, block.q_norm[...], c.norm_epsilon)
            k_BLWD = rms_norm(k_BLWD, block.k_norm[...], c.norm_epsilon)
        q_BLHD, k_BLWD = rotate(q_BLHD, turn), rotate(k_BLWD, turn)
        if memory is None:
            k_BWYD, v_BWYD = k_BLWD.swapaxes(1, 2), v_BLWD.swapaxes(1, 2)
        else:
            row_B1 = jnp.arange(x_BLD.shape[0])[:, None]
            k_BWYD = memory[0].at[row_B1, :, slot_BL].set(k_BLWD, mode="drop")
            v_BWYD = memory[1].at[row_B1, :, slot_BL].set(v_BLWD, mode="drop")
        weights_tap = taps.get(f"{number}.attention")
        mixed_BLD = attend(
            q_BLHD, k_BWYD, v_BWYD, slot_BL, sight_BL, memory is not None, context, weights_tap, length_B
        )
        mixed_BLD = tapped(taps, f"{number}.heads", _heads(mixed_BLD, c.heads)).reshape(mixed_BLD.shape)
        [attended_BLD] = project(mixed_BLD, o=block.o[...])
        x_BLD = x_BLD + attended_BLD
        h_BLD = rms_norm(x_BLD, block.mlp_norm[...], c.norm_epsilon)
        if c.mlp == "gated":
            gate_BLF, up_BLF = project(h_BLD, gate=block.gate[...], up=block.up[...])
            hidden_BLF = jax.nn.silu(gate_BLF) * up_BLF
        else:
            [up_BLF] = project(h_BLD, up=block.up[...])
            hidden_BLF = jnp.square(jax.nn.relu(up_BLF))
        [mlp_BLD] = project(hidden_BLF, down=block.down[...])
        x_BLD = x_BLD + tapped(taps, f"{number}.mlp", mlp_BLD)
        return tapped(taps, f"{number}.out", x_BLD), None if memory is None else (k_BWYD, v_BWYD)


def with_twins(model: Transformer, first: slice, second: slice, key: jax.Array) -> Transformer:
    """The model whose embeddings of the second ids are those of the first, turned by one random rotation.

    Both name the same things. Whatever tells that two positions show the same thing under its two names can then be
    learned from some of the things for all of them: q and k have to undo one rotation, not to match every pair.
    """
    embed_VD = model.embed[...]
    turn_DD = jax.random.orthogonal(key, embed_VD.shape[1])
    turned = {"embed": embed_VD.at[second].set(embed_VD[first] @ turn_DD)}
    named = model.named_weights() | turned
    return model.with_weights(lambda name: named[name])


def rms_norm(x: jax.Array, scale_D: jax.Array, epsilon: float) -> jax.Array:
    """x / sqrt(mean(x^2) + epsilon) * scale over the last axis, computed in float32."""
    y = x.astype(jnp.float32)
    y = y * jax.lax.rsqrt(jnp.mean(jnp.square(y), -1, keepdims=True) + epsilon)
    return y.astype(x.dtype) * scale_D.reshape((1,) * (x.ndim - 1) + (-1,))


def _of_each_layer(weights: Any, n: int) -> list[Any]:
    """The stacked weights of n layers, layer by layer; the gradient puts theirs side by side, as a sum over indices
    would not."""
    leaves, tree = jax.tree.flatten(weights)
    parts = [jax.lax.split(leaf, [1] * n) for leaf in leaves]
    return [jax.tree.unflatten(tree, [part[i][0] for part in parts]) for i in range(n)]


def _packed(x_BLD: jax.Array, valid_BL: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """(the stream with each row's valid positions first, their slots there, where each position has gone)."""
    L = valid_BL.shape[1]
    n_valid_B1 = valid_BL.sum(1, keepdims=True)
    before_BL = jnp.cumsum(valid_BL, 1) - valid_BL
    place_BL = jnp.where(valid_BL, before_BL, n_valid_B1 + jnp.arange(L)[None] - before_BL)
    row_B1 = jnp.arange(x_BLD.shape[0])[:, None]
    order_BL = jnp.zeros_like(place_BL).at[row_B1, place_BL].set(jnp.arange(L)[None], unique_indices=True)
    slot_BL = jnp.where(jnp.arange(L)[None] < n_valid_B1, jnp.arange(L)[None], L)
    return _permuted(x_BLD, order_BL), slot_BL, place_BL


def _permuted(x_BLD: jax.Array, order_BL: jax.Array) -> jax.Array:
    """Each row's positions in another order."""
    row_B1 = jnp.arange(x_BLD.shape[0])[:, None]
    return x_BLD.at[row_B1, order_BL].get(unique_indices=True, mode="promise_in_bounds")


def _heads(x_BLD: jax.Array, n: int) -> jax.Array:
    return x_BLD.reshape(*x_BLD.shape[:2], n, -1)


def _cast(tree: Any, dtype: jnp.dtype) -> Any:
    """The tree with its real numbers in another precision."""
    return jax.tree.map(lambda x: x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x, tree)


def _name(path: tuple) -> str:
    """blocks.q for the leaf .blocks.q.value."""
    return jax.tree_util.keystr(path).removeprefix(".").removesuffix(".value")
