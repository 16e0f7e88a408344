"""The Bayes reader whose prior is the training tasks: what a model can reach that has memorised them and nothing else.

Source: the discrete minimum-mean-square-error predictor of Raventos, Paul, Chen and Ganguli, "Pretraining task
diversity and the emergence of non-Bayesian in-context learning for regression" (NeurIPS 2023), for decisions. Axis
letters as in docs/axes.md, and G training tasks.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp

from icdm.problems.mdp import MDP
from icdm.problems.policy import Carry
from icdm.readers.posterior_grid import AT_ONCE, log_chance
from icdm.trajectories.collect import Tasks
from icdm.trajectories.trajectory import NOTHING, Step, Trajectories

CLOSE = 1e-4  # to which a deterministic reward must be met


@dataclasses.dataclass(frozen=True)
class Memoriser:
    """Weighs G training tasks of a fully observed family by the likelihood of each row's context.

    Attributes:
      known: the training tasks and their Q*.
    """

    known: Tasks

    def policy(self, tasks: Tasks, task_B: jax.Array, context: Trajectories, key: jax.Array) -> "MemoriserPolicy":
        return MemoriserPolicy(self.known, _read(self.known.problem, context))


@functools.partial(jax.tree_util.register_dataclass, data_fields=["known", "log_weight"], meta_fields=[])
@dataclasses.dataclass(frozen=True)
class MemoriserPolicy:
    """Takes the first best action of sum_g w_g Q*_g(s, a), with

        w_g ∝ Pr(context | g) Pr(steps of this episode | g) / G.

    Attributes:
      log_weight: (B, G) log Pr(context of row b | g).
    """

    known: Tasks
    log_weight: jax.Array

    def init(self, task_B: jax.Array) -> Carry:
        """(log weights, the step whose arrival is not yet observed, t)."""
        nothing_B = jnp.full_like(task_B, NOTHING)
        return self.log_weight, Step(nothing_B, nothing_B, jnp.zeros(task_B.shape), nothing_B), jnp.int32(0)

    def act(self, carry: Carry, observation_B: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array, Carry]:
        log_BG, before, t = carry
        more_BG = jax.vmap(functools.partial(_log_likelihood, self.known.problem))(
            before._replace(arrival=observation_B)
        )
        log_BG = log_BG + jnp.where((before.observation != NOTHING)[:, None], more_BG, 0)
        q_GBA = self.known.oracle.table[:, t, observation_B]
        q_BA = jnp.einsum("bg,gba->ba", jax.nn.softmax(log_BG), q_GBA)
        nothing_B = jnp.full_like(observation_B, NOTHING)
        step = Step(observation_B, nothing_B, jnp.zeros(observation_B.shape), nothing_B)
        return q_BA.argmax(-1).astype(jnp.int32), q_BA, (log_BG, step, t)

    def observe(self, carry: Carry, action_B: jax.Array, reward_B: jax.Array) -> Carry:
        log_BG, step, t = carry
        return log_BG, step._replace(action=action_B, reward=reward_B), t + 1


@jax.jit
def _read(problem: MDP, context: Trajectories) -> jax.Array:
    """Log likelihood of each row's context in each of G tasks, (B, G)."""

    def read_row(row: Trajectories) -> jax.Array:
        steps = Step(*(x.ravel() for x in row.steps))

        def add(total_G: jax.Array, step: tuple[Step, jax.Array]):
            own, valid = step
            return total_G + jnp.where(valid, _log_likelihood(problem, own), 0), None

        zeros_G = jnp.zeros(problem.initial.shape[0])
        return jax.lax.scan(add, zeros_G, (steps, row.valid.ravel()))[0]

    rows = context.action.shape[0]
    return jax.lax.map(read_row, context, batch_size=min(rows, AT_ONCE))


def _log_likelihood(problem: MDP, step: Step) -> jax.Array:
    """log P_g(s' | s, a) + log p_g(r | s, a, s') of one step in each of G tasks, (G,)."""
    s, a, arrival = step.observation, step.action, step.arrival
    own_G = step.reward - problem.arrival_reward[:, arrival]
    mean_G = problem.reward[:, s, a]
    if problem.reward_noise == "bernoulli":
        chance_G = jnp.where(own_G > 0.5, mean_G, 1 - mean_G)
    elif problem.reward_noise == "gaussian":
        chance_G = jnp.exp(-jnp.square((own_G - mean_G) / problem.noise_scale) / 2)
    else:
        chance_G = (jnp.abs(own_G - mean_G) <= CLOSE).astype(mean_G.dtype)
    return log_chance(problem.transition[:, a, s, arrival]) + log_chance(chance_G)
