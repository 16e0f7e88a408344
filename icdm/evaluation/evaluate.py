"""Measures deciders on unseen tasks: the same tasks, contexts and luck for every one of them."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from icdm.errors import UserError
from icdm.oracles.backward_induction import policy_value
from icdm.oracles.belief import belief_model
from icdm.oracles.certify import Certified, OracleConfig, certify, informed_critic
from icdm.oracles.pomdp_planners import BeliefPolicy, LinearQ, MostLikelyState, fast_informed, qmdp
from icdm.problems.ambiguous import AmbiguousPOMDP
from icdm.problems.family import Family
from icdm.problems.mdp import MDP
from icdm.problems.policy import MarkovPolicy, Oracle, Policy, greedy_policy
from icdm.readers.counts_planners import plan_from_context, planners_of
from icdm.readers.fitted_pomdp import fitted_policy
from icdm.readers.posterior_grid import PosteriorGrid, plan_grid, read
from icdm.sharding import place_rows
from icdm.trajectories.collect import ContextConfig, Tasks, draw_problems, play, to_float32
from icdm.trajectories.rollout import Trajectories, assess_along, rollout

GRID = 16  # tasks along the first parameter of a family's grid


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
class TestTasks:
    """Unseen tasks with their bounds, and every row's context.

    Attributes:
      tasks: N problems and their oracle in float32.
      certified: how they were solved, and the bracket of their optimal values in float64.
      world: the same problems (the nominal ones, of clouds) and their critic.
      members: the other members of clouds as worlds of their own.
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
        """The decider whose measured value stands for the optimum of hidden states: of clouds, the nominal one's."""
        return "nominal_oracle" if self.is_cloud else "oracle"

    @property
    def is_cloud(self) -> bool:
        return isinstance(self.tasks.problem, AmbiguousPOMDP)


def make_test_tasks(
    family: Family, context: ContextConfig, config: EvaluationConfig, precision: OracleConfig, key: jax.Array
) -> TestTasks:
    """Draws the tasks, solves them in float64 and records a context for every row."""
    task_key, context_key, key = jax.random.split(key, 3)
    n = family.n_tasks or config.tasks
    problem = draw_problems(family, task_key, n)
    test = solved_tasks(family, problem, precision, config.episodes, key)
    shown = play(family, test.tasks, test.task_B, context_key, context.behavior, context.episodes, context.epsilon)
    return dataclasses.replace(test, context=shown)


def solved_tasks(family: Family, problem, precision: OracleConfig, episodes: int, key: jax.Array) -> TestTasks:
    """N problems in float64 as test tasks without a context, `episodes` rows of each."""
    certified = certify(problem, precision, jax.random.fold_in(key, 0))
    tasks = to_float32(Tasks(problem, certified.oracle))
    nominal, members = problem, ()
    if isinstance(problem, AmbiguousPOMDP):
        nominal = problem.model(problem.nominal)
        others = [problem.model(m) for m in range(problem.n_models) if m != problem.nominal]
        members = tuple(World(to_float32(other), *informed_critic(other)) for other in others)
    expert_N = None
    if hasattr(family, "expert"):
        expert_N = _blind_value(nominal, family.expert[None, None])
    return TestTasks(
        family=family,
        tasks=tasks,
        certified=certified,
        world=World(to_float32(nominal), certified.critic, certified.start_N),
        members=members,
        random_N=_blind_value(nominal, np.full((1, 1, 1, family.n_actions), 1 / family.n_actions)),
        expert_N=expert_N,
        task_B=jnp.repeat(jnp.arange(tasks.n), episodes),
        context=None,
        key=key,
    )


def _blind_value(problem, policy_11SA: np.ndarray) -> np.ndarray:
    """Exact value of a Markov policy over states in each of N problems, (N,); of one that looks at nothing
    wherever the state is hidden."""
    mdp: MDP = getattr(problem, "mdp", problem)
    shape = (mdp.transition.shape[0], 1, mdp.n_states, mdp.n_actions)
    return np.asarray(policy_value(mdp, np.broadcast_to(policy_11SA, shape)))


