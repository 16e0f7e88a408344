"""The transformer as a policy: it reads a context into its KV cache and acts from there."""

import dataclasses
import functools

import jax
import jax.numpy as jnp

from icdm.errors import UserError
from icdm.models.transformer import Transformer
from icdm.trajectories.layouts import Layout, Step, Tokens, encode
from icdm.trajectories.rollout import Trajectories


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["model", "context"],
    meta_fields=["layout", "n_actions", "stepwise"],
)
@dataclasses.dataclass(frozen=True)
class TransformerPolicy:
    """Acts greedily on the action logits of a transformer that has read a context.

    Attributes:
      model: the transformer.
      context: Trajectories (B, K, ...) of each row's task, or None to act without.
      layout: how trajectories become tokens.
      n_actions: actions that the problem has; logits of others are left out.
      stepwise: the model has learned from contexts of single steps and never seen the second step of an
        episode: each step is shown to it as an episode of its own.
    """

    model: Transformer
    context: Trajectories | None
    layout: Layout
    n_actions: int
    stepwise: bool = False

    def init(self, task_B):
        rows = task_B.shape[0]
        own = (self.layout.horizon + 1) * self.layout.positions * (2 if self.stepwise else 1)
        if self.context is None:
            cache = self.model.empty_cache(rows, own)
        else:
            tokens = encode(self.layout, self.context)
            check_length(self.model, tokens.valid.shape[1] + own)
            cache = self.model.empty_cache(rows, tokens.valid.shape[1] + own)
            cache = self.model(tokens, cache).cache
        nothing = jnp.zeros(rows, jnp.int32)
        return cache, jnp.zeros(rows, jnp.int32), Step(nothing, nothing, jnp.zeros(rows, jnp.float32))

    def act(self, carry, observation_B, key):
        cache, t_B, before = carry
        output = self.model(self._append(t_B, before, observation_B), cache)
        start = self.layout.slices["action"].start
        logits_BA = self.model.logits(output.hidden[:, -1], slice(start, start + self.n_actions))
        action_B = jnp.argmax(logits_BA, -1).astype(jnp.int32)
        return action_B, logits_BA, (output.cache, t_B, before._replace(observation=observation_B))

    def observe(self, carry, action_B, reward_B):
        cache, t_B, before = carry
        return cache, t_B + 1, before._replace(action=action_B, reward=reward_B)

    def _append(self, t_B, before, observation_B) -> Tokens:
        if not self.stepwise:
            return self.layout.append(t_B, before, observation_B)
        closing = self.layout.append(jnp.ones_like(t_B), before, observation_B)
        closing = dataclasses.replace(closing, valid=closing.valid & (t_B > 0)[:, None])
        opening = self.layout.append(jnp.zeros_like(t_B), before, observation_B)
        return jax.tree.map(lambda a, b: jnp.concatenate([a, b], 1), closing, opening)


def check_length(model: Transformer, positions: int) -> None:
    """Refuses an input that is longer than the model was made for."""
    limit = model.config.max_length
    if positions > limit:
        raise UserError(
            f"context and episode take {positions} positions, the model's limit is {limit}: "
            "raise model.max_length, or lower context.episodes or the horizon"
        )
