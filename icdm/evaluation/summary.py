"""From the values of each task (values.npz) to the numbers of results.json, with 95 % intervals."""

from typing import Any

import jax
import numpy as np

from icdm.evaluation.unseen import UnseenTasks
from icdm.evaluation.value import Measured
from icdm.intervals import interval, ratio

METRICS = ("normalized_gap", "gap", "value", "regret", "failure_rate")
MEMBER_METRICS = ("worst_value", "worst_gap", "best_value", "best_gap")
NEGLIGIBLE = 0.01  # of what can be won over random in the median task
PLANNING_PAYS = 0.03  # least difference of mean normalised gaps that lets a planning share be told
LARGEST = 2**24  # numbers of a field of all tasks that values.npz holds


def summarize(value_N: np.ndarray, optimal_N: np.ndarray, random_N: np.ndarray) -> dict:
    """The five metrics of a policy over N tasks (the tasks of all seeds together).

    value; regret = OPT - value; gap = (OPT - value) / OPT over the tasks whose OPT is positive;
    normalized_gap = (OPT - value) / (OPT - RANDOM); failure_rate, the share of tasks whose normalized
    gap exceeds 0.5. Tasks in which nothing, or next to nothing, can be won over random have no normalized gap
    (`has_room`).
    Where there is one task (OPT and RANDOM of length 1), N values are of its episodes: the intervals are
    then over episodes, `n_tasks` counts those, and the failure rate is that of their mean.

    Returns:
      {metric: {"mean", "ci95": [lo, hi], "n_tasks"}}, the interval by bootstrap over tasks. Metrics
      that no task admits are left out; "n_left_out" of `gap` counts the tasks that it omits, and "n_unclear" the tasks
      whose OPT is not clearly positive: OPT is less than half of OPT - RANDOM, so that a gap means little.
    """
    value_N, optimal_N, random_N = (np.asarray(x, np.float64) for x in (value_N, optimal_N, random_N))
    one_task = optimal_N.size == 1
    optimal_N, random_N = (np.broadcast_to(x, value_N.shape) for x in (optimal_N, random_N))
    regret_N = optimal_N - value_N
    positive_N = optimal_N > 0
    normalized_N = normalized_gaps(value_N, optimal_N, random_N)
    failed_N = (normalized_N.mean(keepdims=one_task) if one_task else normalized_N) > 0.5
    samples = {
        "value": value_N,
        "gap": regret_N[positive_N] / optimal_N[positive_N],
        "regret": regret_N,
        "normalized_gap": normalized_N,
        "failure_rate": failed_N.astype(np.float64),
    }
    summary = {name: interval(sample_N) for name, sample_N in samples.items() if sample_N.size}
    if "gap" in summary and not positive_N.all():
        summary["gap"]["n_left_out"] = int((~positive_N).sum())
    unclear_N = optimal_N <= (optimal_N - random_N) / 2
    if "gap" in summary and unclear_N.any():
        summary["gap"]["n_unclear"] = int(unclear_N.sum())
    return summary


def normalized_gaps(value_N: np.ndarray, optimal_N: np.ndarray, random_N: np.ndarray) -> np.ndarray:
    """(OPT - value) / (OPT - RANDOM) in the tasks in which something can be won over random.

    Where there is one task, OPT and RANDOM are of length 1, and N values are of its episodes.
    """
    optimal_N, random_N = (np.broadcast_to(x, value_N.shape) for x in (optimal_N, random_N))
    some_N = has_room(optimal_N, random_N)
    return (optimal_N - value_N)[some_N] / (optimal_N - random_N)[some_N]


def has_room(optimal_N: np.ndarray, random_N: np.ndarray) -> np.ndarray:
    """Whether OPT - RANDOM is at least NEGLIGIBLE of its median over the tasks, (N,) bool.

    A mean of ratios would be that of the few tasks in which the denominator is next to nothing.
    """
    room_N = optimal_N - random_N
    return room_N > max(1e-9, NEGLIGIBLE * np.median(room_N))


def mark_below_bracket(policies: dict[str, dict], bracket: float) -> None:
    """Adds "below_bracket": true to every mean gap that is smaller than the oracle's mean relative bracket."""
    for metrics in policies.values():
        if "gap" in metrics and metrics["gap"]["mean"] < bracket:
            metrics["gap"]["below_bracket"] = True


