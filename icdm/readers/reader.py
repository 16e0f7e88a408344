"""The interface of deciders with a context, and its adapters."""

import dataclasses
from typing import Protocol

import jax

from icdm.problems.policy import Policy, Sampled
from icdm.trajectories.collect import Tasks
from icdm.trajectories.trajectory import Trajectories


class Reader(Protocol):
    """A decider that computes a policy from the contexts of B rows."""

    def policy(self, tasks: Tasks, task_B: jax.Array, context: Trajectories | None, key: jax.Array) -> Policy:
        """The policy of B rows.

        Args:
          tasks: N tasks; a reader uses only what a decider may know.
          task_B: the task of each row.
          context: Trajectories (B, K, ...), or None.
        """


@dataclasses.dataclass(frozen=True)
class Fixed:
    """The same policy for every context."""

    decider: Policy

    def policy(self, tasks: Tasks, task_B: jax.Array, context: Trajectories | None, key: jax.Array) -> Policy:
        return self.decider


@dataclasses.dataclass(frozen=True)
class Sampling:
    """Draws actions from the softmax of another reader's logits."""

    reader: Reader

    def policy(self, tasks: Tasks, task_B: jax.Array, context: Trajectories | None, key: jax.Array) -> Policy:
        return Sampled(self.reader.policy(tasks, task_B, context, key))


@dataclasses.dataclass(frozen=True)
class WithoutContext:
    """Another reader without its context."""

    reader: Reader

    def policy(self, tasks: Tasks, task_B: jax.Array, context: Trajectories | None, key: jax.Array) -> Policy:
        return self.reader.policy(tasks, task_B, None, key)
