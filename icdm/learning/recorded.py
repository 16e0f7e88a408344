"""Learning from recorded sequences: the labelled action, wherever there is a label."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax

from icdm.logs.loader import Sequences
from icdm.models.transformer import Transformer
from icdm.trajectories.layouts import NOTHING, Layout, Tokens, encode


def sequence_tokens(layout: Layout, sequences: Sequences) -> Tokens:
    """The tokens of the kept observations, (B, U P); those that are not present do not exist for the model."""
    tokens = encode(layout, sequences.trajectories)
    present_BL = jnp.repeat(sequences.present, layout.positions, axis=-1).reshape(tokens.valid.shape)
    tokens = dataclasses.replace(tokens, valid=tokens.valid & present_BL)
    if sequences.kept is None:
        return tokens
    position = (np.asarray(sequences.kept)[:, None] * layout.positions + np.arange(layout.positions)).ravel()
    return jax.tree.map(lambda x: x[:, position], tokens)


def label_losses(model: Transformer, layout: Layout, sequences: Sequences, n_actions: int) -> jax.Array:
    """Cross-entropy of each kept observation's label given all before it, (B, U); 0 where there is none."""
    label_BU = kept_labels(sequences)
    logits_BUA = label_logits(model, layout, sequences, n_actions)
    loss_BU = optax.softmax_cross_entropy_with_integer_labels(logits_BUA, jnp.maximum(label_BU, 0))
    return jnp.where(label_BU == NOTHING, 0.0, loss_BU)


def label_logits(model: Transformer, layout: Layout, sequences: Sequences, n_actions: int) -> jax.Array:
    """Action logits on each kept observation, (B, U, A)."""
    hidden_BLD = model(sequence_tokens(layout, sequences)).hidden
    hidden_BUD = hidden_BLD.reshape(len(hidden_BLD), -1, layout.positions, hidden_BLD.shape[-1])[..., -1, :]
    start = layout.slices["action"].start
    return model.logits(hidden_BUD, slice(start, start + n_actions))


def kept_labels(sequences: Sequences) -> jax.Array:
    """(B, U) labels of the observations that the model reads."""
    label_BL = sequences.label.reshape(len(sequences.label), -1)
    return label_BL if sequences.kept is None else label_BL[:, np.asarray(sequences.kept)]


def label_loss(model: Transformer, layout: Layout, sequences: Sequences, n_actions: int) -> jax.Array:
    """Mean of `label_losses` over the labels of a batch."""
    count = (kept_labels(sequences) != NOTHING).sum()
    return label_losses(model, layout, sequences, n_actions).sum() / jnp.maximum(count, 1)
