"""The maximum-likelihood POMDP of a context, by expectation-maximisation, and a policy that plans in it.

The method is Baum-Welch for controlled hidden Markov models. An episode with hidden states z_0, z_1, ... has under
the parameters theta = (initial, transition, emission, pay) the likelihood

    L = sum_z initial(z_0) E(o_0 | z_0) prod_t pay(r_t | z_t, a_t) P(z_{t+1} | z_t, a_t) E(o_{t+1} | z_{t+1}),

by the forward algorithm. The E-step needs no explicit backward pass: the expected number of uses of a parameter, given
the data, is d log L / d log theta (Fisher's identity). The M-step adds a prior count to each of these counts and
normalises them, so that log L + sum prior log theta never decreases (the sum is without pay if rewards are not
observed, because they do not enter the likelihood then).

Rewards are scaled to [0, 1] and pay(r | z, a) = m^r (1 - m)^(1 - r), m the mean: the likelihood of Bernoulli
rewards, and a quasi-likelihood with the same mean for other rewards. Float64. Axis letters as in docs/axes.md.

Source: Baum, Petrie, Soules and Weiss, Ann. Math. Statist. 41 (1970); with actions, Chrisman, AAAI 1992.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from icdm.oracles.pomdp_planners import BeliefPolicy, LinearQ, qmdp
from icdm.problems.family import Family
from icdm.problems.mdp import MDP
from icdm.problems.policy import Carry, Policy
from icdm.problems.pomdp import POMDP, silent_start
from icdm.sharding import gathered
from icdm.trajectories.collect import Tasks
from icdm.trajectories.trajectory import Trajectories

RESTARTS = 10  # random starts; the result is the one with the largest objective
ITERATIONS = 40
PRIOR = 2.0  # sum of the prior counts of each distribution

Episodes = tuple[jax.Array, jax.Array, jax.Array, jax.Array]  # observation (K, U), action, reward, valid (K, T)


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=["initial", "transition", "emission", "pay"], meta_fields=[]
)
@dataclasses.dataclass(frozen=True)
class Parameters:
    """Distributions along the last axis: initial (S,), transition (A, S, S), emission (S, O), pay (A, S, 2).

    pay[a, s] holds the scaled mean reward and its complement.
    """

    initial: jax.Array
    transition: jax.Array
    emission: jax.Array
    pay: jax.Array


@dataclasses.dataclass(frozen=True)
class Fitted:
    """The maximum-likelihood model of each row.

    Attributes:
      problem: B POMDPs; POMDP i is fitted to context i.
      objective: (B, iterations) log L + sum prior log theta of the best restart before each iteration.
    """

    problem: POMDP
    objective: np.ndarray


def fit(
    family: Family,
    problem: POMDP,
    context: Trajectories,
    key: jax.Array,
    *,
    restarts: int = RESTARTS,
    iterations: int = ITERATIONS,
) -> Fitted:
    """The maximum-likelihood POMDP of every row's context.

    Args:
      problem: N problems of the family; the function uses only what a decider may know, of the first problem: its
        discount, its horizon, whether rewards and a first observation are observed, and whether rewards are
        Bernoulli. Rewards do not enter the likelihood if they are not observed, but the fitted mean rewards are still
        those of the record, which favours the planner.
      context: Trajectories (B, K, ...), the only source of everything else; steps that are not valid do not count.
        The number of states is the family's.

    Returns:
      Models without terminal states, with one emission for all actions. Their rewards are observed only if they are
      Bernoulli, because the filter compares rewards for equality.
    """
    sizes = family.n_states, family.observation_space.n, family.n_actions
    low, high = family.reward_range
    with jax.enable_x64(True):
        reward = jnp.clip((jnp.asarray(context.reward, jnp.float64) - low) / (high - low), 0, 1)
        episodes = context.observation, context.action, reward, context.valid
        observed = problem.observes_first, problem.shows_reward
        fitted, objective = _fit_rows(sizes, observed, restarts, iterations, episodes, key)
        fitted = jax.tree.map(gathered, fitted)
    n_rows, n_states = fitted.initial.shape
    bernoulli = problem.mdp.reward_noise == "bernoulli"
    mdp = MDP(
        transition=fitted.transition,
        reward=np.swapaxes(low + (high - low) * fitted.pay[..., 0], 1, 2),
        arrival_reward=np.zeros((n_rows, n_states)),
        initial=fitted.initial,
        terminal=np.zeros((n_rows, n_states), bool),
        discount=np.full(n_rows, problem.mdp.discount[0], np.float64),
        horizon=problem.horizon,
        reward_noise="bernoulli" if bernoulli else "none",
    )
    silent = np.broadcast_to(silent_start(n_states, sizes[1]), fitted.emission.shape)
    model = POMDP(
        mdp,
        np.repeat(fitted.emission[:, None], sizes[2], 1),
        fitted.emission if problem.observes_first else silent,
        observes_first=problem.observes_first,
        shows_reward=problem.shows_reward and bernoulli,
    )
    return Fitted(model, gathered(objective))


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _fit_rows(
    sizes: tuple[int, int, int],
    observed: tuple[bool, bool],
    restarts: int,
    iterations: int,
    episodes: Episodes,
    key: jax.Array,
) -> tuple[Parameters, jax.Array]:
    def from_one_start(key: jax.Array) -> tuple[Parameters, jax.Array]:
        def fit_row(key: jax.Array, episodes: Episodes) -> tuple[Parameters, jax.Array]:
            return climb(random_parameters(key, *sizes), episodes, iterations, *observed)

        return jax.vmap(fit_row)(jax.random.split(key, episodes[0].shape[0]), episodes)

    ends, objective = jax.lax.map(from_one_start, jax.random.split(key, restarts))
    best_B = objective[..., -1].argmax(0)
    return jax.tree.map(lambda leaf: leaf[best_B, jnp.arange(best_B.size)], (ends, objective))


def random_parameters(key: jax.Array, n_states: int, n_observations: int, n_actions: int) -> Parameters:
    """A random start; every distribution is uniform on its simplex."""
    by_action = (n_actions, n_states)
    shapes = Parameters((n_states,), (*by_action, n_states), (n_states, n_observations), (*by_action, 2))
    leaves, structure = jax.tree.flatten(shapes, is_leaf=lambda leaf: isinstance(leaf, tuple))
    weights = [jax.random.exponential(k, shape) for k, shape in zip(jax.random.split(key, 4), leaves)]
    return structure.unflatten([weight / weight.sum(-1, keepdims=True) for weight in weights])


def climb(
    start: Parameters, episodes: Episodes, iterations: int, observes_first: bool, shows_reward: bool
) -> tuple[Parameters, jax.Array]:
    """Parameters after the iterations of EM, and the objective before each, (iterations,)."""
    prior = prior_counts(start, *episodes[2:])

    def penalty(log: Parameters) -> jax.Array:
        terms = jax.tree.map(lambda count, leaf: (count * leaf).sum(), prior, log)
        return terms.initial + terms.transition + terms.emission + (terms.pay if shows_reward else 0)

    def iterate(theta: Parameters, _: None):
        log = jax.tree.map(jnp.log, theta)
        log_likelihood, counts = jax.value_and_grad(log_forward)(log, episodes, observes_first, shows_reward)
        total = jax.tree.map(jnp.add, counts, prior)
        theta = jax.tree.map(lambda count: count / count.sum(-1, keepdims=True), total)
        return theta, log_likelihood + penalty(log)

    return jax.lax.scan(iterate, start, length=iterations)


def prior_counts(like: Parameters, reward_KT: jax.Array, valid_KT: jax.Array) -> Parameters:
    """The prior counts of each distribution: equal, but for rewards in the ratio of all recorded rewards."""
    prior = jax.tree.map(lambda leaf: jnp.full_like(leaf, PRIOR / leaf.shape[-1]), like)
    mean = (0.5 + (reward_KT * valid_KT).sum()) / (1 + valid_KT.sum())
    return dataclasses.replace(prior, pay=jnp.broadcast_to(PRIOR * jnp.stack([mean, 1 - mean]), like.pay.shape))


def log_forward(log: Parameters, episodes: Episodes, observes_first: bool, shows_reward: bool) -> jax.Array:
    """log L of K episodes as a function of log theta; rewards are scaled to [0, 1]."""
    observation_KU, action_KT, reward_KT, valid_KT = episodes
    n_actions, n_states, _ = log.transition.shape
    transition, emission = jnp.exp(log.transition), jnp.exp(log.emission)
    seen_KUS = jnp.einsum("kuo,so->kus", jax.nn.one_hot(observation_KU, emission.shape[1]), emission)
    acted_KTA = jax.nn.one_hot(action_KT, n_actions)
    log_pay_KTAS = jnp.multiply.outer(reward_KT, log.pay[..., 0]) + jnp.multiply.outer(1 - reward_KT, log.pay[..., 1])
    if not shows_reward:  # a factor 1, whose derivative still counts the rewards
        log_pay_KTAS -= jax.lax.stop_gradient(log_pay_KTAS)
    paid_KTAS = acted_KTA[..., None] * jnp.exp(log_pay_KTAS)

    def step(belief_KS: jax.Array, recorded: tuple[jax.Array, jax.Array, jax.Array]):
        paid_KAS, seen_KS, valid_K = recorded
        joint_KS = jnp.einsum("ks,kas,ast->kt", belief_KS, paid_KAS, transition) * seen_KS
        chance_K = jnp.where(valid_K, joint_KS.sum(-1), 1)
        return jnp.where(valid_K[:, None], joint_KS / chance_K[:, None], belief_KS), jnp.log(chance_K)

    first_KS = jnp.exp(log.initial)[None] * (seen_KUS[:, 0] if observes_first else jnp.ones_like(seen_KUS[:, 0]))
    chance_K = first_KS.sum(-1)
    steps = jax.tree.map(lambda leaf: jnp.moveaxis(leaf, 1, 0), (paid_KTAS, seen_KUS[:, 1:], valid_KT))
    _, log_chance_TK = jax.lax.scan(step, first_KS / chance_K[:, None], steps)
    return jnp.log(chance_K).sum() + log_chance_TK.sum()


@functools.partial(jax.tree_util.register_dataclass, data_fields=["policy"], meta_fields=[])
@dataclasses.dataclass(frozen=True)
class RowPolicy:
    """A policy whose row i acts in problem i, for any task."""

    policy: Policy

    def init(self, task_B: jax.Array) -> Carry:
        return self.policy.init(jnp.arange(task_B.shape[0], dtype=task_B.dtype))

    def act(self, carry: Carry, observation_B: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array, Carry]:
        return self.policy.act(carry, observation_B, key)

    def observe(self, carry: Carry, action_B: jax.Array, reward_B: jax.Array) -> Carry:
        return self.policy.observe(carry, action_B, reward_B)


@dataclasses.dataclass(frozen=True)
class FittedPOMDP:
    """Fits a model to each row's context, filters by it, and plans in it by QMDP.

    Point-based planning in the fitted model has no higher value on random POMDPs: the errors of the model outweigh
    those of QMDP.

    Attributes:
      problem: N problems; `fit` uses only what a decider may know.
    """

    family: Family
    problem: POMDP

    def policy(self, tasks: Tasks, task_B: jax.Array, context: Trajectories, key: jax.Array) -> RowPolicy:
        model = fit(self.family, self.problem, context, key).problem
        return RowPolicy(BeliefPolicy(model, LinearQ(gathered(qmdp(model)))))
