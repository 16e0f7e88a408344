"""`icdm solve`: the optimal value of Cassandra's `.POMDP` files, exact or between certified bounds."""

import argparse
import json
import pathlib
import sys
import time
import warnings

import jax
import numpy as np

from icdm.errors import OutOfTime, TooLarge, UserError
from icdm.families.cassandra import NamedPOMDP, in_the_order_of, read_sparse
from icdm.oracles.alpha_meu import GENERATION, committed, solve_recursive
from icdm.oracles.alpha_policies import evaluate, read_alpha, write_alpha
from icdm.oracles.alpha_vectors import alpha_vectors
from icdm.oracles.belief import BeliefModel, belief_model, start_belief
from icdm.oracles.belief_tree import tree_values
from icdm.oracles.first_bounds import Model
from icdm.oracles.trials import bracket
from icdm.problems.ambiguous import make_ambiguous
from icdm.problems.mdp import check_horizon
from icdm.problems.sparse import SparsePOMDP

BOUNDS_INSTEAD = "use the bounds of the point-based oracle (--method bounds)"
RECURSIVE_INSTEAD = "use the recursive objective (--form recursive)"
MOST_DECISIONS = 10**6
READING = 5.0  # seconds that reading the files may take, whatever the time limit
LARGEST_KERNEL = 2**25  # most entries Pr(z, s' | s, a) of a method with dense tables
LARGEST_JOINTS = 2**27  # most entries of the interpolation's joints
SPEED = 1e9  # products per second of the interpolation
GENERATIONS = 8  # of the interpolation's belief points
NOMINAL_POINTS = 112  # belief points of its nominal model, in addition to the corners

LISTED = 10  # most states whose first actions are listed
EXACT_MDP = "exact: backward induction, the state is observed"

Answer = tuple[float, float, str, str]  # lower bound, upper bound, first action, method


