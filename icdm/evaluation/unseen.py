"""Unseen tasks: the same tasks, contexts and random numbers for every reader that is measured on them."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from icdm.errors import UserError, unknown
from icdm.oracles.backward_induction import policy_value
from icdm.oracles.certify import Certified, OracleConfig, certify, informed_critic
from icdm.problems.family import Family, HasExpert
from icdm.problems.policy import Oracle
from icdm.readers.counts_planners import DOUBTING
from icdm.trajectories.collect import ContextConfig, Tasks, draw_problems, play, to_float32
from icdm.trajectories.trajectory import Trajectories


@dataclasses.dataclass(frozen=True)
class EvaluationConfig:
    """How much is measured.

    Attributes:
      tasks: N, unseen tasks (as many as there are, if the family has only so many).
      episodes: R, episodes of every decider in each task, each with a context of its own.
      rows: how many episodes run side by side.
      contexts: further contexts in which the models that read one are measured, "BEHAVIOR:EPISODES" each.
      planners: further references, of `icdm.readers.counts_planners.DOUBTING`.
      own_episodes: in how many episodes of a task deciders explore from nothing (`icdm.evaluation.exploration`).
    """

    tasks: int = 100
    episodes: int = 4
    rows: int = 2000
    contexts: tuple[str, ...] = ()
    planners: tuple[str, ...] = ()
    own_episodes: int = 0

    def __post_init__(self):
        for name in self.planners:
            if name not in DOUBTING:
                raise unknown("evaluation.planners", name, DOUBTING)
        for name in ("tasks", "episodes", "rows"):
            value = dataclasses.asdict(self)[name]
            if value < 1:
                raise UserError(f"evaluation.{name} {value}: give at least 1")

    def further(self, context: ContextConfig) -> dict[str, ContextConfig]:
        """Every further context by its text; epsilon is that of `context`.

        Raises:
          UserError: a text of another form.
        """
        return {text: context_of(text, context, "evaluation.contexts") for text in self.contexts}


def context_of(text: str, context: ContextConfig, field: str) -> ContextConfig:
    """Another context as a text says; epsilon stays.

    Raises:
      UserError: a text of another form in this field of a config.
    """
    behavior, _, episodes = text.partition(":")
    if not episodes.isdecimal():
        raise UserError(f"{field} {text!r}: write BEHAVIOR:EPISODES, for instance oracle:4")
    return dataclasses.replace(context, behavior=behavior, episodes=int(episodes))


@dataclasses.dataclass(frozen=True)
class World:
    """N problems to act in, float32, with the critic by which deciders are valued there.

    Attributes:
      critic: an oracle in float64 whose Q and V are consistent with each other in these problems.
      start_N: (N,) its value at their starts, float64.
    """

    problem: Any
    critic: Oracle
    start_N: np.ndarray


@dataclasses.dataclass(frozen=True)
class UnseenTasks:
    """Unseen tasks with their bounds, and every row's context.

    Attributes:
      tasks: N problems and their oracle in float32.
      certified: how they were solved, and the bracket of their optimal values in float64.
      world: the same problems (if the model is ambiguous, the nominal ones) and their critic.
      members: the other models of the ambiguity sets, as worlds of their own.
      random_N, expert_N: float64 exact values of the uniform random policy, and of the family's expert if
        it has one.
      task_B: which task each of B = N R rows acts in; rows of a task lie side by side.
      context: Trajectories (B, K, ...).
    """

    family: Family
    tasks: Tasks
    certified: Certified
    world: World
    members: tuple[World, ...]
    random_N: np.ndarray
    expert_N: np.ndarray | None
    task_B: jax.Array
    context: Trajectories | None
    key: jax.Array

    @property
    def counted_from(self) -> str:
        """The decider whose measured value stands for the optimum if that is not known exactly."""
        return "nominal_oracle" if self.is_ambiguous else "oracle"

    @property
    def is_ambiguous(self) -> bool:
        return self.tasks.problem.is_ambiguous


def draw_unseen(
    family: Family, context: ContextConfig, config: EvaluationConfig, precision: OracleConfig, key: jax.Array
) -> UnseenTasks:
    """Draws the tasks, solves them in float64 and records a context for every row."""
    task_key, context_key, key = jax.random.split(key, 3)
    n = family.n_tasks or config.tasks
    problem = draw_problems(family, task_key, n)
    return with_context(solved_tasks(family, problem, precision, config.episodes, key), context, context_key)


def with_context(unseen: UnseenTasks, context: ContextConfig, key: jax.Array) -> UnseenTasks:
    """The same tasks and random numbers, with contexts recorded anew."""
    recorded = play(
        unseen.family, unseen.tasks, unseen.task_B, key, context.behavior, context.episodes, context.epsilon
    )
    return dataclasses.replace(unseen, context=recorded)


def solved_tasks(family: Family, problem: Any, precision: OracleConfig, episodes: int, key: jax.Array) -> UnseenTasks:
    """N problems in float64 as unseen tasks without a context, `episodes` rows of each."""
    certified = certify(problem, precision, jax.random.fold_in(key, 0))
    tasks = to_float32(Tasks(problem, certified.oracle))
    nominal = problem.nominal
    expert_N = None
    if isinstance(family, HasExpert):
        expert_N = _blind_value(nominal, family.expert[None, None])
    return UnseenTasks(
        family=family,
        tasks=tasks,
        certified=certified,
        world=World(to_float32(nominal), certified.critic, certified.start_N),
        members=tuple(World(to_float32(other), *informed_critic(other)) for other in problem.others),
        random_N=_blind_value(nominal, np.full((1, 1, 1, family.n_actions), 1 / family.n_actions)),
        expert_N=expert_N,
        task_B=jnp.repeat(jnp.arange(tasks.n), episodes),
        context=None,
        key=key,
    )


def _blind_value(problem: Any, policy_11SA: np.ndarray) -> np.ndarray:
    """Exact value of a Markov policy over states in each of N problems, (N,); of one that looks at nothing
    wherever the state is hidden."""
    mdp = problem.mdp
    shape = (mdp.transition.shape[0], 1, mdp.n_states, mdp.n_actions)
    return np.asarray(policy_value(mdp, np.broadcast_to(policy_11SA, shape)))
