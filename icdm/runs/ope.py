"""`icdm ope`: what a policy is worth, from a log of another's episodes alone."""

import argparse
import json
import math
import pathlib
from typing import Any, NamedTuple

import numpy as np

from icdm.errors import UserError
from icdm.evaluation.logged import episodes_with_contexts, logged_episodes, model_probabilities, returns
from icdm.evaluation.off_policy import (
    LoggedEpisodes,
    cumulative_ratios,
    effective_sample_size,
    estimated_behavior,
    mean_by_observation,
    off_policy_values,
    untried,
    weights_err,
)
from icdm.files import checksum, read_json
from icdm.intervals import interval
from icdm.logs.codings import Coding, remarks
from icdm.logs.features import EDGES, STATES, Encoder, fit_encoder
from icdm.logs.files import Reading
from icdm.logs.log import Log, hold_out
from icdm.runs.data import CHECKSUM
from icdm.runs.policy_file import STEPWISE, at_steps, in_observations, open_policy
from icdm.runs.run import Run
from icdm.runs.task_rows import TaskRows, as_log, end_code, own_codings, read_rows, run_codings

LEAST_SAMPLE = 30  # effective sample size below which estimates by weights are refused
UNTRIED = 0.01  # share of untried actions from which the policies are said not to overlap
ESTIMATES = {
    "pdwis": "per-decision WIS",
    "dr": "doubly robust",
    "wdr": "weighted doubly robust",
    "fqe": "fitted-Q",
}


def main(arguments: argparse.Namespace) -> None:
    """Runs `icdm ope` with the parsed arguments."""
    options = {name: value for name, value in vars(arguments).items() if name not in ("command", "log", "json")}
    found = ope(arguments.log, **options)
    print(json.dumps(found, allow_nan=False) if arguments.json else _text(found))


def ope(
    log: str | pathlib.Path,
    policy: str,
    task: str | None = None,
    discount: float = 1.0,
    clip: float = math.inf,
    **reading: Any,
) -> dict:
    """Off-policy estimates of a policy's value, with what they rest on, as one JSON object.

    Args:
      policy: the directory of a run, whose model draws its actions; "uniform"; "behavior", as the log's frequencies
        show it; or a file of action probabilities with the columns observation, action and probability, or for every
        step of the log with the columns episode_id, t, action and probability.
      task: which task_id of the log; needed if it holds several.
      discount: of a reward per step.
      clip: the largest weight rho_{0:t} (see `off_policy_values`).
      reading: the fields of `Reading`, for a log that is not a table; the columns of a run's own data by default.

    Raises:
      UserError: a file or a policy that cannot be read or does not fit the other, or weights whose effective sample
        size is below LEAST_SAMPLE.
    """
    if not 0 < discount <= 1:
        raise UserError(f"--discount {discount:g}: give a number above 0, at most 1")
    if not clip >= 1:
        raise UserError(f"--clip {clip:g}: give the largest weight, at least 1")
    path = pathlib.Path(log)
    if not path.exists():
        raise UserError(f"{path}: no such file")
    run = Run.open(policy) if policy and pathlib.Path(policy).is_dir() else None
    if run and not reading.get("columns"):
        reading["columns"] = run.settings.columns
    how = Reading(**reading)
    codings = run_codings(run) if run else own_codings(path, how)
    rows = read_rows(path, codings, task, how)
    if codings["observation"].columns:
        codings, rows = _with_states(codings, rows)
    observation, sizes = codings["observation"], (codings["observation"].n, codings["action"].n)
    if run:
        target = _of_run(run, rows, as_log(rows.rows, observation, end_code(run, codings)), sizes, discount)
    else:
        target = _of_table(policy, codings, rows, as_log(rows.rows, observation, sizes[0]), sizes, discount)
    logged = target.logged
    ratio_ET = cumulative_ratios(logged, target.chance_ETA)
    whole_E = np.minimum(ratio_ET[:, -1], clip)
    ess = effective_sample_size(whole_E)
    if ess < LEAST_SAMPLE:
        raise UserError(
            f"{path}: of {logged.n} episodes the weights for {policy} leave an effective sample size of {ess:.1f}, at "
            f"least {LEAST_SAMPLE} are needed: take more episodes, a policy nearer to the log's, or --clip (biased)"
        )
    values = off_policy_values(logged, target.chance_ETA, target.table_TSA, clip)
    untried_S = untried(logged, target.chance_ETA)
    return {
        "log": str(path),
        "policy": str(policy),
        "episodes": logged.n,
        "steps": int(logged.valid.sum()),
        "discount": discount,
        "behavior_probabilities": target.behavior,
        "behavior": interval(returns(logged)),
        "estimates": {name: {k: values[name][k] for k in ("mean", "ci95")} for name in ESTIMATES},
        "effective_sample_size": ess,
        "mean_weight": float(whole_E.mean()),
        "clip": clip if math.isfinite(clip) else None,
        "clipped": float((ratio_ET > clip)[logged.valid].mean()),
        "untried": float(untried_S.sum()),
        "warnings": _warnings(ratio_ET[:, -1], target.behavior, untried_S, codings["observation"]),
        "notes": target.notes + rows.notes + rows.outside + remarks(codings),
    }


def _with_states(codings: dict[str, Coding], rows: TaskRows) -> tuple[dict[str, Coding], TaskRows]:
    """Codings that have states for observations of several features: the run's, else those of the log itself."""
    observation = codings["observation"]
    if not isinstance(observation, Encoder):
        observation = fit_encoder(observation, rows.rows.features, EDGES, STATES)
    note = f"the states of fitted-Q and of estimated probabilities are {observation.n} groups of similar observations"
    return codings | {"observation": observation}, rows._replace(notes=[*rows.notes, note])


