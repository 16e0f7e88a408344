"""The two objectives: predict what comes next (pretraining), and act like the oracle (fine-tuning)."""

import jax
import jax.numpy as jnp
import optax

from icdm.errors import UserError, unknown
from icdm.models.transformer import Transformer
from icdm.trajectories.layouts import NOTHING, Layout, Tokens, acting_positions, encode
from icdm.trajectories.rollout import Trajectories

LABELS = ("argmax", "boltzmann", "advantage")


def check_labels(labels: str, temperature: float) -> None:
    if labels not in LABELS:
        raise unknown("labels", labels, LABELS)
    if temperature <= 0:
        raise UserError(f"temperature {temperature}: give a number above 0")


def next_token_loss(model: Transformer, layout: Layout, tokens: Tokens) -> jax.Array:
    """Mean cross-entropy of every component of every position, given the positions before it."""
    hidden_BLD = model(tokens).hidden[:, :-1]
    pair_BL = tokens.valid[:, :-1] & tokens.valid[:, 1:]
    total, count = 0.0, 0
    for part, target_BL in layout.targets(tokens):
        target_BL = target_BL[:, 1:]
        mask_BL = pair_BL & (target_BL != NOTHING)
        loss_BL = optax.softmax_cross_entropy_with_integer_labels(
            model.logits(hidden_BLD, part), jnp.maximum(target_BL, 0)
        )
        total, count = total + jnp.where(mask_BL, loss_BL, 0).sum(), count + mask_BL.sum()
    return total / jnp.maximum(count, 1)


def action_loss(
    model: Transformer, layout: Layout, trajectories: Trajectories, labels: str, temperature: float
) -> jax.Array:
    """Mean loss of the action logits z against the oracle, wherever the model must act.

    argmax:    cross-entropy with the first best action.
    boltzmann: cross-entropy with softmax(Q* / temperature).
    advantage: mean over actions of ((z - mean z) - (Q* - mean Q*) / temperature)^2,
               so that temperature z estimates Q* up to a constant: its minimiser is the posterior mean of
               the centred Q* given the context, whose argmax is the best single decision.
    """
    logits_BETA = action_logits(model, layout, trajectories)
    q_BETA = trajectories.q
    if labels == "argmax":
        loss_BET = optax.softmax_cross_entropy_with_integer_labels(logits_BETA, jnp.argmax(q_BETA, -1))
    elif labels == "boltzmann":
        loss_BET = optax.softmax_cross_entropy(logits_BETA, jax.nn.softmax(q_BETA / temperature))
    else:
        loss_BET = jnp.square(_centred(logits_BETA) - _centred(q_BETA) / temperature).mean(-1)
    return jnp.where(trajectories.valid, loss_BET, 0).sum() / jnp.maximum(trajectories.valid.sum(), 1)


def action_logits(model: Transformer, layout: Layout, trajectories: Trajectories) -> jax.Array:
    """The model's logits over the problem's actions at every step, (B, E, T, A)."""
    n_actions = trajectories.q.shape[-1]
    start = layout.slices["action"].start
    hidden_BLD = model(encode(layout, trajectories)).hidden
    hidden_BETD = acting_positions(layout, hidden_BLD, trajectories.action.shape[1])
    return model.logits(hidden_BETD, slice(start, start + n_actions))


def _centred(x: jax.Array) -> jax.Array:
    return x - x.mean(-1, keepdims=True)
