"""`icdm solve`: the optimal value of Cassandra's `.POMDP` files, exact or between certified bounds."""

import argparse
import json
import sys
import time
import warnings

import jax
import numpy as np

from icdm.errors import UserError
from icdm.families.cassandra import read_pomdp
from icdm.oracles import point_based
from icdm.oracles.alpha_meu import committed, solve_recursive
from icdm.oracles.alpha_vectors import alpha_vectors
from icdm.oracles.belief import belief_model, start_belief
from icdm.oracles.belief_tree import tree_values
from icdm.problems.ambiguous import make_ambiguous


def main(arguments: argparse.Namespace) -> None:
    """Solves the problem that the arguments of `icdm solve` describe and prints what was found."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = solve(arguments)
    for message in dict.fromkeys(str(warning.message) for warning in caught if warning.category is UserWarning):
        print(f"icdm: warning: {message}", file=sys.stderr)
    print(json.dumps(found) if arguments.json else _text(found))


def solve(arguments: argparse.Namespace) -> dict:
    """The answer as the object that --json prints.

    Raises:
      UserError: a file that cannot be read, arguments that do not fit together, a problem that is too
        large for the method asked for.
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
        lower, upper, action, method = _cloud([model.problem for model in named], arguments)
    return {
        "lower": float(lower),
        "upper": float(upper),
        "action": named[0].actions[action],
        "horizon": None if arguments.infinite else arguments.horizon,
        "discount": float(named[0].problem.discount),
        "method": method,
        "seconds": round(time.perf_counter() - started, 3),
    }


def _one_model(problem, arguments):
    model = belief_model(problem)
    belief = start_belief(model)
    method = arguments.method
    if arguments.infinite or method == "bounds":
        return _bounds(model, arguments)
    if method == "alpha-vectors":
        plans = alpha_vectors(model)[-1]
        value = plans.value(belief)
        return value, value, int(plans.action(belief)), f"exact: {len(plans.actions)} alpha-vectors"
    try:
        q_values = tree_values(model, belief)
    except UserError:
        if method == "tree":
            raise
        return _bounds(model, arguments)
    return q_values.max(), q_values.max(), int(q_values.argmax()), "exact: belief tree"


def _bounds(model, arguments):
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


def _cloud(problems, arguments):
    cloud = make_ambiguous(problems, pessimism=arguments.pessimism)
    if arguments.form == "committed":
        policy = committed(cloud)
        return (
            policy.value,
            policy.value,
            policy.action,
            "committed alpha-maxmin: exact, alpha-vectors and linear programme",
        )
    models = belief_model(cloud.models)
    belief = start_belief(jax.tree.map(lambda leaf: leaf[cloud.nominal_index], models))
    try:
        q_values = tree_values(models, belief, pessimism=arguments.pessimism)
        return (
            q_values.max(),
            q_values.max(),
            int(q_values.argmax()),
            "recursive alpha-maxmin: exact, belief tree",
        )
    except UserError:
        solution = solve_recursive(
            jax.tree.map(lambda leaf: np.asarray(leaf)[None], cloud), jax.random.key(0), generations=8
        )
    value, error = solution.value[0], solution.error[0]
    with jax.enable_x64(True):
        interpolated = jax.tree.map(lambda leaf: leaf[0], solution.interpolated)
        models = jax.tree.map(jax.numpy.asarray, models)
        q_values = interpolated.q_values(models, arguments.pessimism, belief, arguments.horizon)
    method = "recursive alpha-maxmin: tangents at belief points, error estimated by Bellman residuals"
    return value - error, value + error, int(np.asarray(q_values).argmax()), method


def _check(arguments) -> None:
    if arguments.infinite == (arguments.horizon is not None):
        raise UserError("give either --horizon or --infinite")
    if arguments.tolerance <= 0 or arguments.time_limit <= 0:
        raise UserError("--tolerance and --time-limit need positive numbers")
    if arguments.models and arguments.pessimism is None:
        raise UserError("several models need --pessimism, in [0, 1] (1 plans for the worst)")
    if arguments.infinite and arguments.pessimism is not None:
        raise UserError("ambiguous problems are solved at a finite horizon: give --horizon")
    if arguments.infinite and arguments.method not in ("auto", "bounds"):
        raise UserError(f"--method {arguments.method} needs a finite horizon: give --horizon, or --method bounds")


def _text(found: dict) -> str:
    exact = found["upper"] - found["lower"] == 0
    span = f"{found['lower']:.10g}" if exact else f"between {found['lower']:.10g} and {found['upper']:.10g}"
    horizon = "infinite" if found["horizon"] is None else found["horizon"]
    return "\n".join(
        [
            f"value   {span}   (horizon {horizon}, discount {found['discount']:g})",
            f"action  {found['action']}",
            f"method  {found['method']}",
            f"time    {found['seconds']:.2f} s",
        ]
    )