def summarize_members(value_NM: np.ndarray, oracle_NM: np.ndarray) -> dict:
    """A policy under the worst and the best member of each of N ambiguity sets of M models.

    worst_value = min_m V_m, best_value = max_m V_m; worst_gap and best_gap = 1 - (the policy's / the oracle's).
    """
    found = {}
    for name, extreme in (("worst", np.min), ("best", np.max)):
        value_N, oracle_N = extreme(value_NM, axis=1), extreme(oracle_NM, axis=1)
        found |= {f"{name}_value": interval(value_N), f"{name}_gap": interval((oracle_N - value_N) / np.abs(oracle_N))}
    return found


def summarize_answers(counts_B3: np.ndarray) -> dict:
    """The share of an episode's decisions on which a server's answer was no action, over B episodes, and counts.

    Args:
      counts_B3: decisions of each episode, those that log-probabilities of actions decided, invalid answers.

    Returns:
      {"mean", "ci95", "n_tasks", "decisions", "by_logprobs", "invalid"}; n_tasks counts episodes.
    """
    counts = dict(zip(("decisions", "by_logprobs", "invalid"), counts_B3.sum(0).tolist()))
    return interval(counts_B3[:, 2] / counts_B3[:, 0]) | counts


def summaries(arrays: dict[str, np.ndarray]) -> dict:
    """The numbers of results.json from the arrays of values.npz.

    Args:
      arrays: `policy/NAME` (N,) values in each task, `members/NAME` (N, M) those under each model of an ambiguity set,
        `repeats/NAME` (N,) shares of decisions that take the action seen most often, `optimal` (exact, or what the
        oracle reaches), `upper` (its upper bound) and `random` (N,), `expert` if there is one, `answers/NAME`
        (B, 3), what a server answered in each of B episodes, and `own/MEASURE/NAME`, what `explore` measures. The
        parameters of the tasks, `task/FIELD`, are for readers.
    """
    optimal_N, upper_N, random_N = arrays["optimal"], arrays["upper"], arrays["random"]
    values = _named(arrays, "policy/")
    found = {"policies": {name: summarize(value_N, optimal_N, random_N) for name, value_N in values.items()}}
    if (upper_N != optimal_N).any():
        found["bracket"] = interval((upper_N - optimal_N) / np.abs(upper_N))
        mark_below_bracket(found["policies"], found["bracket"]["mean"])
    for name, share_N in _named(arrays, "repeats/").items():
        found["policies"][name]["repeats"] = interval(share_N)
    for name, value_NM in _named(arrays, "members/").items():
        found["policies"][name] |= summarize_members(value_NM, arrays["members/oracle"])
    gaps = {name: normalized_gaps(value_N, optimal_N, random_N) for name, value_N in values.items()}
    gaps = {name: gap for name, gap in gaps.items() if gap.size}  # none where nothing is at stake in any task
    for name, share in _planning_shares(gaps).items():
        found["policies"][name]["planning_share"] = share
    answers = {name: summarize_answers(counts_B3) for name, counts_B3 in _named(arrays, "answers/").items()}
    if answers:
        found["invalid_answers"] = answers
    explored = _named(arrays, "own/regret/")
    if explored:
        found["exploration"] = {
            name: summarize_exploration(_of(arrays, name), optimal_N, random_N) for name in explored
        }
    if "expert" in arrays:
        closed = {name: (v - arrays["expert"]) / (optimal_N - arrays["expert"]) for name, v in values.items()}
        del closed["expert"]
        found["closed_from_expert"] = {name: interval(share) for name, share in closed.items()}
    if "fine_tuned" in gaps:
        readers = [name for name in ("posterior_mean", "certainty_equivalence") if name in gaps]
        if readers:
            found["ratios"] = {
                f"fine_tuned/{name}": ratio(gaps["fine_tuned"], gaps[name]) for name in readers if gaps[name].mean() > 0
            }
        found["advantages"] = _advantages(gaps)
    return found


def _advantages(gaps: dict[str, np.ndarray]) -> dict:
    """How much smaller the normalised gap of fine_tuned is than that of every other policy, task by task.

    The fine-tuned model is better where the whole interval is above 0, and worse where it is below.
    """
    return {name: interval(gap - gaps["fine_tuned"]) for name, gap in gaps.items() if name != "fine_tuned"}


