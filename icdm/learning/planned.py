"""Rows whose labels come from tables of Q: of the task itself or of a planner that reads what the model reads, and, for
the layers of a model, with fewer rewards to come."""

import dataclasses
import functools

import jax
import jax.numpy as jnp

from icdm.learning.objectives import LabelConfig, Lesson, target_of
from icdm.learning.sources import Recorder
from icdm.oracles.backward_induction import backward_induction
from icdm.problems.counts import Counts, count
from icdm.problems.family import Family
from icdm.readers.counts_planners import counts_of
from icdm.trajectories.collect import Tasks
from icdm.trajectories.trajectory import Trajectories

TEACHERS = ("oracle", "posterior_mean", "posterior_mean_replanned")


@dataclasses.dataclass(frozen=True)
class Planned:
    """Rows of another recorder, of fully observed problems, labelled by a teacher's Q.

    Attributes:
      rows: says what is recorded.
      labels: what is made of Q-values.
      teacher: "oracle", Q* of the task; "posterior_mean", Q of the MDP of posterior means given the row's context,
        all that a reader of the context can know; "posterior_mean_replanned", in the last episode given its earlier
        steps too. Labels of the latter two are a function of what the model reads, so that no luck of the draw is left
        in them.
      ahead: what the stream is asked for after each earlier layer too, from the first on: the Q with so many rewards to
        come, say 1, 2, ... as value iteration computes them one after another.
    """

    rows: Recorder
    labels: LabelConfig
    teacher: str
    ahead: tuple[int, ...]

    def __call__(self, family: Family, tasks: Tasks, task_B: jax.Array, key: jax.Array) -> Lesson:
        trajectories = self.rows(family, tasks, task_B, key).trajectories
        if self.teacher == "oracle":
            q_BTSA = tasks.oracle.table[task_B]
        else:
            context = jax.tree.map(lambda x: x[:, :-1], trajectories)
            q_BTSA = jax.vmap(functools.partial(fitted_q, family))(context)
        ahead = (family.horizon, *self.ahead)
        labels = [q_ahead(q_BTSA, trajectories, k) for k in ahead]
        if self.teacher == "posterior_mean_replanned":
            last = jax.vmap(functools.partial(replanned_q, family, ahead=ahead))(trajectories)
            labels = [q.at[:, -1].set(own) for q, own in zip(labels, last)]
        targets = [target_of(self.labels, dataclasses.replace(trajectories, q=q)) for q in labels]
        return Lesson(trajectories, targets[0], tuple(targets[1:]))


def fitted_q(family: Family, context: Trajectories) -> jax.Array:
    """Q of the MDP of posterior means given one row's context, (T, S, A)."""
    return backward_induction(family.posterior_mean(counts_of(family, context)))[0]


def q_ahead(q_BTSA: jax.Array, trajectories: Trajectories, ahead: int) -> jax.Array:
    """Q at every step of B rows of E episodes, with so many rewards to come, or as many as are left: (B, E, T, A).

    In a problem that does not change with time, Q_t with k rewards to come is entry T - k of the table.
    """
    T = q_BTSA.shape[1]
    entry_T = _entries(T, ahead)
    row_B11 = jnp.arange(q_BTSA.shape[0])[:, None, None]
    return q_BTSA[row_B11, entry_T[None, None], trajectories.observation[..., :-1]]


def replanned_q(family: Family, row: Trajectories, ahead: tuple[int, ...]) -> list[jax.Array]:
    """The same at every step of one row's last episode, (T, A) for each of `ahead`, planned anew at every step from the
    context and the steps before."""
    context, own = jax.tree.map(lambda x: x[:-1], row), jax.tree.map(lambda x: x[-1], row)

    def plan(counts: Counts, step: tuple[jax.Array, ...]):
        t, observation, action, reward, arrival, valid = step
        q_TSA = backward_induction(family.posterior_mean(counts))[0]
        found = [q_TSA[_entries(family.horizon, k)[t], observation] for k in ahead]
        more = (x[None] for x in (observation, action, reward, arrival, valid))
        return jax.tree.map(jnp.add, counts, count(*more, family.n_states, family.n_actions)), found

    return jax.lax.scan(plan, counts_of(family, context), (jnp.arange(family.horizon), *own.steps, own.valid))[1]


def _entries(T: int, ahead: int) -> jax.Array:
    """The entry of a table of Q at every step with so many rewards to come, (T,)."""
    return T - jnp.minimum(ahead, T - jnp.arange(T))
