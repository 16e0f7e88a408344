"""The copy heuristic: it does what was done before. A learner that is no better has not learned to decide."""

import dataclasses
import functools

import jax
import jax.numpy as jnp

from icdm.problems.mdp import draw
from icdm.problems.policy import Carry
from icdm.trajectories.collect import Tasks
from icdm.trajectories.trajectory import Trajectories


@functools.partial(jax.tree_util.register_dataclass, data_fields=["context"], meta_fields=["n_actions"])
@dataclasses.dataclass(frozen=True)
class CopyPolicy:
    """Takes the action that the context shows most often on the present observation, ties drawn uniformly.

    Steps at the same time of an episode come first, then steps at any time; on an observation that the context does
    not show the action is uniformly random.

    Attributes:
      context: Trajectories (B, K, ...).
    """

    context: Trajectories
    n_actions: int

    def init(self, task_B: jax.Array) -> Carry:
        return jnp.zeros_like(task_B)

    def act(self, carry: Carry, observation_B: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array, Carry]:
        shown = self.context.steps
        same_BKT = self.context.valid & (shown.observation == observation_B[:, None, None])
        now_BKT = same_BKT & (jnp.arange(same_BKT.shape[-1])[None] == carry[:, None])[:, None]
        action_BKTA = jax.nn.one_hot(shown.action, self.n_actions)
        at_any_time_BA = (same_BKT[..., None] * action_BKTA).sum((1, 2))
        at_this_time_BA = (now_BKT[..., None] * action_BKTA).sum((1, 2))
        count_BA = jnp.where(at_this_time_BA.sum(-1, keepdims=True) > 0, at_this_time_BA, at_any_time_BA)
        best_BA = count_BA == count_BA.max(-1, keepdims=True)
        probability_BA = best_BA / best_BA.sum(-1, keepdims=True)
        action_B = draw(probability_BA, jax.random.uniform(key, observation_B.shape, jnp.float32))
        return action_B, jnp.log(probability_BA), carry

    def observe(self, carry: Carry, action_B: jax.Array, reward_B: jax.Array) -> Carry:
        return carry + 1


@dataclasses.dataclass(frozen=True)
class Copying:
    """The copy heuristic on each row's context."""

    n_actions: int

    def policy(self, tasks: Tasks, task_B: jax.Array, context: Trajectories, key: jax.Array) -> CopyPolicy:
        return CopyPolicy(context, self.n_actions)
