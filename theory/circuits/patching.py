"""Interchange: a model reads one context while some of its positions hold what they hold when it reads another.

Axis letters: N tasks, E episodes, T steps, A actions, L positions, D width.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from icdm.models.taps import reading
from icdm.models.transformer import Transformer
from icdm.trajectories.layouts import Layout
from icdm.trajectories.prompt import encode, logits_at
from icdm.trajectories.trajectory import Trajectories
from theory.circuits.positions import holds, step_of_position
from theory.circuits.trained import in_pieces


def patched_logits(
    layout: Layout, model: Transformer, target: Trajectories, source: Trajectories, place: str, swapped_NET: np.ndarray
) -> np.ndarray:
    """The logits at the query of N rows of `target`, (N, A) float64, where the positions of the `swapped` steps hold
    what they hold in `source` at a place of the stream (`icdm.models.taps`): embed, or {layer}.out."""
    pieces = in_pieces(lambda rows: _patched(layout, place, model, *rows), (target, source, swapped_NET))
    return np.concatenate(pieces).astype(np.float64)[: len(swapped_NET)]


@functools.partial(jax.jit, static_argnums=(0, 1))
def _patched(layout, place, model, target, source, swapped_BET):
    read, theirs = encode(layout, target), encode(layout, source)
    found, taps = reading(place)
    model(theirs.tokens, context=theirs.context, taps=taps)
    swapped_BL = holds(swapped_BET, step_of_position(layout, *swapped_BET.shape[1:]))
    swap = {place: lambda own_BLD: jnp.where(swapped_BL[..., None], found[place], own_BLD)}
    hidden_BLD = model(read.tokens, context=read.context, taps=swap).hidden
    return logits_at(model, layout, hidden_BLD, read.acting)[:, -1, 0]