def main(arguments: argparse.Namespace) -> None:
    """Solves the problem that the arguments of `icdm solve` describe and prints the answer."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        answer = solve(arguments)
    for message in dict.fromkeys(str(warning.message) for warning in caught if warning.category is UserWarning):
        print(f"icdm: warning: {message}", file=sys.stderr)
    print(json.dumps(answer) if arguments.json else _text(answer), flush=True)


def solve(arguments: argparse.Namespace) -> dict:
    """The answer as the object that --json prints.

    Raises:
      UserError: a file cannot be read, arguments contradict each other, the chosen method refuses the problem because
        of its size, or the time limit has passed before it has an answer.
    """
    _check(arguments)
    started = time.monotonic()
    deadline = started + arguments.time_limit
    readable = max(deadline, started + READING)
    first, *others = (
        read_sparse(path, discount=arguments.discount, deadline=readable)
        for path in [arguments.file, *arguments.models]
    )
    if arguments.infinite and first.problem.discount >= 1:
        raise UserError("an infinite horizon needs a discount below 1: give --discount")
    if arguments.evaluate:
        answer = _of_policy(first, arguments, deadline)
    elif arguments.pessimism is not None:
        answer = _ambiguity_set([first, *(in_the_order_of(other, first) for other in others)], arguments, deadline)
    elif first.problem.observes_state:
        answer = _fully_observed(first, arguments, deadline)
    else:
        answer = _one_model(first, arguments, deadline)
    lower, upper, action, method = answer
    return {
        "lower": float(lower),
        "upper": float(upper),
        "action": action,
        "horizon": None if arguments.infinite else arguments.horizon,
        "discount": float(first.problem.discount),
        "method": method,
        "seconds": round(time.monotonic() - started, 3),
    }


def _one_model(named: NamedPOMDP, arguments: argparse.Namespace, deadline: float) -> Answer:
    method = arguments.method
    if arguments.infinite or method == "bounds":
        return _bounds(named, arguments, deadline)
    try:
        _check_kernel(named.problem)
        model = belief_model(named.problem.dense(arguments.horizon))
        belief = start_belief(model)
        if method == "alpha-vectors":
            plans = alpha_vectors(model, deadline=deadline)[-1]
            value, action = plans.value(belief), int(plans.action(belief))
            return value, value, named.actions[action], f"exact: {len(plans.actions)} alpha-vectors"
        now = time.monotonic()
        tree_until = deadline if method == "tree" else now + (deadline - now) / 3
        q_values = tree_values(model, belief, deadline=tree_until)
    except (TooLarge, OutOfTime) as error:
        if method == "auto":
            return _bounds(named, arguments, deadline)
        raise UserError(f"{error}: {BOUNDS_INSTEAD}") from None
    return q_values.max(), q_values.max(), named.actions[int(q_values.argmax())], "exact: belief tree"


def _bounds(named: NamedPOMDP, arguments: argparse.Namespace, deadline: float) -> Answer:
    found = bracket(named.problem, arguments.horizon, tolerance=arguments.tolerance, deadline=deadline)
    if found.upper - found.lower > arguments.tolerance * max(1, abs(found.lower)):
        width = f"the bracket is still {found.upper - found.lower:.2g} wide"
        warnings.warn(f"{width}: give more --time-limit, or a larger --tolerance", stacklevel=2)
    if arguments.policy:
        write_alpha(arguments.policy, found.vectors, found.actions)
    method = f"bounds: {found.n_trials:,} trials, {len(found.actions):,} alpha-vectors"
    return found.lower, found.upper, named.actions[found.action], method


def _of_policy(named: NamedPOMDP, arguments: argparse.Namespace, deadline: float) -> Answer:
    if named.problem.observes_state:
        raise UserError("--evaluate needs a file with observations")
    vectors, actions = read_alpha(arguments.evaluate, named.problem.n_states, named.problem.n_actions)
    limits = dict(tolerance=arguments.tolerance, deadline=deadline)
    lower, upper, action, method = evaluate(named.problem, vectors, actions, arguments.horizon, **limits)
    return lower, upper, named.actions[action], method


def _fully_observed(named: NamedPOMDP, arguments: argparse.Namespace, deadline: float) -> Answer:
    """The value of an MDP; the first action is that of every state in which an episode may start."""
    lower_SA, upper_SA = Model(named.problem).observed_bounds(arguments.horizon, deadline)
    lower, upper = (named.problem.initial @ q_SA.max(1) for q_SA in (lower_SA, upper_SA))
    action_S = lower_SA.argmax(1)
    starts = np.flatnonzero(named.problem.initial)
    in_words = [f"{named.actions[action_S[s]]} in {named.states[s]}" for s in starts[:LISTED]]
    more = [f"... ({starts.size} states)"] if starts.size > LISTED else []
    action = named.actions[action_S[starts[0]]] if np.ptp(action_S[starts]) == 0 else ", ".join(in_words + more)
    method = "bounds: value iteration, the state is observed" if arguments.infinite else EXACT_MDP
    return lower, upper, action, method


def _ambiguity_set(named: list[NamedPOMDP], arguments: argparse.Namespace, deadline: float) -> Answer:
    if any(other.problem.observes_state for other in named):
        raise UserError("ambiguity sets need files with observations")
    actions, committing = named[0].actions, arguments.form == "committed"
    try:
        _check_kernel(named[0].problem, len(named), together=committing)
        problems = [other.problem.dense(arguments.horizon) for other in named]
        ambiguous = make_ambiguous(problems, pessimism=arguments.pessimism)
        if committing:
            policy = committed(ambiguous, deadline=deadline)
            method = "committed alpha-maxmin: exact, alpha-vectors and linear programme"
            return policy.value, policy.value, actions[policy.action], method
    except (TooLarge, OutOfTime) as error:
        raise UserError(f"{error}: {RECURSIVE_INSTEAD}" if committing else str(error)) from None
    models = belief_model(ambiguous.models)
    belief = start_belief(jax.tree.map(lambda leaf: leaf[ambiguous.nominal_index], models))
    try:
        tree_until = time.monotonic() + (deadline - time.monotonic()) / 3
        q_values = tree_values(models, belief, pessimism=arguments.pessimism, deadline=tree_until)
        value = q_values.max()
        return value, value, actions[int(q_values.argmax())], "recursive alpha-maxmin: exact, belief tree"
    except (TooLarge, OutOfTime):
        _check_interpolation(models, arguments)
        batch = jax.tree.map(lambda leaf: np.asarray(leaf)[None], ambiguous)
        sizes = dict(generations=GENERATIONS, nominal_points=NOMINAL_POINTS)
        solution = solve_recursive(batch, jax.random.key(0), **sizes)
    value, error = solution.value[0], solution.error[0]
    with jax.enable_x64(True):
        interpolated = jax.tree.map(lambda leaf: leaf[0], solution.interpolated)
        models = jax.tree.map(jax.numpy.asarray, models)
        q_values = interpolated.q_values(models, arguments.pessimism, belief, arguments.horizon)
    method = "recursive alpha-maxmin: tangents at belief points, error estimated by Bellman residuals"
    return value - error, value + error, actions[int(np.asarray(q_values).argmax())], method


def _check_kernel(problem: SparsePOMDP, n_models: int = 1, together: bool = False) -> None:
    """Refuses a method with dense tables.

    Args:
      together: the models are the parts of one problem, over pairs of a model and a state.

    Raises:
      TooLarge: Pr(z, s' | s, a) of all models has more than `LARGEST_KERNEL` entries.
    """
    n_models = n_models**2 if together else n_models
    size = n_models * problem.n_actions * problem.n_observations * problem.n_states**2
    if size > LARGEST_KERNEL:
        raise TooLarge(size, LARGEST_KERNEL, "joint probabilities of observation and next state")


def _check_interpolation(models: BeliefModel, arguments: argparse.Namespace) -> None:
    """Refuses what the interpolation, which cannot be stopped, would not solve within the time limit."""
    n_states = models.reward.shape[-2]
    joints = models.kernel.size // n_states * (n_states + GENERATIONS * GENERATION)
    if joints > LARGEST_JOINTS:
        raise TooLarge(joints, LARGEST_JOINTS, "joint probabilities at the belief points")
    seconds = arguments.horizon * (n_states + NOMINAL_POINTS) * joints / SPEED
    if seconds > arguments.time_limit:
        raise UserError(f"the belief points would take about {seconds:,.0f} seconds: give more --time-limit")


def _check(arguments: argparse.Namespace) -> None:
    if arguments.infinite == (arguments.horizon is not None):
        raise UserError("give either --horizon or --infinite")
    if not arguments.infinite:
        check_horizon(arguments.horizon)
        if arguments.horizon > MOST_DECISIONS:
            raise UserError(f"horizon {arguments.horizon:,}: the limit is {MOST_DECISIONS:,}; give --infinite")
    if not (arguments.tolerance > 0 and arguments.time_limit > 0):
        raise UserError("--tolerance and --time-limit need positive numbers")
    if arguments.models and arguments.pessimism is None:
        raise UserError("several models need --pessimism, in [0, 1] (1 plans for the worst model)")
    if arguments.infinite and arguments.pessimism is not None:
        raise UserError("ambiguous problems are solved at a finite horizon: give --horizon")
    if arguments.infinite and arguments.method not in ("auto", "bounds"):
        raise UserError(f"--method {arguments.method} needs a finite horizon: give --horizon, or --method bounds")
    if arguments.policy and not arguments.infinite:
        raise UserError("--policy writes a policy that is the same at every step: give --infinite")
    if arguments.policy and pathlib.Path(arguments.policy).exists():
        raise UserError(f"{arguments.policy}: exists already: give another --policy")
    if arguments.policy and not pathlib.Path(arguments.policy).absolute().parent.is_dir():
        raise UserError(f"{arguments.policy}: there is no such folder: make it first")
    if arguments.evaluate and (arguments.policy or arguments.pessimism is not None):
        raise UserError("--evaluate takes neither --policy nor --pessimism")


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
