"""Learning from recorded sequences: the labelled action, wherever there is a label."""

import dataclasses

import jax
import jax.numpy as jnp
import optax

from icdm.models.transformer import Transformer
from icdm.trajectories.layouts import NOTHING, Layout, Tokens, encode
from icdm.trajectories.loader import Sequences


def sequence_tokens(layout: Layout, sequences: Sequences) -> Tokens:
    """The tokens of E episodes; places without an observation do not exist for the model."""
    tokens = encode(layout, sequences.trajectories)
    present_BL = jnp.repeat(sequences.present, layout.positions, axis=-1).reshape(tokens.valid.shape)
    return dataclasses.replace(tokens, valid=tokens.valid & present_BL)


def label_losses(model: Transformer, layout: Layout, sequences: Sequences, n_actions: int) -> jax.Array:
    """Cross-entropy of the label given all before it, (B, E, T + 1); 0 where there is none."""
    hidden_BLD = model(sequence_tokens(layout, sequences)).hidden
    B, E, U = sequences.label.shape
    hidden_BEUD = hidden_BLD.reshape(B, E, U, layout.positions, -1)[..., -1, :]
    start = layout.slices["action"].start
    logits_BEUA = model.logits(hidden_BEUD, slice(start, start + n_actions))
    loss_BEU = optax.softmax_cross_entropy_with_integer_labels(logits_BEUA, jnp.maximum(sequences.label, 0))
    return jnp.where(sequences.label == NOTHING, 0.0, loss_BEU)


def label_loss(model: Transformer, layout: Layout, sequences: Sequences, n_actions: int) -> jax.Array:
    """Mean of `label_losses` over the labels of a batch."""
    count = (sequences.label != NOTHING).sum()
    return label_losses(model, layout, sequences, n_actions).sum() / jnp.maximum(count, 1)
