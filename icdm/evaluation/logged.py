"""Evaluation on a log: how well held-out labels are predicted, and what a policy is worth without a simulator.

N held-out tasks, B rows, E episodes, T steps, U = T + 1 observations, A actions.
"""

from collections.abc import Iterator

import jax
import numpy as np

from icdm.evaluation.off_policy import LoggedEpisodes, doubly_robust_terms, estimated_behavior, off_policy_values
from icdm.intervals import interval
from icdm.learning.objectives import Imitation
from icdm.logs.log import Log
from icdm.logs.sequences import Sequences, as_one_episode, assemble, sequences
from icdm.models.transformer import Transformer
from icdm.problems.family import Family, HasBestActionPosterior
from icdm.sharding import gathered
from icdm.trajectories.layouts import Layout
from icdm.trajectories.prompt import action_logits, encode
from icdm.trajectories.trajectory import NOTHING

MOST_LOGGED = 5000  # held-out episodes from which a policy is valued
AT_ONCE = 500  # rows that a model reads side by side


def held_out_sequences(log: Log, context_episodes: int, seed: int, independent_steps: bool) -> Sequences:
    """One sequence of every held-out task; the label before anything was seen does not count.

    Of a single task each episode has a sequence, the last in it, behind others of the task, and its labels alone count.
    Sequences without a label are left out.
    """
    rng = np.random.default_rng(seed)
    if log.n_tasks == 1 and not log.asks:
        held_out = assemble(log, episodes_with_contexts(log, context_episodes, rng))
        held_out.label[:, :-1] = NOTHING
        held_out = as_one_episode(held_out, log.asks) if independent_steps else held_out
    else:
        tasks = np.arange(log.n_tasks)
        held_out = sequences(log, tasks, context_episodes, rng, independent_steps=independent_steps)
        held_out.label[:, 0, 0] = NOTHING
    some = (held_out.label != NOTHING).any((1, 2))
    return jax.tree.map(lambda x: x[some], held_out) if some.any() else held_out


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
) -> tuple[dict, dict, dict[str, np.ndarray]]:
    """(policies with their values, all off-policy estimates, what values.npz holds: `policy/NAME` (E,), the terms of E
    held-out episodes whose mean is the policy's value).

    `behavior` is the mean return of the held-out episodes; a model, drawing its actions, is valued by the doubly
    robust estimate from them, each with K other episodes of its task as context.
    """
    episode_BE = episodes_with_contexts(log, context_episodes, np.random.default_rng(seed))
    logged, known = logged_episodes(log, episode_BE[:, -1], family.n_states, family.n_actions)
    arrays = {"policy/behavior": returns(logged)}
    policies, estimates = {"behavior": {"value": interval(arrays["policy/behavior"])}}, {}
    for name, model in models.items():
        chance_BTA = model_probabilities(model, layout, log, episode_BE)
        values = off_policy_values(logged, chance_BTA)
        arrays[f"policy/{name}_sampled"] = doubly_robust_terms(logged, chance_BTA)
        estimates[f"{name}_sampled"] = values
        best = values["dr"]
        value = {"mean": best["mean"], "ci95": best["ci95"], "n_tasks": best["n_episodes"]}
        policies[f"{name}_sampled"] = {"value": value}
    said = {"behavior_probabilities": "recorded" if known else "estimated", "estimates": estimates}
    return policies, said, arrays


def episodes_with_contexts(log: Log, context_episodes: int, rng: np.random.Generator) -> np.ndarray:
    """Rows (B, K + 1): an episode that is valued, the last one, behind K others of its task as context.

    Every episode is valued once, or a random MOST_LOGGED / N of each of N tasks. NOTHING stands for others that the
    task does not have.
    """
    rows, most = [], max(1, MOST_LOGGED // log.n_tasks)
    for episodes in log.contexts:
        n_others = min(context_episodes, len(episodes) - 1)
        valued = np.arange(len(episodes)) if len(episodes) <= most else rng.choice(len(episodes), most, replace=False)
        for place in valued:
            row = np.full(context_episodes + 1, NOTHING)
            others = rng.choice(len(episodes) - 1, n_others, replace=False)
            row[context_episodes - n_others : -1] = episodes[others + (others >= place)]
            row[-1] = episodes[place]
            rows.append(row)
    return np.array(rows)


def logged_episodes(
    log: Log, episode_E: np.ndarray, n_observations: int, n_actions: int, discount: float = 1.0
) -> tuple[LoggedEpisodes, bool]:
    """(the episodes for off-policy estimates, whether the behaviour's probabilities were recorded or are estimated)."""
    steps = jax.tree.map(lambda x: x[:, 0], assemble(log.coded, episode_E[:, None]).trajectories)
    row = np.minimum(log.first[episode_E][:, None] + np.arange(log.longest), len(log.behavior) - 1)
    behavior = np.where(steps.valid, log.behavior[row], 1.0)
    terminal = steps.valid & log.terminal[row] if log.terminal.any() else None  # else it was not recorded
    observation = np.where(steps.observation == log.end, n_observations, steps.observation)
    known = bool(np.isfinite(behavior).all())
    if not known:
        chance_SA = estimated_behavior(observation, steps.action, steps.valid, n_observations, n_actions)
        state = np.minimum(observation[:, :-1], n_observations - 1)
        behavior = np.where(steps.valid, chance_SA[state, steps.action], 1.0)
    reward, sizes = steps.reward.astype(np.float64), (n_observations, n_actions)
    return LoggedEpisodes(
        observation, steps.action, reward, steps.valid, behavior, *sizes, discount, terminal=terminal
    ), known


def returns(logged: LoggedEpisodes) -> np.ndarray:
    """Discounted sum of each episode's rewards, (E,)."""
    discount_T = logged.discount ** np.arange(logged.action.shape[1])
    return (np.where(logged.valid, logged.reward, 0.0) * discount_T).sum(1)


def model_probabilities(model: Transformer, layout: Layout, log: Log, episode_BE: np.ndarray) -> np.ndarray:
    """Probabilities with which the model draws its actions along the last episode of each row, (B, T, A)."""
    logits = jax.jit(lambda model, part: action_logits(model, layout, encode(layout, part.trajectories).decisions))
    rows = assemble(log, episode_BE)
    z_BTA = np.concatenate([np.float64(gathered(logits(model, part)[:, -1])) for part in _parts(rows)])
    chance_BTA = np.exp(z_BTA - z_BTA.max(-1, keepdims=True))
    return chance_BTA / chance_BTA.sum(-1, keepdims=True)


def _parts(rows: Sequences) -> Iterator[Sequences]:
    """The rows, at most AT_ONCE or so at a time."""
    n = len(rows.label)
    for part in np.array_split(np.arange(n), max(1, n // AT_ONCE)):
        yield jax.tree.map(lambda x: x[part], rows)


def _mean_over_labels(loss_NEU: np.ndarray, label_NEU: np.ndarray) -> np.ndarray:
    return loss_NEU.sum((1, 2)) / np.maximum((label_NEU != NOTHING).sum((1, 2)), 1)
