"""The two objectives: predict what comes next (pretraining), and act as the target says (fine-tuning)."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Protocol

import jax
import jax.numpy as jnp
import optax

from icdm.errors import UserError, unknown
from icdm.models.taps import reading
from icdm.models.transformer import Transformer
from icdm.trajectories.layouts import Layout
from icdm.trajectories.prompt import encode, logits_at, side_by_side
from icdm.trajectories.trajectory import NOTHING, Trajectories

ITERATE = 0.3  # weight of the loss after each earlier layer


class Target(Protocol):
    """What the action logits of B rows should be on the first U observations of each of E episodes.

    Attributes:
      counts: (B, E, U) bool, where there is a target.
    """

    counts: jax.Array

    def losses(self, logits_BEUA: jax.Array) -> jax.Array:
        """The loss at each observation, (B, E, U); anything where there is no target."""


@functools.partial(jax.tree_util.register_dataclass, data_fields=["action"], meta_fields=[])
@dataclasses.dataclass(frozen=True)
class Imitation:
    """Cross-entropy with an action, (B, E, U) int32; NOTHING where there is none."""

    action: jax.Array

    @property
    def counts(self) -> jax.Array:
        return self.action != NOTHING

    def losses(self, logits_BEUA: jax.Array) -> jax.Array:
        return optax.softmax_cross_entropy_with_integer_labels(logits_BEUA, jnp.maximum(self.action, 0))


@functools.partial(jax.tree_util.register_dataclass, data_fields=["q", "counts"], meta_fields=["temperature"])
@dataclasses.dataclass(frozen=True)
class Boltzmann:
    """Cross-entropy with softmax(Q* / temperature); q: (B, E, U, A)."""

    q: jax.Array
    counts: jax.Array
    temperature: float

    def losses(self, logits_BEUA: jax.Array) -> jax.Array:
        return optax.softmax_cross_entropy(logits_BEUA, jax.nn.softmax(self.q / self.temperature))


@functools.partial(jax.tree_util.register_dataclass, data_fields=["q", "counts"], meta_fields=["temperature"])
@dataclasses.dataclass(frozen=True)
class Advantage:
    """Mean over actions of ((z - mean z) - (Q* - mean Q*) / temperature)^2; q: (B, E, U, A).

    temperature z then estimates Q* up to a constant: the minimiser is the posterior mean of the centred Q* given the
    context, whose argmax is the best single decision.
    """

    q: jax.Array
    counts: jax.Array
    temperature: float

    def losses(self, logits_BEUA: jax.Array) -> jax.Array:
        return jnp.square(_centred(logits_BEUA) - _centred(self.q) / self.temperature).mean(-1)


@functools.partial(jax.tree_util.register_dataclass, data_fields=["target", "weight"], meta_fields=[])
@dataclasses.dataclass(frozen=True)
class Weighted:
    """The losses of another target, those of each row times its weight, (B,)."""

    target: Target
    weight: jax.Array

    @property
    def counts(self) -> jax.Array:
        return self.target.counts

    def losses(self, logits_BEUA: jax.Array) -> jax.Array:
        return self.weight[:, None, None] * self.target.losses(logits_BEUA)


LABELS = ("argmax", "boltzmann", "advantage", "tokens")


@dataclasses.dataclass(frozen=True)
class LabelConfig:
    """What is made of the oracle's Q-values.

    Attributes:
      labels: argmax (imitation of the first best action), boltzmann or advantage; or tokens: every token is predicted
        from those before it, the recorded actions among them.
      temperature: of boltzmann and advantage, in units of reward.
    """

    labels: str = "boltzmann"
    temperature: float = 0.1

    def check(self) -> None:
        """Raises UserError for labels that there are not, or a temperature that is not above 0."""
        if self.labels not in LABELS:
            raise unknown("labels", self.labels, LABELS)
        if not self.temperature > 0:
            raise UserError(f"temperature {self.temperature}: give a number above 0")


def target_of(config: LabelConfig, trajectories: Trajectories) -> Target | None:
    """The target at every step that took place, from the oracle's Q beside it; None for the tokens themselves."""
    if config.labels == "tokens":
        return None
    if config.labels == "argmax":
        best = jnp.argmax(trajectories.q, -1).astype(jnp.int32)
        return Imitation(jnp.where(trajectories.valid, best, NOTHING))
    kind = {"boltzmann": Boltzmann, "advantage": Advantage}[config.labels]
    return kind(trajectories.q, trajectories.valid, config.temperature)


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=["trajectories", "target", "iterates"], meta_fields=["layout"]
)
@dataclasses.dataclass(frozen=True)
class Lesson:
    """Rows of episodes (B, E, ...), and what should be learned from them; None for the tokens themselves.

    Attributes:
      iterates: what the stream after the first, the second, ... layer should already say.
      layout: how the rows are written; None for the layout of the run.
    """

    trajectories: Trajectories
    target: Target | None
    iterates: tuple[Target, ...] = ()
    layout: Layout | None = None


def next_token_loss(model: Transformer, layout: Layout, lessons: Sequence[Lesson]) -> tuple[jax.Array, jax.Array]:
    """Mean cross-entropy of every component of every position given the positions before it, and how many positions."""
    tokens = side_by_side([encode(layout, lesson.trajectories) for lesson in lessons])
    hidden_BLD = model(tokens).hidden[:, :-1]
    pair_BL = tokens.valid[:, :-1] & tokens.valid[:, 1:]
    total, count = 0.0, 0
    for part, target_BL in layout.targets(tokens):
        target_BL = target_BL[:, 1:]
        mask_BL = pair_BL & (target_BL != NOTHING)
        logits_BLV = model.logits(hidden_BLD, part)
        loss_BL = optax.softmax_cross_entropy_with_integer_labels(logits_BLV, jnp.maximum(target_BL, 0))
        total, count = total + jnp.where(mask_BL, loss_BL, 0).sum(), count + mask_BL.sum()
    return total / jnp.maximum(count, 1), tokens.valid.sum()


def action_loss(model: Transformer, layout: Layout, lessons: Sequence[Lesson]) -> tuple[jax.Array, jax.Array]:
    """Mean loss of the action logits wherever a lesson has a target, and how many positions were read.

    Logits that are read from the stream after an earlier layer, as if it were the last, add ITERATE times their mean
    loss. All lessons have equally many iterates. Every lesson is read on its own, since lessons differ in length.
    """
    total, positions, count = 0.0, 0, 0
    for lesson in lessons:
        prompt = encode(lesson.layout or layout, lesson.trajectories)
        streams, taps = reading(*(f"{i}.out" for i in range(len(lesson.iterates))))
        hidden_BLD = model(prompt.tokens, context=prompt.context, taps=taps).hidden
        read = [(hidden_BLD, lesson.target, 1.0)]
        read += [(model.normed(x_BLD), target, ITERATE) for x_BLD, target in zip(streams.values(), lesson.iterates)]
        for stream_BLD, target, weight in read:
            acting = prompt.acting[:, : target.counts.shape[2]]
            logits_BEUA = logits_at(model, lesson.layout or layout, stream_BLD, acting)
            total = total + weight * jnp.where(target.counts, target.losses(logits_BEUA), 0).sum()
        positions, count = positions + prompt.tokens.valid.sum(), count + lesson.target.counts.sum()
    return total / jnp.maximum(count, 1), positions


def _centred(x: jax.Array) -> jax.Array:
    return x - x.mean(-1, keepdims=True)
