"""Evaluation on a log: how well held-out labels are predicted, and what a policy is worth without a simulator.

N held-out tasks, B rows, E episodes, T steps, U = T + 1 observations, A actions.
"""

from collections.abc import Iterator

import jax
import numpy as np

from icdm.evaluation.off_policy import LoggedEpisodes, estimated_behavior, off_policy_values
from icdm.intervals import interval
from icdm.learning.objectives import Imitation
from icdm.logs.log import Log
from icdm.logs.sequences import Sequences, assemble, draw_episodes, sequences
from icdm.models.transformer import Transformer
from icdm.problems.family import Family, HasBestActionPosterior
from icdm.sharding import gathered
from icdm.trajectories.layouts import Layout
from icdm.trajectories.prompt import action_logits, encode
from icdm.trajectories.trajectory import NOTHING

MOST_LOGGED = 5000  # held-out episodes from which a policy is valued
AT_ONCE = 500  # rows that a model reads side by side


def held_out_sequences(log: Log, context_episodes: int, seed: int, independent_steps: bool) -> Sequences:
    """One sequence of every held-out task; the label before anything was seen does not count."""
    rng, tasks = np.random.default_rng(seed), np.arange(log.n_tasks)
    held_out = sequences(log, tasks, context_episodes, rng, independent_steps=independent_steps)
    label = held_out.label.copy()
    label[:, 0, 0] = NOTHING
    return held_out._replace(label=label)


def label_losses(model: Transformer, layout: Layout, held_out: Sequences) -> jax.Array:
    """Cross-entropy of each observation's label given all before it, (B, E, U); 0 where there is none."""
    target = Imitation(held_out.label)
    logits_BEUA = action_logits(model, layout, encode(layout, held_out.trajectories))
    return jax.numpy.where(target.counts, target.losses(logits_BEUA), 0.0)


def held_out_losses(model: Transformer, layout: Layout, held_out: Sequences) -> np.ndarray:
    """Mean cross-entropy of the labels of each task, (N,)."""
    losses = jax.jit(lambda model, part: label_losses(model, layout, part))
    found = [np.float64(gathered(losses(model, part))) for part in _parts(held_out)]
    return _mean_over_labels(np.concatenate(found), held_out.label)


def best_action_losses(family: HasBestActionPosterior, held_out: Sequences) -> np.ndarray:
    """The same of a reader that is given the family: no reader can expect less, (N,)."""
    label_NU = held_out.label[:, 0]
    chance_NUA = family.best_action_probabilities(held_out.trajectories)
    right_NU = np.take_along_axis(chance_NUA, np.maximum(label_NU, 0)[..., None], -1)[..., 0]
    loss_NU = np.where(label_NU == NOTHING, 0.0, -np.log(np.maximum(right_NU, 1e-12)))
    return _mean_over_labels(loss_NU[:, None], held_out.label[:, :1])


def logged_policies(
    models: dict[str, Transformer], layout: Layout, family: Family, log: Log, context_episodes: int, seed: int
) -> tuple[dict, dict]:
    """(policies with their values, all off-policy estimates).

    `behavior` is the mean return of the held-out episodes; a model, drawing its actions, is valued by the doubly
    robust estimate from them, each with K other episodes of its task as context.
    """
    rng = np.random.default_rng(seed)
    several = max(1, MOST_LOGGED // log.n_tasks)
    task_B = np.repeat(np.arange(log.n_tasks), [min(several, len(c)) for c in log.contexts])
    episode_BE = draw_episodes(log, task_B, context_episodes, rng)
    there_BE = episode_BE != NOTHING
    last_B = there_BE.shape[1] - 1 - there_BE[:, ::-1].argmax(1)
    episodes, row = assemble(log, episode_BE), np.arange(len(task_B))
    taken = jax.tree.map(lambda x: x[row, last_B], episodes.trajectories)
    first = log.first[episode_BE[row, last_B]][:, None] + np.arange(log.longest)
    first = np.minimum(first, len(log.behavior) - 1)
    behavior = np.where(taken.valid, log.behavior[first], 1.0)
    terminal = taken.valid & log.terminal[first] if log.terminal.any() else None  # else it was not recorded
    sizes = family.n_states, family.n_actions
    known = bool(np.isfinite(behavior).all())
    if not known:
        behavior = estimated_behavior(taken.observation, taken.action, taken.valid, *sizes)
    reward = taken.reward.astype(np.float64)
    observation = np.where(taken.observation == log.end, family.n_states, taken.observation)
    logged = LoggedEpisodes(observation, taken.action, reward, taken.valid, behavior, *sizes, terminal=terminal)
    returns = np.where(taken.valid, taken.reward, 0).sum(1).astype(np.float64)
    policies, estimates = {"behavior": {"value": interval(returns)}}, {}
    logits = jax.jit(lambda model, part: action_logits(model, layout, encode(layout, part.trajectories).decisions))
    for name, model in models.items():
        found = [np.float64(gathered(logits(model, part))) for part in _parts(episodes)]
        z_BTA = np.concatenate(found)[row, last_B]
        target = np.exp(z_BTA - z_BTA.max(-1, keepdims=True))
        values = off_policy_values(logged, target / target.sum(-1, keepdims=True))
        estimates[f"{name}_sampled"] = values
        best = values["dr"]
        value = {"mean": best["mean"], "ci95": best["ci95"], "n_tasks": best["n_episodes"]}
        policies[f"{name}_sampled"] = {"value": value}
    return policies, {"behavior_probabilities": "recorded" if known else "estimated", "estimates": estimates}


def _parts(rows: Sequences) -> Iterator[Sequences]:
    """The rows, at most AT_ONCE or so at a time."""
    n = len(rows.label)
    for part in np.array_split(np.arange(n), max(1, n // AT_ONCE)):
        yield jax.tree.map(lambda x: x[part], rows)


def _mean_over_labels(loss_NEU: np.ndarray, label_NEU: np.ndarray) -> np.ndarray:
    return loss_NEU.sum((1, 2)) / np.maximum((label_NEU != NOTHING).sum((1, 2)), 1)
