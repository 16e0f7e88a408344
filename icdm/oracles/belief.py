"""Beliefs: the distribution of the state given everything that the decider has observed.

`first_belief` and `updated_belief` are the Bayes filter of deciders. `first_filter` and `filter_step` also return the
likelihood of the signals (the forward algorithm). `belief_model` converts a POMDP into the arrays that every oracle
for partially observed problems uses. A signal is everything that the decider observes in a step: the observation,
together with the reward if rewards are observed. Axis letters as in docs/axes.md.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from icdm.problems.mdp import MDP, expected_reward
from icdm.problems.pomdp import POMDP


def first_belief(problem: POMDP, task_B: jax.Array, observation_B: jax.Array) -> jax.Array:
    """Belief after the first observation, b(s) ∝ initial(s) first_emission(o | s), (B, S)."""
    return first_filter(problem, task_B, observation_B)[0]


def first_filter(problem: POMDP, task_B: jax.Array, observation_B: jax.Array) -> tuple[jax.Array, jax.Array]:
    """`first_belief` (B, S), and Pr(o) of the first observation (B,)."""
    prior_BS = problem.mdp.initial[task_B]
    return _normalised(prior_BS * problem.first_emission[task_B, :, observation_B], prior_BS)


def updated_belief(
    problem: POMDP,
    task_B: jax.Array,
    belief_BS: jax.Array,
    action_B: jax.Array,
    observation_B: jax.Array,
    reward_B: jax.Array,
) -> jax.Array:
    """Belief after a step, given that the episode continues, (B, S).

    b'(s') ∝ sum_s b(s) Pr(r | s, a, s') P(s' | s, a) E(o | a, s') for s' not terminal; the factor Pr(r | ...)
    is absent if rewards are not observed. The belief is the prediction sum_s b(s) P(s' | s, a) if the signal has
    probability 0.
    """
    return filter_step(problem, task_B, belief_BS, action_B, observation_B, reward_B)[0]


def filter_step(
    problem: POMDP,
    task_B: jax.Array,
    belief_BS: jax.Array,
    action_B: jax.Array,
    observation_B: jax.Array,
    reward_B: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """`updated_belief` (B, S), and the probability (B,) of the signal and that the episode continues."""
    transition_BSS = problem.mdp.transition[task_B, action_B]
    prediction_BS = jnp.einsum("bs,bst->bt", belief_BS, transition_BSS)
    if problem.shows_reward:
        transition_BSS = transition_BSS * reward_likelihood(problem.mdp, task_B, action_B, reward_B)
    joint_BS = jnp.einsum("bs,bst->bt", belief_BS, transition_BSS)
    joint_BS = joint_BS * problem.emission[task_B, action_B, :, observation_B]
    return _normalised(jnp.where(problem.mdp.terminal[task_B], 0, joint_BS), prediction_BS)


def reward_likelihood(mdp: MDP, task_B: jax.Array, action_B: jax.Array, reward_B: jax.Array) -> jax.Array:
    """Pr(r | s, a, s'), (B, S, S'): 1 or 0 for deterministic rewards, the Bernoulli probability for random ones.

    Two rewards are equal if they differ by at most 1e-6 of the problem's largest, because records are in float32.
    """
    mean_BS1 = mdp.reward[task_B, :, action_B][:, :, None]
    arrival_B1S = mdp.arrival_reward[task_B][:, None, :]
    scale_B = jnp.abs(mdp.reward[task_B]).max((1, 2)) + jnp.abs(mdp.arrival_reward[task_B]).max(1)
    tolerance_B11 = 1e-6 * jnp.maximum(scale_B, 1e-30)[:, None, None]

    def equal(pay: jax.Array) -> jax.Array:
        return jnp.abs(pay - reward_B[:, None, None]) <= tolerance_B11

    if mdp.reward_noise == "bernoulli":
        return jnp.where(equal(1 + arrival_B1S), mean_BS1, 0) + jnp.where(equal(arrival_B1S), 1 - mean_BS1, 0)
    return jnp.where(equal(mean_BS1 + arrival_B1S), 1.0, 0.0)


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["kernel", "reward", "first", "discount"],
    meta_fields=["horizon"],
)
@dataclasses.dataclass(frozen=True)
class BeliefModel:
    """A POMDP (or N of them along a leading axis) in terms of beliefs, in float64.

    Attributes:
      kernel: (A, Z, S, S) joint probabilities Pr(z, s' | s, a) of a signal and a next state that is not terminal; the
        missing mass is the probability that the episode ends.
      reward: (S, A) mean reward of taking a in s.
      first: (O, S) joint probabilities of the first observation and state.
      discount: ().
      horizon: number of decisions.
    """

    kernel: jax.Array
    reward: jax.Array
    first: jax.Array
    discount: jax.Array
    horizon: int


def belief_model(problem: POMDP) -> BeliefModel:
    """The belief model of a POMDP, or of a batch: it enumerates the signals and omits terminal states.

    A signal is an observation together with one of the possible rewards if rewards are observed, so that oracles and
    learners condition on the same information.
    """
    mdp = jax.tree.map(np.asarray, problem.mdp)
    alive = ~mdp.terminal
    kernel = np.einsum("...ast,...ato,...t->...aost", mdp.transition, problem.emission, alive)
    if problem.shows_reward:
        kernel = _with_reward_signals(mdp, kernel)
    with jax.enable_x64(True):
        reward = np.asarray(expected_reward(mdp))
    first = np.einsum("...s,...so,...s->...os", mdp.initial, problem.first_emission, alive)
    return BeliefModel(kernel, reward, first, np.asarray(mdp.discount, np.float64), problem.horizon)


def start_belief(model: BeliefModel) -> np.ndarray:
    """Belief before the first observation, (S,)."""
    return model.first.sum(-2)


def _with_reward_signals(mdp: MDP, kernel: np.ndarray) -> np.ndarray:
    if kernel.ndim > 4:
        members = [jax.tree.map(lambda leaf: leaf[n], mdp) for n in range(kernel.shape[0])]
        parts = [_with_reward_signals(*member) for member in zip(members, kernel)]
        widest = max(part.shape[-3] for part in parts)
        return np.stack([_with_signals(part, widest) for part in parts])
    if mdp.reward_noise == "bernoulli":
        pay = np.concatenate([mdp.arrival_reward, 1 + mdp.arrival_reward])
    else:
        pay = (mdp.reward[:, :, None] + mdp.arrival_reward).ravel()
    scale = max(np.abs(mdp.reward).max() + np.abs(mdp.arrival_reward).max(), 1e-30)
    pay = np.unique(pay)
    pay = pay[np.diff(pay, prepend=-np.inf) > 1e-6 * scale]
    n_actions, n_pays = mdp.n_actions, pay.size
    one = jax.tree.map(lambda leaf: leaf[None], mdp)
    with jax.enable_x64(True):
        likelihood = reward_likelihood(
            jax.tree.map(jnp.asarray, one),
            jnp.zeros(n_actions * n_pays, int),
            jnp.repeat(jnp.arange(n_actions), n_pays),
            jnp.tile(jnp.asarray(pay), n_actions),
        )
    likelihood = np.asarray(likelihood).reshape(n_actions, n_pays, 1, mdp.n_states, mdp.n_states)
    joint = (likelihood * kernel[:, None]).reshape(n_actions, -1, mdp.n_states, mdp.n_states)
    return joint[:, joint.any((0, 2, 3))]


def _with_signals(kernel: np.ndarray, n_signals: int) -> np.ndarray:
    """The kernel with signals of probability 0 appended, up to `n_signals`."""
    more = n_signals - kernel.shape[-3]
    return np.pad(kernel, [(0, more if axis == kernel.ndim - 3 else 0) for axis in range(kernel.ndim)])


def _normalised(weight_BS: jax.Array, fallback_BS: jax.Array) -> tuple[jax.Array, jax.Array]:
    total_B = weight_BS.sum(-1)
    possible_B1 = total_B[:, None] > 0
    return jnp.where(possible_B1, weight_BS / jnp.where(possible_B1, total_B[:, None], 1), fallback_BS), total_B
