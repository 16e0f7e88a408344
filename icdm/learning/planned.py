"""Rows whose labels come from tables of Q: of the task itself or of a planner that reads the same context, and, for
the layers of a model, with fewer rewards to come."""

import dataclasses
import functools

import jax
import jax.numpy as jnp

from icdm.learning.objectives import Lesson, target_of
from icdm.learning.sources import Labelled
from icdm.oracles.backward_induction import backward_induction
from icdm.problems.family import Family
from icdm.readers.counts_planners import counts_of
from icdm.trajectories.collect import Tasks
from icdm.trajectories.trajectory import Trajectories

TEACHERS = ("oracle", "posterior_mean")


@dataclasses.dataclass(frozen=True)
class Planned:
    """Rows of another recorder, of fully observed problems, labelled by a teacher's Q.

    Attributes:
      rows: says what is recorded, and what is made of Q-values.
      teacher: "oracle", Q* of the task; or "posterior_mean", Q of the MDP of posterior means given the row's context,
        all that a reader of the context can know. Its labels are a function of what the model reads, so that no luck
        of the draw is left in them.
      iterates: after how many layers, from the first on, the stream is asked for values too: after layer l for the Q
        with l rewards to come, as value iteration computes them one after another.
    """

    rows: Labelled
    teacher: str
    iterates: int

    def __call__(self, family: Family, tasks: Tasks, task_B: jax.Array, key: jax.Array) -> Lesson:
        trajectories = self.rows(family, tasks, task_B, key).trajectories
        if self.teacher == "oracle":
            q_BTSA = tasks.oracle.table[task_B]
        else:
            context = jax.tree.map(lambda x: x[:, :-1], trajectories)
            q_BTSA = jax.vmap(functools.partial(fitted_q, family))(context)
        targets = [
            target_of(self.rows.labels, dataclasses.replace(trajectories, q=q_ahead(q_BTSA, trajectories, ahead)))
            for ahead in (family.horizon, *range(1, self.iterates + 1))
        ]
        return Lesson(trajectories, targets[0], tuple(targets[1:]))


def fitted_q(family: Family, context: Trajectories) -> jax.Array:
    """Q of the MDP of posterior means given one row's context, (T, S, A)."""
    return backward_induction(family.posterior_mean(counts_of(family, context)))[0]


def q_ahead(q_BTSA: jax.Array, trajectories: Trajectories, ahead: int) -> jax.Array:
    """Q at every step of B rows of E episodes, with so many rewards to come, or as many as are left: (B, E, T, A).

    In a problem that does not change with time, Q_t with k rewards to come is entry T - k of the table.
    """
    T = q_BTSA.shape[1]
    entry_T = T - jnp.minimum(ahead, T - jnp.arange(T))
    row_B11 = jnp.arange(q_BTSA.shape[0])[:, None, None]
    return q_BTSA[row_B11, entry_T[None, None], trajectories.observation[..., :-1]]