def _planning_shares(gaps: dict[str, np.ndarray]) -> dict:
    """How much of what planning wins over looking one reward ahead a policy wins, with intervals over tasks:

        (gap of myopic - gap) / (gap of myopic - gap of posterior_mean_replanned),

    in mean normalised gaps; 0 for a reader that does not plan, 1 for one that plans with posterior means. Nothing is
    told where the denominator is below PLANNING_PAYS.
    """
    if not {"myopic", "posterior_mean_replanned"} <= gaps.keys():
        return {}
    ahead = {name: gaps["myopic"] - gap for name, gap in gaps.items() if name != "myopic"}
    planned = ahead.pop("posterior_mean_replanned")
    if planned.mean() < PLANNING_PAYS:
        return {}
    shares = {name: ratio(own, planned) for name, own in ahead.items()}
    return {name: {k: share[k] for k in ("mean", "ci95", "n_tasks")} for name, share in shares.items()}


def summarize_exploration(own: dict[str, np.ndarray], optimal_N: np.ndarray, random_N: np.ndarray) -> dict:
    """A decider that explores from nothing, from what `icdm.evaluation.exploration.explore` measures.

    Returns:
      {"regret": over all its episodes, in reward; "optimal": the share of optimal decisions; "tried": of pairs of state
      and action that were tried; where there is one state, "least_pulled" and "suffix_failure"; each with interval;
      "by_episode": the normalised gap of every episode in turn}.
    """
    found = {name: interval(x_N if x_N.ndim == 1 else x_N.mean(1)) for name, x_N in own.items() if name != "regret"}
    optimal_N, random_N = (np.broadcast_to(x, len(own["regret"])) for x in (optimal_N, random_N))
    some_N = has_room(optimal_N, random_N)
    gap_NE = own["regret"][some_N] / (optimal_N - random_N)[some_N, None]
    return {"regret": interval(own["regret"].sum(1)), **found, "by_episode": [interval(gap_N) for gap_N in gap_NE.T]}


def _of(arrays: dict[str, np.ndarray], policy: str) -> dict[str, np.ndarray]:
    """{measure: array} of what a policy explored."""
    own = _named(arrays, "own/")
    return {name.removesuffix(f"/{policy}"): x for name, x in own.items() if name.endswith(f"/{policy}")}


def _named(arrays: dict[str, np.ndarray], prefix: str):
    return {name.removeprefix(prefix): value for name, value in arrays.items() if name.startswith(prefix)}


def results_of(
    unseen: UnseenTasks, measured: Measured, more: dict[str, np.ndarray]
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """(what results.json says of readers that were measured, what values.npz holds).

    Args:
      more: what servers answered and what was explored, named as in `summaries`.
    """
    arrays = arrays_of(unseen, measured) | more
    oracle = {"method": unseen.certified.method}
    if unseen.certified.error_N.any():
        oracle["estimated_error"] = interval(unseen.certified.error_N)
    return {"oracle": oracle} | summaries(arrays), arrays


def arrays_of(unseen: UnseenTasks, measured: Measured) -> dict[str, np.ndarray]:
    """What values.npz holds (see `summaries`): the policies from the best to the worst, and the bounds."""
    values = measured.values
    exact = unseen.certified.method == "exact"
    arrays = {
        "optimal": unseen.certified.lower_N if exact else values[unseen.counted_from],
        "upper": unseen.certified.upper_N,
        "random": unseen.random_N,
    }
    if unseen.expert_N is not None:
        arrays["expert"] = unseen.expert_N
    n = len(values["oracle"])
    fixed = {name: np.broadcast_to(arrays[name], n).copy() for name in ("random", "expert") if name in arrays}
    values = values | fixed
    order = sorted(values, key=lambda name: -values[name].mean())
    return (
        {f"policy/{name}": values[name] for name in order}
        | {f"members/{name}": value_NM for name, value_NM in measured.members.items()}
        | {f"repeats/{name}": share_N for name, share_N in measured.repeats.items()}
        | arrays
        | parameters_of(unseen.tasks.problem)
    )


def parameters_of(problem: Any) -> dict[str, np.ndarray]:
    """What tells the tasks apart, {"task/FIELD": (N, ...)}: the fields of N problems that are not the same in all.

    A field of an ambiguity set has the axis M of its models second. One of more than LARGEST numbers is left out.
    """
    found = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(problem):
        array = np.asarray(leaf)
        if array.size <= LARGEST and (array != array[:1]).any():
            found[f"task/{path[-1].name}"] = array
    return found
