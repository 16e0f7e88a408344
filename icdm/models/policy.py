"""The transformer as a policy: it reads a context into its KV cache and acts from there."""

import dataclasses
import functools

import jax
import jax.numpy as jnp

from icdm.errors import UserError
from icdm.models.transformer import Transformer
from icdm.problems.policy import Carry
from icdm.trajectories.collect import Tasks
from icdm.trajectories.layouts import Layout
from icdm.trajectories.prompt import encode, encode_going_on, opening_of
from icdm.trajectories.trajectory import Step, Trajectories


@functools.partial(jax.tree_util.register_dataclass, data_fields=["model", "context"], meta_fields=["layout"])
@dataclasses.dataclass(frozen=True)
class TransformerPolicy:
    """Acts greedily on the action logits of a transformer that has read a context.

    Attributes:
      model: the transformer.
      context: Trajectories (B, K, ...) of each row's task, or None to act without.
      layout: how trajectories become tokens.
    """

    model: Transformer
    context: Trajectories | None
    layout: Layout

    def init(self, task_B: jax.Array):
        rows = task_B.shape[0]
        own = (self.layout.family_horizon + 1) * self.layout.positions
        before = opening_of(self.layout, 1)
        shared = before.valid.shape[1]
        context = None if self.context is None else encode(self.layout, self.context).tokens
        capacity = own + (shared if context is None else context.valid.shape[1])
        check_length(self.model, capacity)
        cache = self.model.empty_cache(1, capacity)
        if shared:  # the same in all rows, so it is read once
            cache = self.model(before, cache).cache
        cache = self.model.repeated(cache, rows)
        if context is not None:
            read = jax.tree.map(lambda x: x[:, shared:], context)
            cache = self.model(read, cache, context=read.valid.shape[1]).cache
        nothing, unseen = jnp.zeros(rows, jnp.int32), self.layout.shown.nothing(rows)
        return cache, nothing, Step(unseen, nothing, jnp.zeros(rows, jnp.float32), unseen)

    def act(self, carry: Carry, observation_B: jax.Array, key: jax.Array):
        cache, t_B, before = carry
        tokens = self.layout.append(t_B, before._replace(arrival=observation_B), observation_B)
        output = self.model(tokens, cache)
        logits_BA = self.model.logits(output.hidden[:, -1], self.layout.action_ids)
        action_B = jnp.argmax(logits_BA, -1).astype(jnp.int32)
        return action_B, logits_BA, (output.cache, t_B, before._replace(observation=observation_B))

    def logits(self, own: Trajectories) -> jax.Array:
        """What `act` says of the last observation of each row's own episode (B, 1, ...), (B, A), without a cache."""
        tokens, context = encode_going_on(self.layout, self.context, own)
        check_length(self.model, tokens.valid.shape[1])
        hidden_BLD = self.model(tokens, context=context).hidden
        return self.model.logits(hidden_BLD[:, -1], self.layout.action_ids)

    def observe(self, carry: Carry, action_B: jax.Array, reward_B: jax.Array):
        cache, t_B, before = carry
        return cache, t_B + 1, before._replace(action=action_B, reward=reward_B)


@dataclasses.dataclass(frozen=True)
class TransformerReader:
    """A transformer that reads each row's context, and acts from there."""

    model: Transformer
    layout: Layout

    def policy(
        self, tasks: Tasks, task_B: jax.Array, context: Trajectories | None, key: jax.Array
    ) -> TransformerPolicy:
        return TransformerPolicy(self.model, context, self.layout)


def check_length(model: Transformer, positions: int) -> None:
    """Refuses an input that is longer than the model was made for."""
    limit = model.config.max_length
    if positions > limit:
        raise UserError(
            f"context and episode take {positions} positions, the model's limit is {limit}: "
            "raise model.max_length, or lower context.episodes or the horizon"
        )
