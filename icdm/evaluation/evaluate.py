"""Measures deciders on unseen tasks: the same tasks, contexts and luck for every one of them."""

import dataclasses
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np

from icdm.errors import UserError
from icdm.learning.data import ContextConfig, Tasks, draw_problems, record, to_float32
from icdm.learning.sharding import place_rows
from icdm.oracles.backward_induction import optimal_value, plan, policy_value
from icdm.oracles.planners import plan_from_context, planners_of
from icdm.problems.families import Family, n_observations
from icdm.problems.policy import MarkovPolicy, Policy, greedy_policy, uniform_policy
from icdm.trajectories.rollout import Trajectories, rollout


@dataclasses.dataclass(frozen=True)
class EvaluationConfig:
    """How much is measured.

    Attributes:
      tasks: N, unseen tasks (as many as there are, if the family has only so many).
      episodes: R, episodes of every decider in each task, each with a context of its own.
      rows: how many episodes run side by side.
    """

    tasks: int = 100
    episodes: int = 4
    rows: int = 2000

    def __post_init__(self):
        for name, value in dataclasses.asdict(self).items():
            if value < 1:
                raise UserError(f"evaluation.{name} {value}: give at least 1")


# Of each chunk of rows: (tasks, task_B, context, key) -> the policy that acts there.
Decider = Callable[[Tasks, jax.Array, Trajectories, jax.Array], Policy]


@dataclasses.dataclass(frozen=True)
class TestTasks:
    """Unseen tasks with their exact bounds, and every row's context.

    Attributes:
      tasks: N problems and their Q-functions in float32.
      optimal_N, random_N, expert_N: float64 exact values of the optimal policy, of the uniform random
        one, and of the family's expert if it has one.
      task_B: which task each of B = N R rows acts in; rows of a task lie side by side.
      context: Trajectories (B, K, ...).
    """

    family: Family
    tasks: Tasks
    optimal_N: np.ndarray
    random_N: np.ndarray
    expert_N: np.ndarray | None
    task_B: jax.Array
    context: Trajectories
    key: jax.Array


def make_test_tasks(family: Family, context: ContextConfig, config: EvaluationConfig, key: jax.Array) -> TestTasks:
    """Draws the tasks, solves them in float64 and records a context for every row."""
    task_key, context_key, key = jax.random.split(key, 3)
    n = family.n_tasks or config.tasks
    problem = draw_problems(family, task_key, n)
    q = plan(problem)
    optimal_N, random_N = exact_bounds(family, problem, q)
    expert_N = None
    if hasattr(family, "expert"):
        expert_N = np.asarray(policy_value(problem, np.broadcast_to(family.expert, (n, 1, *family.expert.shape))))
    tasks = to_float32(Tasks(problem, q))
    task_B = jnp.repeat(jnp.arange(n), config.episodes)
    shown = record(family, tasks, task_B, context_key, context.behavior, context.episodes, context.epsilon)
    return TestTasks(
        family=family,
        tasks=tasks,
        optimal_N=optimal_N,
        random_N=random_N,
        expert_N=expert_N,
        task_B=task_B,
        context=dataclasses.replace(shown, q=None),
        key=key,
    )


def exact_bounds(family: Family, problem, q: jax.Array) -> tuple[np.ndarray, np.ndarray]:
    """Values of the optimal and of the uniform random policy in each of N solved problems, float64."""
    uniform = uniform_policy(n_observations(family), family.n_actions).table
    table = np.broadcast_to(uniform, (q.shape[0], *uniform.shape[1:]))
    return np.asarray(optimal_value(problem, q)), np.asarray(policy_value(problem, table))


def measure(test: TestTasks, decider: Decider, config: EvaluationConfig, mesh: jax.sharding.Mesh) -> np.ndarray:
    """Value of a decider in each of the N tasks, float64; where there is one task, in each episode.

    By the performance-difference lemma (Kakade and Langford, 2002),

        V^pi = V* - E[ sum_t gamma^t (max_a Q*_t(s_t, a) - Q*_t(s_t, a_t)) ],

    so the regret of each decision is averaged over episodes instead of the rewards: the mean is the
    same, the luck of rewards and transitions is gone.
    """
    n = test.optimal_N.size if test.optimal_N.size > 1 else test.task_B.size
    regret_B = np.concatenate([_regrets(test, decider, rows, mesh) for rows in _chunks(test.task_B.size, config.rows)])
    return test.optimal_N - regret_B.reshape(n, -1).mean(1)


def reference_deciders(test: TestTasks) -> Iterator[tuple[str, Decider]]:
    """The deciders that need no training, by their names in results.json."""
    yield "oracle", lambda tasks, task_B, context, key: greedy_policy(tasks.q)
    if test.tasks.n > 1:  # with one task there is nothing that a context could tell
        for planner in planners_of(test.family):
            yield planner, planning_decider(test.family, planner)


def planning_decider(family: Family, planner: str) -> Decider:
    def decide(tasks, task_B, context, key):
        q_BTSA = to_float32(plan_from_context(family, tasks.problem, context, planner, key))
        return MarkovPolicy(greedy_policy(q_BTSA).table, index=jnp.arange(task_B.size))

    return decide


def _regrets(test, decider, rows, mesh):
    """Discounted sum of the regrets of an episode's decisions, for a chunk of rows."""
    chunk = jax.tree.map(lambda x: x[rows], (test.task_B, test.context))
    task_B, context = place_rows(mesh, chunk, rows.stop - rows.start)
    key = jax.random.fold_in(test.key, rows.start)
    policy = decider(test.tasks, task_B, context, jax.random.fold_in(key, 1))
    return np.asarray(_episode_regrets(test.tasks, task_B, policy, key), np.float64)


@jax.jit
def _episode_regrets(tasks, task_B, policy, key):
    episode = rollout(tasks.problem, task_B, policy, key, tasks.q)
    taken_BT1 = jnp.take_along_axis(episode.q, episode.action[..., None], -1)
    regret_BT = jnp.where(episode.valid, episode.q.max(-1) - taken_BT1[..., 0], 0)
    discount_BT = tasks.problem.discount[task_B][:, None] ** jnp.arange(regret_BT.shape[1])[None]
    return (discount_BT * regret_BT).sum(-1)


def _chunks(n: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, n)) for start in range(0, n, size)]