class Target(NamedTuple):
    """The policy that is valued, along the episodes that it is valued from.

    logged, behavior: the episodes, and whether the behaviour's probabilities were "recorded" or "estimated".
    chance_ETA: its probabilities at each recorded step.
    table_TSA: the same as a table (1, S, A) of the observation alone; of a model the mean over the steps.
    """

    logged: LoggedEpisodes
    behavior: str
    chance_ETA: np.ndarray
    table_TSA: np.ndarray
    notes: list[str]


def _of_run(run: Run, rows: TaskRows, log: Log, sizes: tuple[int, int], discount: float) -> Target:
    """The model of a run, which draws its actions, each episode behind others of the log as its context."""
    s = run.settings
    if run.layout.independent_steps:
        raise UserError(f"{run.directory} reads steps that are independent of one another: icdm ope values episodes")
    if sizes[1] != s.family.n_actions or log.longest > s.family.horizon:
        raise UserError(
            f"{rows.path} has {sizes[1]} actions and episodes of up to {log.longest} steps: {run.directory} has "
            f"{s.family.n_actions} actions, horizon {s.family.horizon}"
        )
    notes = []
    if _learned_from(run, rows.path):
        if rows.n_tasks == 1:
            log = hold_out(log)[1]
            notes.append("the run learned from this log: it is valued from the held-out episodes")
        else:
            notes.append("the run learned from this log: if it learned from this task, values are too high")
    episode_BE = episodes_with_contexts(log, s.context.episodes, np.random.default_rng(s.seed))
    logged, known = logged_episodes(log, episode_BE[:, -1], *sizes, discount)
    chance_ETA = model_probabilities(run.model(), run.layout, log, episode_BE)
    table_SA = mean_by_observation(logged.observation, logged.valid, chance_ETA, sizes[0])
    notes.append("fitted-Q takes the model's mean probabilities in each observation")
    return Target(logged, _source(known), chance_ETA, table_SA[None], notes)


def _learned_from(run: Run, path: pathlib.Path) -> bool:
    kept = run.directory / CHECKSUM
    return bool(run.settings.data) and kept.exists() and read_json(kept, "").get("sha256") == checksum(path)


def _of_table(
    policy: str, codings: dict[str, Coding], rows: TaskRows, log: Log, sizes: tuple[int, int], discount: float
) -> Target:
    """A policy of the observation alone, or one that is given at every step."""
    logged, known = logged_episodes(log, log.contexts[0], *sizes, discount)
    source, state_ET = _source(known), np.minimum(logged.observation[:, :-1], sizes[0] - 1)
    if policy == "uniform":
        table_SA = np.full(sizes, 1 / sizes[1])
    elif policy == "behavior":
        table_SA = estimated_behavior(logged.observation, logged.action, logged.valid, *sizes)
    else:
        table, form = open_policy(policy, features=isinstance(codings["observation"], Encoder))
        if form == STEPWISE:
            row_ET = np.minimum(log.first[log.contexts[0]][:, None] + np.arange(log.longest), rows.rows.n - 1)
            chance_ETA = at_steps(policy, table, codings, rows)[row_ET]
            table_SA = mean_by_observation(logged.observation, logged.valid, chance_ETA, sizes[0])
            note = "fitted-Q takes the policy's mean probabilities in each observation"
            return Target(logged, source, chance_ETA, table_SA[None], [note])
        table_SA = in_observations(policy, table, codings)
        bare = np.bincount(state_ET[logged.valid], minlength=sizes[0]) * (table_SA.sum(1) == 0)
        if bare.any():
            name = codings["observation"].decode(np.array([bare.argmax()]))[0]
            raise UserError(f"{policy} has no probabilities for observation {name}, in which the log has steps")
    return Target(logged, source, table_SA[state_ET], table_SA[None], [])


def _source(known: bool) -> str:
    return "recorded" if known else "estimated"


def _warnings(weight_E: np.ndarray, behavior: str, untried_S: np.ndarray, coding: Coding) -> list[str]:
    found = []
    if weights_err(weight_E):
        found.append(
            f"the mean weight is {weight_E.mean():.3f} and should be 1: the behaviour's probabilities, {behavior}, are "
            "wrong, or the policy goes where the log has few episodes; per-decision WIS errs, and the other estimates "
            "rest on the fitted Q alone"
        )
    if untried_S.sum() > UNTRIED:
        most = [int(i) for i in np.argsort(-untried_S)[:3] if untried_S[i] > 0]
        names = ", ".join(str(name) for name in coding.decode(np.array(most)))
        found.append(
            f"the policies do not overlap: {untried_S.sum():.0%} of the policy's actions were never taken in the same "
            f"observation, most in {names}; of these the log says nothing"
        )
    return found


def _text(found: dict) -> str:
    def line(name: str, estimate: dict) -> str:
        low, high = estimate["ci95"]
        return f"  {name:24}{estimate['mean']:10.4f}  [{low:.4f}, {high:.4f}]"

    clip = "" if found["clip"] is None else f", {found['clipped']:.1%} of weights above {found['clip']:g}, clipped"
    lines = [
        f"{found['policy']} from {found['log']}: {found['episodes']} episodes, {found['steps']} steps, discount "
        f"{found['discount']:g}, behaviour probabilities {found['behavior_probabilities']}",
        "value of an episode [95 % interval]",
        line("behaviour, mean return", found["behavior"]),
        *(line(text, found["estimates"][name]) for name, text in ESTIMATES.items()),
        f"effective sample size {found['effective_sample_size']:.1f}, mean weight {found['mean_weight']:.3f}{clip}",
        *(f"warning: {text}" for text in found["warnings"]),
        *(f"note: {text}" for text in found["notes"]),
    ]
    return "\n".join(lines)
