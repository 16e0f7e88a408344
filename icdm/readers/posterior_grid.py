"""A planner with a posterior over a grid of tasks, which filters and plans in each task of the grid.

Each of G tasks (a family's `grid`) has a belief b_g and, after a context D and the signals of the current episode, the
posterior weight

    w_g ∝ prior_g Pr(D | g) Pr(signals of this episode | g),

with likelihoods by the forward algorithm. The planner takes argmax_a sum_g w_g Q_g(b_g, a), where Q_g is the lower
bound of the certified oracle of task g. It is Bayes-optimal except that Q_g assumes that the decider knows the task
after the next action. All rows use the same plans.

Observed rewards are rounded to the nearest reward of a task of the grid if they are deterministic, because the true
task lies between the grid's tasks. Axis letters as in docs/axes.md.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from icdm.oracles.belief import BeliefModel, filter_step, first_filter
from icdm.oracles.certify import OracleConfig, certify
from icdm.problems.family import HasGrid
from icdm.problems.policy import Carry
from icdm.problems.pomdp import POMDP, as_pomdp
from icdm.sharding import gathered
from icdm.trajectories.collect import Tasks
from icdm.trajectories.trajectory import Trajectories

NEVER = 1e-30  # least likelihood of a signal, so that weights stay finite if it is impossible in all tasks
AT_ONCE = 16  # rows whose contexts are processed in parallel


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["problem", "model", "alpha", "prior", "pays"],
    meta_fields=[],
)
@dataclasses.dataclass(frozen=True)
class Plans:
    """G solved tasks of a family, NumPy float64.

    Attributes:
      problem: G POMDPs.
      model: their belief models.
      alpha: (G, U, J, S) alpha-vectors, by decisions to go.
      prior: (G,) prior weights.
      pays: (n,) possible rewards; None if rewards are not observed or are random.
    """

    problem: POMDP
    model: BeliefModel
    alpha: np.ndarray
    prior: np.ndarray
    pays: np.ndarray | None


def plan_grid(family: HasGrid, n: int, precision: OracleConfig, key: jax.Array) -> Plans:
    """Solves the grid of a family with n values of its first parameter.

    Fully observed problems become POMDPs whose observations are the states.
    """
    with jax.enable_x64(True):
        problem, prior = family.grid(n)
        problem = jax.tree.map(np.asarray, as_pomdp(problem))
    planner = certify(problem, precision, key).critic.planner
    mdp = problem.mdp
    pays = None
    if problem.shows_reward and mdp.reward_noise == "none":
        pays = np.unique(mdp.reward[..., None] + mdp.arrival_reward[:, None, None])
    return Plans(problem, planner.model, planner.alpha, np.asarray(prior), pays)


def read(plans: Plans, context: Trajectories) -> np.ndarray:
    """Log posterior weights log Pr(context of row b | g) + log prior_g, normalised, (B, G), float64.

    Args:
      context: Trajectories (B, K, ...).
    """
    with jax.enable_x64(True):
        arrays = context.observation, context.action, context.reward.astype(jnp.float64), context.valid
        return gathered(_read(jax.tree.map(jnp.asarray, plans), arrays))


@jax.jit
def _read(plans: Plans, context: tuple[jax.Array, ...]) -> jax.Array:
    def one(row: tuple[jax.Array, ...]):
        observation_KU, action_KT, reward_KT, valid_KT = row
        belief_KGS, log_KG = start(plans, observation_KU[:, 0])

        def step(carry: tuple[jax.Array, jax.Array], recorded: tuple[jax.Array, ...]):
            observation_K, action_K, reward_K, valid_K = recorded
            belief_KGS, log_KG = carry
            later_KGS, more_KG = advance(plans, belief_KGS, action_K, observation_K, reward_K)
            return (
                jnp.where(valid_K[:, None, None], later_KGS, belief_KGS),
                log_KG + jnp.where(valid_K[:, None], more_KG, 0),
            ), None

        steps = (observation_KU[:, 1:], action_KT, reward_KT, valid_KT)
        steps = jax.tree.map(lambda leaf: jnp.moveaxis(leaf, 1, 0), steps)
        (_, log_KG), _ = jax.lax.scan(step, (belief_KGS, log_KG), steps)
        return jax.nn.log_softmax(log_KG.sum(0) + jnp.log(plans.prior))

    return jax.lax.map(one, context, batch_size=min(context[0].shape[0], AT_ONCE))


def start(plans: Plans, observation_B: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Beliefs (B, G, S) after a first observation, and its log likelihood (B, G)."""

    def one(problem: POMDP):
        return first_filter(_alone(problem), jnp.zeros_like(observation_B), observation_B)

    belief_BGS, chance_BG = jax.vmap(one, out_axes=1)(plans.problem)
    return belief_BGS, log_chance(chance_BG)


