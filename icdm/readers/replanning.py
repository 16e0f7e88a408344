"""Planners that go on reading: in every step they plan anew from the context and their own episode so far.

A transformer may do so too. The one that looks ahead to the end is the best that planning with posterior means can do;
the one that looks one reward ahead does not plan. Axis letters as in docs/axes.md.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp

from icdm.oracles.backward_induction import backward_induction
from icdm.problems.counts import Counts, count
from icdm.problems.family import Family, HasPosterior
from icdm.problems.policy import Carry
from icdm.readers.counts_planners import counts_of
from icdm.trajectories.collect import Tasks
from icdm.trajectories.trajectory import NOTHING, Trajectories


def replanners_of(family: Family) -> "dict[str, Replanning]":
    """The two references by their names in results.json; both need a family with `HasPosterior`."""
    if not isinstance(family, HasPosterior):
        return {}
    return {"myopic": Replanning(family, 1), "posterior_mean_replanned": Replanning(family, family.horizon)}


@dataclasses.dataclass(frozen=True)
class Replanning:
    """Reads each row's context, and looks so many rewards ahead."""

    family: Family
    ahead: int

    def policy(self, tasks: Tasks, task_B: jax.Array, context: Trajectories, key: jax.Array) -> "ReplanningPolicy":
        counts = jax.jit(jax.vmap(functools.partial(counts_of, self.family)))(context)
        return ReplanningPolicy(counts, self.family, self.ahead)


@functools.partial(jax.tree_util.register_dataclass, data_fields=["counts"], meta_fields=["family", "ahead"])
@dataclasses.dataclass(frozen=True)
class ReplanningPolicy:
    """Takes the first best action of Q^k, where k = min(ahead, T - t) rewards are looked at:

        Q^k(s, a) = r(s, a) + gamma sum_s' P(s'|s,a) max_a' Q^(k-1)(s', a'),    Q^0 = 0,

    with r and P the posterior means given all that was seen before step t.

    Attributes:
      counts: those of the context, with a leading axis B.
    """

    counts: Counts
    family: Family
    ahead: int

    def init(self, task_B: jax.Array) -> Carry:
        """(counts, the step whose arrival is not yet observed, t)."""
        nothing_B = jnp.full_like(task_B, NOTHING)
        return self.counts, (nothing_B, nothing_B, jnp.zeros(task_B.shape)), jnp.int32(0)

    def act(self, carry: Carry, observation_B: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array, Carry]:
        counts, (state_B, action_B, reward_B), t = carry
        counts = jax.vmap(self._with_step)(counts, state_B, action_B, reward_B, observation_B)
        q_BA = jax.vmap(self._q, (0, 0, None))(counts, observation_B, t)
        carry = counts, (observation_B, jnp.full_like(observation_B, NOTHING), jnp.zeros(observation_B.shape)), t
        return q_BA.argmax(-1).astype(jnp.int32), q_BA, carry

    def observe(self, carry: Carry, action_B: jax.Array, reward_B: jax.Array) -> Carry:
        counts, (state_B, _, _), t = carry
        return counts, (state_B, action_B, reward_B), t + 1

    def _with_step(self, counts: Counts, state: jax.Array, action: jax.Array, reward: jax.Array, arrival: jax.Array):
        step = (x[None] for x in (state, action, reward, arrival, state != NOTHING))
        more = count(*step, self.family.n_states, self.family.n_actions)
        return jax.tree.map(jnp.add, counts, more)

    def _q(self, counts: Counts, state: jax.Array, t: jax.Array) -> jax.Array:
        model = dataclasses.replace(self.family.posterior_mean(counts), horizon=self.ahead)
        q_TSA, _ = backward_induction(model)  # entry j has ahead - j rewards to come
        return q_TSA[jnp.maximum(0, self.ahead - (self.family.horizon - t)), state]
