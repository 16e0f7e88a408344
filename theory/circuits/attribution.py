"""The logits at the query as a sum over what wrote them: embedding, MLPs, and every head's reading of every position.

With the scale of the final norm held, the logits are linear in the stream, and the stream is a sum:

    l(a) = u_a . g/|x| (x_0 + sum_i MLP_i + sum_{i,h,j} w_{ihj} W_O^{ih} v_{ihj}),

w the attention of the query on position j, v the value there, g the norm's weights, u_a the output vector of action a.

Source: Elhage et al., "A Mathematical Framework for Transformer Circuits" (2021). Axis letters: N tasks, X layers,
H heads, E episodes, T steps, A actions, L positions, D width.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from icdm.models.taps import reading
from icdm.models.transformer import Transformer, rms_norm
from icdm.trajectories.layouts import Layout
from icdm.trajectories.prompt import encode, logits_at
from icdm.trajectories.trajectory import Trajectories
from theory.circuits.positions import by_step, holds, step_of_position
from theory.circuits.trained import in_pieces


class Terms(NamedTuple):
    """The terms of the logits of N rows at the query.

    logits: (N, A), as the model computes them.
    embedding: (N, A). mlp: (N, X, A).
    attention: (N, X, H, E, T, A) what a head reads at the positions that hold a step.
    elsewhere: (N, X, H, A) what it reads at those that hold none: the openings of episodes, the query itself.
    """

    logits: np.ndarray
    embedding: np.ndarray
    mlp: np.ndarray
    attention: np.ndarray
    elsewhere: np.ndarray

    @property
    def total(self) -> np.ndarray:
        """The sum of all terms, (N, A)."""
        heads = self.attention.sum((1, 2, 3, 4), dtype=np.float64) + self.elsewhere.sum((1, 2), dtype=np.float64)
        return self.embedding + self.mlp.sum(1, dtype=np.float64) + heads


def terms(layout: Layout, model: Transformer, episodes: Trajectories) -> Terms:
    """The terms of N rows."""
    n = len(episodes.action)
    pieces = in_pieces(lambda rows: _terms(layout, model, rows), episodes)
    return Terms(*(np.concatenate(each)[:n] for each in zip(*pieces)))


def logits_without(
    layout: Layout, model: Transformer, episodes: Trajectories, head: tuple[int, int], steps_NET: np.ndarray
) -> np.ndarray:
    """The logits at the query of N rows, (N, A) float64, where the output matrix alone does not see what a head reads
    at these steps: the path from there to the logits is cut, later layers go on as before, and the norm is anew."""
    pieces = in_pieces(lambda rows: _without(layout, head, model, *rows), (episodes, steps_NET))
    return np.concatenate(pieces).astype(np.float64)[: len(steps_NET)]


@functools.partial(jax.jit, static_argnums=0)
def _terms(layout: Layout, model: Transformer, episodes: Trajectories) -> Terms:
    layers = range(model.config.layers)
    prompt = encode(layout, episodes).decisions
    query = prompt.acting[-1, 0]
    stream, taps = reading("embed", *(f"{i}.{place}" for i in layers for place in ("attention", "mlp", "out")))
    hidden_BLD = model(prompt.tokens, context=prompt.context, taps=taps).hidden
    last_BD = stream[f"{layers[-1]}.out"][:, query]
    norm_B1 = jax.lax.rsqrt(jnp.square(last_BD).mean(-1, keepdims=True) + model.config.norm_epsilon)
    unembed_DA = model.logits(jnp.eye(model.config.width), layout.action_ids)
    direction_BDA = norm_B1[..., None] * (model.norm[...][:, None] * unembed_DA)[None]

    def read(x_BD: jax.Array) -> jax.Array:
        return jnp.einsum("bd,bda->ba", x_BD, direction_BDA)

    weight_XBHL = jnp.stack([stream[f"{i}.attention"][:, :, query] for i in layers])
    value_XBHLA = [jnp.einsum("blhd,bda->bhla", _written(model, prompt, i), direction_BDA) for i in layers]
    held_XBHLA = weight_XBHL[..., None] * jnp.stack(value_XBHLA)
    step_L = step_of_position(layout, *prompt.acting.shape)
    attention = jnp.moveaxis(by_step(jnp.moveaxis(held_XBHLA, -1, -2), step_L, len(prompt.acting)), -3, -1)
    return Terms(
        logits_at(model, layout, hidden_BLD, prompt.acting)[:, -1, 0],
        read(stream["embed"][:, query]),
        jnp.stack([read(stream[f"{i}.mlp"][:, query]) for i in layers], 1),
        attention.swapaxes(0, 1),
        (held_XBHLA.sum(3) - attention.sum((3, 4))).swapaxes(0, 1),
    )


@functools.partial(jax.jit, static_argnums=(0, 1))
def _without(layout: Layout, head: tuple[int, int], model: Transformer, episodes: Trajectories, steps_BET: jax.Array):
    i, h = head
    prompt = encode(layout, episodes).decisions
    query = prompt.acting[-1, 0]
    found, taps = reading(f"{i}.attention", f"{model.config.layers - 1}.out")
    model(prompt.tokens, context=prompt.context, taps=taps)
    cut_BL = holds(steps_BET, step_of_position(layout, *steps_BET.shape[1:]))
    weight_BL = jnp.where(cut_BL, found[f"{i}.attention"][:, h, query], 0)
    written_BD = jnp.einsum("bl,bld->bd", weight_BL, _written(model, prompt, i)[:, :, h])
    last_BD = found[f"{model.config.layers - 1}.out"][:, query] - written_BD
    hidden_BD = rms_norm(last_BD, model.norm[...], model.config.norm_epsilon)
    return model.logits(hidden_BD, layout.action_ids)


def _written(model: Transformer, prompt, i: int) -> jax.Array:
    """What each head of layer i would write into the stream if it read one position alone, (B, L, H, D)."""
    found, taps = reading(f"{i}.heads")
    # Where every position attends to itself alone, heads hand on the values.
    alone = {f"{i}.attention": lambda weight: jnp.broadcast_to(jnp.eye(weight.shape[-1])[None, None], weight.shape)}
    model(prompt.tokens, context=prompt.context, taps=taps | alone)
    out_HKD = model.blocks.o[...][i].reshape(model.config.heads, model.config.head_width, -1)
    return jnp.einsum("blhk,hkd->blhd", found[f"{i}.heads"], out_HKD)
