"""Labels of a log: the oracle's actions, or substitutes for a log without them.

Axis letters as in docs/axes.md; the states of the tabular model are the observations, T is the length of the longest
episode.
"""

import dataclasses
import statistics

import numpy as np

from icdm.errors import UserError, unknown
from icdm.logs.log import Log
from icdm.logs.table import NOTHING
from icdm.problems.family import Family

LABELS = {
    "oracle": "the oracle_action column",
    "imitation": "the recorded actions",
    "best_return": "the recorded actions of the best quarter of each task's episodes by return",
    "pessimistic": "the best actions of a tabular model of each task, with a lower confidence bound on its values",
}
BEST_SHARE = 0.25
DOUBT = 0.1  # probability that the value of any action at any step is overestimated


def relabelled(log: Log, labels: str, family: Family) -> Log:
    """The log with labels of one kind.

    Values, and the return from which an episode is among the best quarter, are fitted to `log.fitted`. Mostly these are
    each task's own episodes, since nothing else tells its best actions. Where episodes of a single task were held out,
    they are those of the training part, so that the labels of both parts are one function of step and observation. How
    well held-out labels are predicted then says how well that function was learned, and nothing of its worth. That is
    told by the held-out rewards, which have had no part in it. (Fitted to the held-out part, a tenth of the data, they
    would have errors of their own, which no reader could predict.) An observation that the fitted episodes do not have
    has no label.

    Args:
      labels: a key of LABELS.

    Raises:
      UserError: the kind is unknown, or the oracle's actions are asked of a log without them.
    """
    if labels not in LABELS:
        raise unknown("data_labels", labels, LABELS)
    if labels == "oracle":
        if not (log.label != NOTHING).any():
            raise UserError(
                "the log has no oracle_action: set config.data_labels to imitation, best_return or pessimistic"
            )
        return log
    label = np.full_like(log.label, NOTHING)
    for episodes, fitted in zip(log.contexts, log.fitted):
        if labels == "imitation":
            chosen = episodes
        elif labels == "best_return":
            chosen = best_episodes(log, episodes, fitted)
        else:
            q_TSA = pessimistic_q(log, fitted, *family.reward_range)
            rows, t = _rows(log, episodes)
            q_IA = q_TSA[t, log.observation[rows]]
            label[rows] = np.where(np.isneginf(q_IA).all(-1), NOTHING, q_IA.argmax(-1))
            continue
        rows, _ = _rows(log, chosen)
        label[rows] = log.action[rows]
    return dataclasses.replace(log, label=label)


def best_episodes(log: Log, episodes: np.ndarray, fitted: np.ndarray) -> np.ndarray:
    """Those of the episodes whose returns reach the best quarter of the fitted ones (of which it is at least one)."""
    return_E, other_E = (
        np.array([log.reward[log.first[e] : log.first[e] + log.steps[e]].sum() for e in part])
        for part in (episodes, fitted)
    )
    least = np.sort(other_E)[::-1][max(1, int(BEST_SHARE * len(other_E))) - 1]
    return episodes[return_E >= least]


def pessimistic_q(
    log: Log, episodes: np.ndarray, reward_low: float, reward_high: float, bound: bool = True
) -> np.ndarray:
    """Q of value iteration with a lower confidence bound on the model of observed frequencies, (T, S, A):

        Q_t(s, a) = mean of y - z sigma_t / sqrt(n(s, a)),   y = r + V_{t+1}(s') of the n(s, a) steps from (s, a),

    where z is the normal quantile of 1 - DOUBT / (A T), and sigma_t^2 the mean square of y less its pair's mean, to
    which each pair adds one step with the variance of all y, since what was tried once has none of its own. An untried
    action has the value -inf. V is clipped to the range of a sum of T - t rewards, and 0 after a terminal step (where
    no step is marked so, after an episode that stops before step T). A last step whose next observation was not
    recorded says nothing of what follows earlier ones; a pair known from such steps alone is followed by the lowest
    value. Undiscounted.

    Args:
      bound: without it z is 0, and the values are those of the observed frequencies.

    Source: Jin, Yang, Wang, "Is Pessimism Provably Efficient for Offline RL?" (ICML 2021), algorithm 1, with standard
    errors in place of Hoeffding's bound.
    """
    T, S, A = log.longest, log.end, int(log.action.max()) + 1
    rows, t = _rows(log, episodes)
    pair_I, reward_I = log.observation[rows] * A + log.action[rows], log.reward[rows].astype(np.float64)
    n_C = np.bincount(pair_I, minlength=S * A)
    reward_C = np.bincount(pair_I, reward_I, S * A) / np.maximum(n_C, 1)
    steps = log.steps[episodes]
    last = t == np.repeat(steps, steps) - 1
    closed = np.repeat(log.first[episodes + 1] - log.first[episodes] > steps, steps)
    over = log.terminal[rows] if log.terminal.any() else last & (t < T - 1)
    known = over | closed | ~last
    next_I = np.where(over, S, log.observation[np.minimum(rows + 1, len(log.action) - 1)])  # S: the end
    known_C = np.bincount(pair_I[known], minlength=S * A)
    n_pairs = np.count_nonzero(n_C)
    z = statistics.NormalDist().inv_cdf(1 - DOUBT / (A * T)) if bound else 0.0
    q_TSA, v_S = np.empty((T, S, A)), np.zeros(S + 1)
    for step in reversed(range(T)):
        left = T - step
        future_C = np.bincount(pair_I[known], v_S[next_I[known]], S * A) / np.maximum(known_C, 1)
        future_C = np.where(known_C > 0, future_C, (left - 1) * reward_low)
        y_I = reward_I + np.where(known, v_S[next_I], future_C[pair_I])
        within = np.sum((y_I - (reward_C + future_C)[pair_I]) ** 2)
        sigma = np.sqrt((within + n_pairs * y_I.var()) / (len(y_I) + n_pairs))
        q_C = reward_C + future_C - z * sigma / np.sqrt(np.maximum(n_C, 1))
        q_TSA[step] = np.where(n_C > 0, q_C, -np.inf).reshape(S, A)
        v_S[:S] = np.clip(q_TSA[step].max(-1), left * reward_low, left * reward_high)
    return q_TSA


def _rows(log: Log, episodes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the episodes' steps (I,), and the index t of each step in its episode (I,)."""
    steps = log.steps[episodes]
    t = np.arange(steps.sum()) - np.repeat(np.cumsum(steps) - steps, steps)
    return np.repeat(log.first[episodes], steps) + t, t
