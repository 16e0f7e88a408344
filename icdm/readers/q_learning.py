"""Tabular Q-learning with a bonus: a learner without a model, as a reference of those that explore.

Axis letters as in docs/axes.md.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp

from icdm.problems.family import Family
from icdm.problems.policy import MarkovPolicy, greedy_policy
from icdm.trajectories.collect import Tasks
from icdm.trajectories.trajectory import Step, Trajectories


@dataclasses.dataclass(frozen=True)
class QLearning:
    """Replays each row's context, in order, and acts greedily on what it has learned by then. From the n-th visit of
    (s, a) at step t,

        Q_t(s, a) <- (1 - alpha) Q_t(s, a) + alpha (r + gamma min(max_a' Q_{t+1}(s', a'), B_{t+1}) + b / sqrt(n)),
        alpha = (T + 1) / (T + n),

    where B_t, the highest return from step t on, is also the first value of Q_t, and b is half of the range of a
    reward, the largest standard error of one.

    Source: Q-learning with UCB-Hoeffding of Jin, Allen-Zhu, Bubeck and Jordan, "Is Q-learning provably efficient?"
    (NeurIPS 2018), with a smaller bonus: theirs, of the order of T^(3/2), is for a guarantee.
    """

    family: Family

    def policy(self, tasks: Tasks, task_B: jax.Array, context: Trajectories, key: jax.Array) -> MarkovPolicy:
        q_BTSA = _learned_rows(self.family, context)
        return MarkovPolicy(greedy_policy(q_BTSA).table, index=jnp.arange(task_B.size))


@functools.partial(jax.jit, static_argnums=0)
def _learned_rows(family: Family, context: Trajectories) -> jax.Array:
    return jax.vmap(functools.partial(learned_q, family))(context)


def learned_q(family: Family, context: Trajectories) -> jax.Array:
    """Q after one row's context, (K, ...), has been replayed: (T, S, A)."""
    T, S, A = family.horizon, family.n_states, family.n_actions
    low, high = family.reward_range
    highest_U = jnp.cumsum(jnp.full(T, high) * family.discount ** jnp.arange(T))  # of 1, ..., T rewards
    highest_U = jnp.concatenate([highest_U[::-1], jnp.zeros(1)])
    q_USA = jnp.broadcast_to(highest_U[:, None, None], (T + 1, S, A))

    def learn(carry: tuple[jax.Array, jax.Array], step: tuple[jax.Array, Step, jax.Array]):
        (q_USA, visits_TSA), (t, (state, action, reward, arrival), valid) = carry, step
        n = visits_TSA[t, state, action] + 1
        rate = (T + 1) / (T + n)
        value = jnp.minimum(q_USA[t + 1, arrival].max(), highest_U[t + 1])
        target = reward + family.discount * value + (high - low) / (2 * jnp.sqrt(n))
        change = jnp.where(valid, rate * (target - q_USA[t, state, action]), 0)
        return (q_USA.at[t, state, action].add(change), visits_TSA.at[t, state, action].add(valid)), None

    t_KT = jnp.broadcast_to(jnp.arange(T), context.action.shape)
    steps = jax.tree.map(jnp.ravel, (t_KT, context.steps, context.valid))
    return jax.lax.scan(learn, (q_USA, jnp.zeros((T, S, A))), steps)[0][0][:-1]
