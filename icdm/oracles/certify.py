"""The oracle of any batch of problems, and brackets of the optimal values."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

from icdm.oracles.alpha_meu import GENERATION, solve_recursive
from icdm.oracles.backward_induction import optimal_value, plan
from icdm.oracles.belief import BeliefModel, belief_model
from icdm.oracles.point_based import solve
from icdm.oracles.pomdp_planners import AlphaVectors, Ambiguous, BeliefPolicy, fast_informed
from icdm.problems.ambiguous import AmbiguousPOMDP
from icdm.problems.mdp import MDP
from icdm.problems.policy import Oracle, TableOracle
from icdm.problems.pomdp import POMDP

ERROR_PATHS = 32  # paths in the estimate of the error of a recursive alpha-maxmin value


@dataclasses.dataclass(frozen=True)
class OracleConfig:
    """Precision of the oracles of partially observed problems; oracles of fully observed problems are exact.

    Attributes:
      tolerance: largest width of the bracket of the optimal value V, as a share of max(1, |V|).
      points: most belief points, in addition to the corners of the simplex.
      time_limit: seconds after which no refinement starts.
    """

    tolerance: float = 0.02
    points: int = 48
    time_limit: float = math.inf


@dataclasses.dataclass(frozen=True)
class Certified:
    """N solved problems, in float64.

    Attributes:
      method: the method in words, and the objective if the problems are ambiguous.
      oracle: the oracle whose actions are imitated; the recursive alpha-maxmin oracle if the problems are ambiguous.
      critic: an oracle whose Q and V satisfy Bellman's equation in the (nominal) problem.
      start_N: the critic's value at the start of each problem.
      lower_N, upper_N: bracket of the optimal value of the (nominal) problem.
      error_N: estimated error of the recursive alpha-maxmin value at the start; 0 without ambiguity.
    """

    method: str
    oracle: Oracle
    critic: Oracle
    start_N: np.ndarray
    lower_N: np.ndarray
    upper_N: np.ndarray
    error_N: np.ndarray


@functools.singledispatch
def certify(problem: MDP | POMDP | AmbiguousPOMDP, config: OracleConfig, key: jax.Array) -> Certified:
    """The oracle of N problems, with brackets of their optimal values.

    The method is backward induction if the problem is fully observed, point-based alpha-vectors if it is partially
    observed, and recursive alpha-maxmin if it is ambiguous.
    """
    raise TypeError(f"no oracle for problems of kind {type(problem).__name__}")


@functools.singledispatch
def oracle_of(problem: MDP | POMDP | AmbiguousPOMDP, config: OracleConfig, key: jax.Array) -> Oracle:
    """The oracle of `certify`, without the computations for the bracket alone."""
    return certify(problem, config, key).oracle


@certify.register
def _(problem: MDP, config: OracleConfig, key: jax.Array) -> Certified:
    q = plan(problem)
    optimal_N = np.asarray(optimal_value(problem, q))
    oracle = TableOracle(q)
    return Certified("exact", oracle, oracle, optimal_N, optimal_N, optimal_N, np.zeros_like(optimal_N))


@certify.register
def _(problem: POMDP, config: OracleConfig, key: jax.Array) -> Certified:
    model = belief_model(problem)
    limits = dict(time_limit=config.time_limit, most_points=problem.n_states + config.points)
    solution = solve(model, key, tolerance=config.tolerance, **limits)
    oracle, start_N = _oracle_of_vectors(problem, model, solution.bounds.alpha)
    no_error_N = np.zeros_like(start_N)
    return Certified("point-based", oracle, oracle, start_N, solution.lower, solution.upper, no_error_N)


@certify.register
def _(problem: AmbiguousPOMDP, config: OracleConfig, key: jax.Array) -> Certified:
    oracle, error_N = _recursive(problem, config, key, ERROR_PATHS)
    nominal = certify(problem.nominal, config, key)
    return dataclasses.replace(nominal, method="recursive alpha-maxmin", oracle=oracle, error_N=error_N)


@oracle_of.register
def _(problem: AmbiguousPOMDP, config: OracleConfig, key: jax.Array) -> Oracle:
    return _recursive(problem, config, key, paths=0)[0]


def informed_critic(problem: POMDP) -> tuple[Oracle, np.ndarray]:
    """A critic whose V is the fast informed bound, which needs no point-based solution; and its start values (N,)."""
    model = belief_model(problem)
    after_NTAS = np.swapaxes(np.asarray(fast_informed(model))[:, ::-1], -1, -2)
    alpha = np.concatenate([np.zeros_like(after_NTAS[:, :1]), after_NTAS], 1)
    return _oracle_of_vectors(problem, model, alpha)


def _oracle_of_vectors(problem: POMDP, model: BeliefModel, alpha: np.ndarray) -> tuple[Oracle, np.ndarray]:
    planner = AlphaVectors(model, alpha)
    with jax.enable_x64(True):
        start_N = np.asarray(jax.tree.map(jnp.asarray, planner).start_value())
    return BeliefPolicy(problem, planner), start_N


def _recursive(problem: AmbiguousPOMDP, config: OracleConfig, key: jax.Array, paths: int) -> tuple[Oracle, np.ndarray]:
    points = dict(generations=max(1, config.points // GENERATION), nominal_points=config.points)
    solution = solve_recursive(problem, key, paths=paths, **points)
    planner = Ambiguous(belief_model(problem.models), problem.pessimism, solution.interpolated)
    return BeliefPolicy(problem.nominal, planner), solution.error
