"""Deciders that know the model of a hidden-state problem and track their belief.

`BeliefPolicy(problem, planner)` filters everything that the problem shows and asks a planner for
Q(belief, a):

    PointBased(model, solve(model, ...).bounds)  the certified oracle
    LinearQ(qmdp(problem))                       QMDP (Littman, Cassandra, Kaelbling 1995)
    LinearQ(fast_informed(model))                fast informed bound (Hauskrecht 2000)
    MostLikelyState(qmdp(problem))               acts as if the likeliest state were sure
    Ambiguous(models, pessimism, interpolated)   the recursive alpha-maxmin oracle (nominal filter)

All are batches over N problems; row i acts in problem `task_B[i]`.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from icdm.oracles.alpha_meu import Interpolated
from icdm.oracles.backward_induction import plan
from icdm.oracles.belief import BeliefModel, first_belief, updated_belief
from icdm.oracles.point_based import Bounds
from icdm.problems.pomdp import POMDP


def _pytree(cls):
    fields = [field.name for field in dataclasses.fields(cls)]
    return jax.tree_util.register_dataclass(cls, data_fields=fields, meta_fields=[])


@_pytree
@dataclasses.dataclass(frozen=True)
class LinearQ:
    """Q_t(b, a) = sum_s b(s) table[t, s, a]; table (N, T, S, A)."""

    table: jax.Array

    def q_values(self, task_B, belief_BS, t_B):
        return jnp.einsum("bs,bsa->ba", belief_BS, self.table[task_B, t_B])


@_pytree
@dataclasses.dataclass(frozen=True)
class MostLikelyState:
    """Q_t(b, a) = table[t, argmax_s b(s), a]; table (N, T, S, A)."""

    table: jax.Array

    def q_values(self, task_B, belief_BS, t_B):
        return self.table[task_B, t_B, belief_BS.argmax(-1)]


@_pytree
@dataclasses.dataclass(frozen=True)
class PointBased:
    """Lower bound of Q from certified bounds: acting greedily on it is worth at least that bound."""

    model: BeliefModel
    bounds: Bounds

    def q_values(self, task_B, belief_BS, t_B):
        gain_BA = jnp.einsum("bs,bsa->ba", belief_BS, self.model.reward[task_B])
        joint = jnp.einsum("bs,bazst->bazt", belief_BS, self.model.kernel[task_B])
        alpha = self.bounds.alpha[task_B, self.model.horizon - t_B - 1]
        future_BA = jnp.einsum("bazs,bps->bazp", joint, alpha).max(-1).sum(-1)
        return gain_BA + self.model.discount[task_B][:, None] * future_BA


@_pytree
@dataclasses.dataclass(frozen=True)
class Ambiguous:
    """Q of the recursive alpha-maxmin objective, interpolated; models (N, M, ...), pessimism (N,)."""

    models: BeliefModel
    pessimism: jax.Array
    interpolated: Interpolated

    def q_values(self, task_B, belief_BS, t_B):
        def one(task, belief_S, t):
            models, pessimism, interpolated = jax.tree.map(
                lambda leaf: leaf[task], (self.models, self.pessimism, self.interpolated)
            )
            return interpolated.q_values(models, pessimism, belief_S, self.models.horizon - t)

        return jax.vmap(one)(task_B, belief_BS, t_B)


@_pytree
@dataclasses.dataclass(frozen=True)
class BeliefPolicy:
    """Greedy in a planner's Q at the belief of the Bayes filter.

    Attributes:
      problem: N problems; the filter's model.
      planner: gives `q_values(task_B, belief_BS, t_B) -> (B, A)`.
    """

    problem: POMDP
    planner: Any

    def init(self, task_B):
        belief_BS = _working(self.problem.mdp.initial)[task_B]
        return (
            task_B,
            jnp.zeros_like(task_B),
            belief_BS,
            jnp.zeros_like(task_B),
            jnp.zeros(task_B.shape, jnp.float32),
        )

    def act(self, carry, observation_B, key):
        task_B, t_B, belief_BS, action_B, reward_B = carry
        problem, planner = _working((self.problem, self.planner))
        later_BS = updated_belief(problem, task_B, belief_BS, action_B, observation_B, reward_B)
        first_BS = first_belief(problem, task_B, observation_B)
        belief_BS = jnp.where((t_B == 0)[:, None], first_BS, later_BS)
        q_BA = planner.q_values(task_B, belief_BS, t_B)
        return q_BA.argmax(-1).astype(jnp.int32), q_BA, (task_B, t_B, belief_BS, action_B, reward_B)

    def observe(self, carry, action_B, reward_B):
        task_B, t_B, belief_BS, _, _ = carry
        return task_B, t_B + 1, belief_BS, action_B.astype(task_B.dtype), reward_B.astype(jnp.float32)

    def q_along(
        self, task_B: jax.Array, observation_BT: jax.Array, action_BT: jax.Array, reward_BT: jax.Array
    ):
        """Q at the beliefs that recorded episodes lead to, whoever acted, float64 (B, T, A).

        Observations may hold one more step than actions and rewards; it is not used.
        """
        with jax.enable_x64(True):
            return _q_along(self, task_B, observation_BT[:, : action_BT.shape[1]], action_BT, reward_BT)


def _working(tree):
    """The same arrays in the precision at work: float32 in rollouts, float64 where it is enabled."""
    dtype = jnp.result_type(float)

    def converted(leaf):
        return jnp.asarray(leaf, dtype if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf.dtype)

    return jax.tree.map(converted, tree)


@jax.jit
def _q_along(policy, task_B, observation_BT, action_BT, reward_BT):
    def step(carry, recorded):
        observation_B, action_B, reward_B = recorded
        _, q_BA, carry = policy.act(carry, observation_B, None)
        return policy.observe(carry, action_B, reward_B), q_BA

    recorded = jax.tree.map(lambda leaf: jnp.moveaxis(leaf, 1, 0), (observation_BT, action_BT, reward_BT))
    return jnp.moveaxis(jax.lax.scan(step, policy.init(task_B), recorded)[1], 0, 1)


def qmdp(problem: POMDP) -> jax.Array:
    """Q* of N problems if the state were shown from the next step on, (N, T, S, A); an upper bound."""
    return plan(problem.mdp)


def fast_informed(model: BeliefModel) -> jax.Array:
    """Fast informed bound of N problems, (N, T, S, A).

    F_h(s, a) = r(s, a) + gamma sum_z max_a' sum_s' Pr(z, s' | s, a) F_{h-1}(s', a')
    """
    with jax.enable_x64(True):
        return _fast_informed(jax.tree.map(jnp.asarray, model))


@jax.jit
@jax.vmap
def _fast_informed(model):
    def step(informed, _):
        future = jnp.einsum("azst,tb->azsb", model.kernel, informed).max(-1).sum(1).T
        informed = model.reward + model.discount * future
        return informed, informed

    return jax.lax.scan(step, jnp.zeros_like(model.reward), length=model.horizon)[1][::-1]