def measure(
    test: TestTasks, decider: Decider, config: EvaluationConfig, mesh: jax.sharding.Mesh, world: World | None = None
) -> np.ndarray:
    """Value of a decider in each of the N tasks, float64; where there is one task, in each episode.

    With a critic's V, and its Q_t(i, a) = r(i, a) + gamma E[V_{t+1}(i')] of what was seen so far, i,

        V^pi = E[V_0(i_0)] + E[ sum_t gamma^t (Q_t(i_t, a_t) - V_t(i_t)) ],

    which holds for any function V (with V = V* it is the performance-difference lemma of Kakade and
    Langford, 2002). Averaging these advantages instead of the rewards leaves the mean as it is, and takes
    the luck of rewards and transitions away.

    Args:
      world: where to act, by default in the tasks themselves; the decider knows of those alone.
    """
    world = world or test.world
    n = test.tasks.n if test.tasks.n > 1 else test.task_B.size
    chunks = _chunks(test.task_B.size, config.rows)
    advantage_B = np.concatenate([_advantages(test, world, decider, rows, mesh) for rows in chunks])
    return world.start_N + advantage_B.reshape(n, -1).mean(1)


def measure_members(
    test: TestTasks, decider: Decider, config: EvaluationConfig, mesh: jax.sharding.Mesh, value_N: np.ndarray
) -> np.ndarray:
    """Value of a decider under every member of clouds, (N, M), the nominal one first: there it is `value_N`."""
    others = [measure(test, decider, config, mesh, world) for world in test.members]
    return np.stack([value_N, *others], axis=-1)


def reference_deciders(test: TestTasks) -> Iterator[tuple[str, Decider]]:
    """The deciders that need no training, by their names in results.json."""
    yield "oracle", lambda tasks, task_B, context, key: tasks.oracle
    if test.is_cloud:
        nominal_oracle = to_float32(test.certified.critic)
        yield test.counted_from, lambda tasks, task_B, context, key: nominal_oracle
    if not isinstance(test.tasks.problem, MDP):
        nominal = test.world.problem
        shown, informed = (to_float32(table) for table in (qmdp(nominal), fast_informed(belief_model(nominal))))
        planners = {
            "qmdp": LinearQ(shown),
            "fast_informed": LinearQ(informed),
            "most_likely_state": MostLikelyState(shown),
        }
        for name, planner in planners.items():
            policy = BeliefPolicy(nominal, planner)
            yield name, lambda tasks, task_B, context, key, policy=policy: policy
        if hasattr(test.family, "grid"):
            plans = plan_grid(test.family, GRID, OracleConfig(), jax.random.fold_in(test.key, 1))
            yield "posterior_mean", lambda tasks, task_B, context, key: PosteriorGrid(plans, read(plans, context))
        else:
            yield (
                "certainty_equivalence",
                lambda tasks, task_B, context, key: fitted_policy(test.family, nominal, context, key),
            )
    elif test.tasks.n > 1:  # with one task there is nothing that a context could tell
        for planner in planners_of(test.family):
            yield planner, planning_decider(test.family, planner)


def planning_decider(family: Family, planner: str) -> Decider:
    def decide(tasks, task_B, context, key):
        q_BTSA = to_float32(plan_from_context(family, tasks.problem, context, planner, key))
        return MarkovPolicy(greedy_policy(q_BTSA).table, index=jnp.arange(task_B.size))

    return decide


def _advantages(test, world, decider, rows, mesh):
    """Discounted sum of the advantages of an episode's decisions, for a chunk of rows, float64."""
    chunk = jax.tree.map(lambda x: x[rows], (test.task_B, test.context))
    task_B, context = place_rows(mesh, chunk, rows.stop - rows.start)
    key = jax.random.fold_in(test.key, rows.start)
    policy = decider(test.tasks, task_B, context, jax.random.fold_in(key, 1))
    episode = _play(world.problem, task_B, policy, key)
    with jax.enable_x64(True):
        return np.asarray(_summed(world.critic, world.problem.discount, task_B, episode))


@jax.jit
def _play(problem, task_B, policy, key):
    return rollout(problem, task_B, policy, key)


@jax.jit
def _summed(critic, discount_N, task_B, episode):
    q_BTA, value_BT = assess_along(critic, task_B, episode)
    taken_BT = jnp.take_along_axis(q_BTA, episode.action[..., None], -1)[..., 0]
    advantage_BT = jnp.where(episode.valid, taken_BT - value_BT, 0)
    discount_BT = discount_N[task_B][:, None] ** jnp.arange(advantage_BT.shape[1])[None]
    return (discount_BT * advantage_BT).sum(-1)


def _chunks(n: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, n)) for start in range(0, n, size)]