def advance(
    plans: Plans, belief_BGS: jax.Array, action_B: jax.Array, observation_B: jax.Array, reward_B: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Beliefs (B, G, S) after a step, and the log likelihood of its signal (B, G)."""
    if plans.pays is not None:
        reward_B = plans.pays[jnp.abs(reward_B[:, None] - plans.pays[None]).argmin(1)]

    def one(problem: POMDP, belief_BS: jax.Array):
        task_B = jnp.zeros_like(action_B)
        return filter_step(_alone(problem), task_B, belief_BS, action_B, observation_B, reward_B)

    belief_BGS, chance_BG = jax.vmap(one, (0, 1), 1)(plans.problem, belief_BGS)
    return belief_BGS, log_chance(chance_BG)


@functools.partial(jax.tree_util.register_dataclass, data_fields=["plans", "log_weight"], meta_fields=[])
@dataclasses.dataclass(frozen=True)
class PosteriorGrid:
    """Acts greedily on the posterior mean of the tasks' Q-values.

    Attributes:
      plans: the solved grid.
      log_weight: (B, G) log posterior weights from `read`; `log(plans.prior)[None]` without a context.
    """

    plans: Plans
    log_weight: np.ndarray

    def init(self, task_B: jax.Array) -> Carry:
        n_rows, (n_tasks, n_states) = task_B.shape[0], self.plans.problem.mdp.initial.shape
        log_BG = jnp.broadcast_to(jnp.asarray(self.log_weight, float), (n_rows, n_tasks))
        zero_B = jnp.zeros(n_rows, jnp.int32)
        return zero_B, jnp.zeros((n_rows, n_tasks, n_states), log_BG.dtype), log_BG, zero_B, jnp.zeros(n_rows)

    def act(self, carry: Carry, observation_B: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array, Carry]:
        t_B, belief_BGS, log_BG, action_B, reward_B = carry
        plans = jax.tree.map(jnp.asarray, self.plans)
        at_start = start(plans, observation_B)
        later = advance(plans, belief_BGS, action_B, observation_B, reward_B)
        belief_BGS = jnp.where((t_B == 0)[:, None, None], at_start[0], later[0])
        log_BG = jax.nn.log_softmax(log_BG + jnp.where((t_B == 0)[:, None], at_start[1], later[1]))
        q_BA = mean_q(plans, belief_BGS, jnp.exp(log_BG), t_B)
        return q_BA.argmax(-1).astype(jnp.int32), q_BA, (t_B, belief_BGS, log_BG, action_B, reward_B)

    def observe(self, carry: Carry, action_B: jax.Array, reward_B: jax.Array) -> Carry:
        t_B, belief_BGS, log_BG, _, before_B = carry
        return t_B + 1, belief_BGS, log_BG, action_B.astype(jnp.int32), reward_B.astype(before_B.dtype)


@dataclasses.dataclass(frozen=True)
class GridReader:
    """Computes the posterior given each row's context, and acts by `PosteriorGrid`."""

    plans: Plans

    def policy(self, tasks: Tasks, task_B: jax.Array, context: Trajectories, key: jax.Array) -> PosteriorGrid:
        return PosteriorGrid(self.plans, read(self.plans, context))


def mean_q(plans: Plans, belief_BGS: jax.Array, weight_BG: jax.Array, t_B: jax.Array) -> jax.Array:
    """sum_g w_g Q_g(b_g, a), (B, A), by a loop over the tasks of the grid."""

    def add(total_BA: jax.Array, task: tuple):
        model, alpha_UJS, belief_BS, weight_B = task
        joint_BAZS = jnp.einsum("bs,azst->bazt", belief_BS, model.kernel)
        value_BAZ = jnp.einsum("bazt,bjt->bazj", joint_BAZS, alpha_UJS[model.horizon - t_B - 1]).max(-1)
        q_BA = belief_BS @ model.reward + model.discount * value_BAZ.sum(-1)
        return total_BA + weight_B[:, None] * q_BA, None

    zero_BA = jnp.zeros((weight_BG.shape[0], plans.model.reward.shape[-1]), belief_BGS.dtype)
    tasks = plans.model, plans.alpha, jnp.moveaxis(belief_BGS, 1, 0), weight_BG.T
    return jax.lax.scan(add, zero_BA, tasks)[0]


def _alone(problem: POMDP) -> POMDP:
    return jax.tree.map(lambda leaf: leaf[None], problem)


def log_chance(chance: jax.Array) -> jax.Array:
    """The logarithm of likelihoods, which are taken as NEVER at least."""
    return jnp.log(jnp.maximum(chance, NEVER))
