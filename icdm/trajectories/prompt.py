"""What a model reads, and where in it the model acts."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from icdm.trajectories.layouts import Layout
from icdm.trajectories.layouts.vocabulary import Tokens
from icdm.trajectories.trajectory import Step, Trajectories


@functools.partial(jax.tree_util.register_dataclass, data_fields=["tokens", "acting"], meta_fields=["context"])
@dataclasses.dataclass(frozen=True)
class Prompt:
    """B rows of E encoded episodes.

    Attributes:
      tokens: (B, L) positions.
      acting: (E, T + 1) int, the position at which the model acts on each observation, the same in all rows: a layout
        gives every append equally many positions. On the last observation nothing is done, but a record may say what
        should have been.
      context: how many positions stand before the last episode.
    """

    tokens: Tokens
    acting: np.ndarray
    context: int

    @property
    def decisions(self) -> "Prompt":
        """The same without the last observations: acting is (E, T), one for every step."""
        return dataclasses.replace(self, acting=self.acting[:, :-1])


def encode(layout: Layout, trajectories: Trajectories) -> Prompt:
    """E episodes of B rows: the layout's opening, then T + 1 appends of P positions for each episode.

    Append t holds the step before it and the observation that the model acts on at step t; the last append closes the
    episode. An append exists if its step before took place.
    """
    rows, n_episodes, n_observations = trajectories.observation.shape[:3]
    before = Step(*map(_delayed, trajectories.steps))
    took_place = _delayed(trajectories.valid).at[..., 0].set(True)
    t = jnp.arange(n_observations)
    tokens = layout.append(t, before, trajectories.observation)
    tokens = dataclasses.replace(tokens, valid=tokens.valid & took_place[..., None])
    tokens = jax.tree.map(
        lambda x: x.reshape(rows, n_episodes * n_observations * layout.positions, *x.shape[4:]), tokens
    )
    opening = opening_of(layout, rows)
    tokens = jax.tree.map(lambda a, b: jnp.concatenate([a, b], axis=1), opening, tokens)
    append = np.arange(n_episodes * n_observations).reshape(n_episodes, n_observations)
    start = opening.valid.shape[1]
    context = start + (n_episodes - 1) * n_observations * layout.positions
    return Prompt(tokens, start + (append + 1) * layout.positions - 1, context)


def opening_of(layout: Layout, rows: int) -> Tokens:
    """What stands before the first episode of each row."""
    id_BLI = jnp.broadcast_to(layout.opening[None], (rows, *layout.opening.shape))
    shape = id_BLI.shape[:2]
    return Tokens(id_BLI, jnp.zeros((*shape, layout.numbers), jnp.float32), jnp.ones(shape, bool))


def encode_going_on(layout: Layout, context: Trajectories | None, own: Trajectories) -> tuple[Tokens, int]:
    """The episodes of a context (B, K, ...), if there is one, and one that is going on (B, 1, ...), up to its last
    observation; and how many positions stand before it."""
    tokens = encode(layout, own).tokens
    if context is None:
        return tokens, 0
    before, opening = encode(layout, context).tokens, len(layout.opening)
    return jax.tree.map(lambda a, b: jnp.concatenate([a, b[:, opening:]], 1), before, tokens), before.valid.shape[1]


def action_logits(model: Any, layout: Layout, prompt: Prompt) -> jax.Array:
    """The only readout: the model's logits over the family's actions wherever the prompt acts, (B, E, T + 1, A)."""
    return logits_at(model, layout, model(prompt.tokens, context=prompt.context).hidden, prompt.acting)


def logits_at(model: Any, layout: Layout, hidden_BLD: jax.Array, acting: np.ndarray) -> jax.Array:
    """`action_logits` of hidden states that are there already."""
    return model.logits(hidden_BLD[:, acting], layout.action_ids)


def side_by_side(prompts: list[Prompt]) -> Tokens:
    """The rows of several prompts as one batch, shorter ones filled with invalid positions."""
    length = max(prompt.tokens.valid.shape[1] for prompt in prompts)

    def fill(x: jax.Array):
        return jnp.pad(x, [(0, 0), (0, length - x.shape[1])] + [(0, 0)] * (x.ndim - 2))

    return jax.tree.map(lambda *rows: jnp.concatenate([fill(x) for x in rows]), *[prompt.tokens for prompt in prompts])


def _delayed(x: jax.Array) -> jax.Array:
    """x (B, E, T ...) moved by one along the axis of steps, which grows by one: entry t becomes that of t - 1."""
    return jnp.pad(x, [(0, 0), (0, 0), (1, 0)] + [(0, 0)] * (x.ndim - 3))
