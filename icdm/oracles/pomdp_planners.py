"""Policies that know the model of a partially observed problem and act on their belief.

`BeliefPolicy(problem, planner)` computes the belief from all signals; the planner computes Q(belief, a) and V(belief):

    AlphaVectors(model, alpha)                   lookahead over a maximum of alpha-vectors: the oracle
    LinearQ(qmdp(problem))                       QMDP (Littman, Cassandra, Kaelbling 1995)
    LinearQ(fast_informed(model))                fast informed bound (Hauskrecht 2000)
    MostLikelyState(qmdp(problem))               Q* of the most probable state
    Ambiguous(models, pessimism, interpolated)   the recursive alpha-maxmin oracle (nominal filter)

All are batches over N problems; row i acts in problem `task_B[i]`. Axis letters as in docs/axes.md.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from icdm.oracles.alpha_meu import Interpolated
from icdm.oracles.backward_induction import plan
from icdm.oracles.belief import BeliefModel, first_belief, updated_belief
from icdm.problems.policy import Carry
from icdm.problems.pomdp import POMDP

AT_ONCE = 32  # beliefs of ambiguous problems that are processed in parallel, so that their arrays fit the cache


def _pytree(cls: type) -> type:
    fields = [field.name for field in dataclasses.fields(cls)]
    return jax.tree_util.register_dataclass(cls, data_fields=fields, meta_fields=[])


@_pytree
@dataclasses.dataclass(frozen=True)
class LinearQ:
    """Q_t(b, a) = sum_s b(s) table[t, s, a]; table (N, T, S, A)."""

    table: jax.Array

    def assess(self, task_B: jax.Array, belief_BS: jax.Array, t_B: jax.Array) -> tuple[jax.Array, jax.Array]:
        q_BA = jnp.einsum("bs,bsa->ba", belief_BS, self.table[task_B, t_B])
        return q_BA, q_BA.max(-1)


@_pytree
@dataclasses.dataclass(frozen=True)
class MostLikelyState:
    """Q_t(b, a) = table[t, argmax_s b(s), a]; table (N, T, S, A)."""

    table: jax.Array

    def assess(self, task_B: jax.Array, belief_BS: jax.Array, t_B: jax.Array) -> tuple[jax.Array, jax.Array]:
        q_BA = self.table[task_B, t_B, belief_BS.argmax(-1)]
        return q_BA, q_BA.max(-1)


@_pytree
@dataclasses.dataclass(frozen=True)
class AlphaVectors:
    """V_h(b) = max_j b . alpha_h,j with h decisions to go, and the lookahead

        Q_h(b, a) = b . r_a + gamma sum_z max_j (b K_az) . alpha_{h-1},j,    K_az(s, s') = Pr(z, s' | s, a).

    The value of the greedy policy is at least V at the start if the vectors are those of certified lower bounds.

    Attributes:
      model: the belief model of N problems.
      alpha: (N, U, J, S).
    """

    model: BeliefModel
    alpha: jax.Array

    def assess(self, task_B: jax.Array, belief_BS: jax.Array, t_B: jax.Array) -> tuple[jax.Array, jax.Array]:
        to_go_B = self.model.horizon - t_B
        gain_BA = jnp.einsum("bs,bsa->ba", belief_BS, self.model.reward[task_B])
        joint = jnp.einsum("bs,bazst->bazt", belief_BS, self.model.kernel[task_B])
        after = self.alpha[task_B, jnp.maximum(to_go_B - 1, 0)]
        future_BA = jnp.einsum("bazs,bjs->bazj", joint, after).max(-1).sum(-1)
        q_BA = gain_BA + self.model.discount[task_B][:, None] * future_BA
        return q_BA, jnp.einsum("bs,bjs->bj", belief_BS, self.alpha[task_B, to_go_B]).max(-1)

    def start_value(self) -> jax.Array:
        """E[V(belief after the first observation)] of the N problems, (N,)."""
        return jnp.einsum("nos,njs->noj", self.model.first, self.alpha[:, -1]).max(-1).sum(-1)


@_pytree
@dataclasses.dataclass(frozen=True)
class Ambiguous:
    """The interpolated Q of the recursive alpha-maxmin objective; models (N, M, ...), pessimism (N,)."""

    models: BeliefModel
    pessimism: jax.Array
    interpolated: Interpolated

    def assess(self, task_B: jax.Array, belief_BS: jax.Array, t_B: jax.Array) -> tuple[jax.Array, jax.Array]:
        def one(task: jax.Array, belief_S: jax.Array, t: jax.Array):
            models, pessimism, interpolated = jax.tree.map(
                lambda leaf: leaf[task], (self.models, self.pessimism, self.interpolated)
            )
            return interpolated.q_values(models, pessimism, belief_S, self.models.horizon - t)

        rows = (task_B, belief_BS, t_B)
        q_BA = jax.lax.map(lambda row: one(*row), rows, batch_size=min(task_B.size, AT_ONCE))
        return q_BA, q_BA.max(-1)


@_pytree
@dataclasses.dataclass(frozen=True)
class BeliefPolicy:
    """Acts greedily on a planner's Q at the belief of the Bayes filter.

    Attributes:
      problem: N problems, the model of the filter.
      planner: an object with `assess(task_B, belief_BS, t_B) -> (Q (B, A), V (B,))`.
    """

    problem: POMDP
    planner: Any

    def init(self, task_B: jax.Array) -> Carry:
        belief_BS = _working(self.problem.mdp.initial)[task_B]
        return (
            task_B,
            jnp.zeros_like(task_B),
            belief_BS,
            jnp.zeros_like(task_B),
            jnp.zeros(task_B.shape, jnp.float32),
        )

    def assess(self, carry: Carry, observation_B: jax.Array) -> tuple[jax.Array, jax.Array, Carry]:
        task_B, t_B, belief_BS, action_B, reward_B = carry
        problem, planner = _working((self.problem, self.planner))
        later_BS = updated_belief(problem, task_B, belief_BS, action_B, observation_B, reward_B)
        first_BS = first_belief(problem, task_B, observation_B)
        belief_BS = jnp.where((t_B == 0)[:, None], first_BS, later_BS)
        q_BA, value_B = planner.assess(task_B, belief_BS, t_B)
        return q_BA, value_B, (task_B, t_B, belief_BS, action_B, reward_B)

    def act(self, carry: Carry, observation_B: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array, Carry]:
        q_BA, _, carry = self.assess(carry, observation_B)
        return q_BA.argmax(-1).astype(jnp.int32), q_BA, carry

    def observe(self, carry: Carry, action_B: jax.Array, reward_B: jax.Array) -> Carry:
        task_B, t_B, belief_BS, _, _ = carry
        return task_B, t_B + 1, belief_BS, action_B.astype(task_B.dtype), reward_B.astype(jnp.float32)


def _working(tree: Any) -> Any:
    """The arrays in the current precision: float64 if x64 is enabled, and else float32."""
    dtype = jnp.result_type(float)

    def converted(leaf: jax.Array) -> jax.Array:
        return jnp.asarray(leaf, dtype if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf.dtype)

    return jax.tree.map(converted, tree)


def qmdp(problem: POMDP) -> jax.Array:
    """Q* of the fully observed versions of N problems, (N, T, S, A); sum_s b(s) Q*(s, a) is an upper bound."""
    return plan(problem.mdp)


def fast_informed(model: BeliefModel) -> jax.Array:
    """Fast informed bound of N problems, (N, T, S, A).

    F_h(s, a) = r(s, a) + gamma sum_z max_a' sum_s' Pr(z, s' | s, a) F_{h-1}(s', a')
    """
    with jax.enable_x64(True):
        return _fast_informed(jax.tree.map(lambda leaf: jnp.asarray(leaf, float), model))


@jax.jit
@jax.vmap
def _fast_informed(model: BeliefModel) -> jax.Array:
    def step(informed: jax.Array, _: None):
        future = jnp.einsum("azst,tb->azsb", model.kernel, informed).max(-1).sum(1).T
        informed = model.reward + model.discount * future
        return informed, informed

    return jax.lax.scan(step, jnp.zeros_like(model.reward), length=model.horizon)[1][::-1]
