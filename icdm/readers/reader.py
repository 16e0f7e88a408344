"""The one interface of deciders that read a context, and those that need none."""

import dataclasses
from typing import Protocol

import jax

from icdm.problems.policy import Policy, Sampled
from icdm.trajectories.collect import Tasks
from icdm.trajectories.trajectory import Trajectories


class Reader(Protocol):
    """Turns the contexts of some rows into a policy that acts in their tasks."""

    def policy(self, tasks: Tasks, task_B: jax.Array, context: Trajectories | None, key: jax.Array) -> Policy:
        """The policy of B rows.

        Args:
          tasks: N tasks; a reader uses only what a decider may know of them.
          task_B: which task each row acts in.
          context: Trajectories (B, K, ...), or None if there is none.
        """


@dataclasses.dataclass(frozen=True)
class Fixed:
    """The same policy whatever the context."""

    decider: Policy

    def policy(self, tasks: Tasks, task_B: jax.Array, context: Trajectories | None, key: jax.Array) -> Policy:
        return self.decider


@dataclasses.dataclass(frozen=True)
class Sampling:
    """Draws its actions from the softmax of another reader's logits."""

    reader: Reader

    def policy(self, tasks: Tasks, task_B: jax.Array, context: Trajectories | None, key: jax.Array) -> Policy:
        return Sampled(self.reader.policy(tasks, task_B, context, key))


@dataclasses.dataclass(frozen=True)
class WithoutContext:
    """Another reader that is given no context."""

    reader: Reader

    def policy(self, tasks: Tasks, task_B: jax.Array, context: Trajectories | None, key: jax.Array) -> Policy:
        return self.reader.policy(tasks, task_B, None, key)
