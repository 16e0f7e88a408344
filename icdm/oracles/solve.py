"""`icdm solve`: the optimal value of Cassandra's `.POMDP` files, exact or between certified bounds."""

import argparse
import json
import sys
import time
import warnings

import jax
import numpy as np

from icdm.errors import TooLarge, UserError
from icdm.families.cassandra import read_pomdp
from icdm.oracles import point_based
from icdm.oracles.alpha_meu import committed, solve_recursive
from icdm.oracles.alpha_vectors import alpha_vectors
from icdm.oracles.belief import BeliefModel, belief_model, start_belief
from icdm.oracles.belief_tree import tree_values
from icdm.problems.ambiguous import make_ambiguous
from icdm.problems.pomdp import POMDP

BOUNDS_INSTEAD = "use the bounds of the point-based oracle (--method bounds)"
RECURSIVE_INSTEAD = "use the recursive objective (--form recursive)"

Answer = tuple[float, float, int, str]  # lower bound, upper bound, first action, method


def main(arguments: argparse.Namespace) -> None:
    """Solves the problem that the arguments of `icdm solve` describe and prints the answer."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        answer = solve(arguments)
    for message in dict.fromkeys(str(warning.message) for warning in caught if warning.category is UserWarning):
        print(f"icdm: warning: {message}", file=sys.stderr)
    print(json.dumps(answer) if arguments.json else _text(answer))


def solve(arguments: argparse.Namespace) -> dict:
    """The answer as the object that --json prints.

    Raises:
      UserError: a file cannot be read, arguments contradict each other, or the chosen method refuses the
        problem because of its size.
    """
    _check(arguments)
    horizon = 1 if arguments.infinite else arguments.horizon
    files = [arguments.file, *arguments.models]
    named = [read_pomdp(path, horizon=horizon, discount=arguments.discount) for path in files]
    if arguments.infinite and named[0].problem.discount >= 1:
        raise UserError("an infinite horizon needs a discount below 1: give --discount")
    started = time.perf_counter()
    if arguments.pessimism is None:
        lower, upper, action, method = _one_model(named[0].problem, arguments)
    else:
        lower, upper, action, method = _ambiguity_set([model.problem for model in named], arguments)
    return {
        "lower": float(lower),
        "upper": float(upper),
        "action": named[0].actions[action],
        "horizon": None if arguments.infinite else arguments.horizon,
        "discount": float(named[0].problem.discount),
        "method": method,
        "seconds": round(time.perf_counter() - started, 3),
    }


def _one_model(problem: POMDP, arguments: argparse.Namespace) -> Answer:
    model = belief_model(problem)
    belief = start_belief(model)
    method = arguments.method
    if arguments.infinite or method == "bounds":
        return _bounds(model, arguments)
    if method == "alpha-vectors":
        try:
            plans = alpha_vectors(model)[-1]
        except TooLarge as error:
            raise UserError(f"{error}: {BOUNDS_INSTEAD}") from None
        value = plans.value(belief)
        return value, value, int(plans.action(belief)), f"exact: {len(plans.actions)} alpha-vectors"
    try:
        q_values = tree_values(model, belief)
    except TooLarge as error:
        if method == "tree":
            raise UserError(f"{error}: {BOUNDS_INSTEAD}") from None
        return _bounds(model, arguments)
    return q_values.max(), q_values.max(), int(q_values.argmax()), "exact: belief tree"


def _bounds(model: BeliefModel, arguments: argparse.Namespace) -> Answer:
    batch = jax.tree.map(lambda leaf: np.asarray(leaf)[None], model)
    solution = point_based.solve(
        batch,
        jax.random.key(0),
        tolerance=arguments.tolerance,
        time_limit=arguments.time_limit,
        infinite=arguments.infinite,
    )
    lower, upper = solution.lower[0], max(solution.lower[0], solution.upper[0])
    if upper - lower > arguments.tolerance * max(1, abs(lower)):
        message = f"the bracket is still {upper - lower:.2g} wide: give more --time-limit, or a larger --tolerance"
        warnings.warn(message, stacklevel=2)
    bounds = jax.tree.map(lambda leaf: leaf[0], solution.bounds)
    with jax.enable_x64(True):
        q_lower, _ = bounds.q_values(jax.tree.map(jax.numpy.asarray, model), model.first.sum(0), arguments.horizon or 1)
    return lower, upper, int(np.asarray(q_lower).argmax()), f"bounds on {bounds.points.shape[0]} belief points"


def _ambiguity_set(problems: list[POMDP], arguments: argparse.Namespace) -> Answer:
    ambiguous = make_ambiguous(problems, pessimism=arguments.pessimism)
    if arguments.form == "committed":
        try:
            policy = committed(ambiguous)
        except TooLarge as error:
            raise UserError(f"{error}: {RECURSIVE_INSTEAD}") from None
        return (
            policy.value,
            policy.value,
            policy.action,
            "committed alpha-maxmin: exact, alpha-vectors and linear programme",
        )
    models = belief_model(ambiguous.models)
    belief = start_belief(jax.tree.map(lambda leaf: leaf[ambiguous.nominal_index], models))
    try:
        q_values = tree_values(models, belief, pessimism=arguments.pessimism)
        return (
            q_values.max(),
            q_values.max(),
            int(q_values.argmax()),
            "recursive alpha-maxmin: exact, belief tree",
        )
    except TooLarge:
        solution = solve_recursive(
            jax.tree.map(lambda leaf: np.asarray(leaf)[None], ambiguous), jax.random.key(0), generations=8
        )
    value, error = solution.value[0], solution.error[0]
    with jax.enable_x64(True):
        interpolated = jax.tree.map(lambda leaf: leaf[0], solution.interpolated)
        models = jax.tree.map(jax.numpy.asarray, models)
        q_values = interpolated.q_values(models, arguments.pessimism, belief, arguments.horizon)
    method = "recursive alpha-maxmin: tangents at belief points, error estimated by Bellman residuals"
    return value - error, value + error, int(np.asarray(q_values).argmax()), method


def _check(arguments: argparse.Namespace) -> None:
    if arguments.infinite == (arguments.horizon is not None):
        raise UserError("give either --horizon or --infinite")
    if arguments.tolerance <= 0 or arguments.time_limit <= 0:
        raise UserError("--tolerance and --time-limit need positive numbers")
    if arguments.models and arguments.pessimism is None:
        raise UserError("several models need --pessimism, in [0, 1] (1 plans for the worst model)")
    if arguments.infinite and arguments.pessimism is not None:
        raise UserError("ambiguous problems are solved at a finite horizon: give --horizon")
    if arguments.infinite and arguments.method not in ("auto", "bounds"):
        raise UserError(f"--method {arguments.method} needs a finite horizon: give --horizon, or --method bounds")


def _text(answer: dict) -> str:
    exact = answer["upper"] - answer["lower"] == 0
    span = f"{answer['lower']:.10g}" if exact else f"between {answer['lower']:.10g} and {answer['upper']:.10g}"
    horizon = "infinite" if answer["horizon"] is None else answer["horizon"]
    return "\n".join(
        [
            f"value   {span}   (horizon {horizon}, discount {answer['discount']:g})",
            f"action  {answer['action']}",
            f"method  {answer['method']}",
            f"time    {answer['seconds']:.2f} s",
        ]
    )
