"""Labels of a log: the oracle's actions, or substitutes for a log without them.

Axis letters as in docs/axes.md; the states of the tabular model are the observations, T is the length of the longest
episode.
"""

import dataclasses

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
DOUBT = 0.1  # probability that a value is overestimated


def relabelled(log: Log, labels: str, family: Family) -> Log:
    """The log with labels of one kind.

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
    for episodes in log.contexts:
        if labels == "imitation":
            chosen = episodes
        elif labels == "best_return":
            chosen = best_episodes(log, episodes)
        else:
            q_TSA = pessimistic_q(log, episodes, *family.reward_range)
            rows, t = _rows(log, episodes)
            label[rows] = q_TSA[t, log.observation[rows]].argmax(-1)
            continue
        rows, _ = _rows(log, chosen)
        label[rows] = log.action[rows]
    return dataclasses.replace(log, label=label)


def best_episodes(log: Log, episodes: np.ndarray) -> np.ndarray:
    """The quarter of the episodes with the highest returns (at least one), and the episodes that tie with its last."""
    total = np.array([log.reward[log.first[e] : log.first[e] + log.steps[e]].sum() for e in episodes])
    least = np.sort(total)[::-1][max(1, int(BEST_SHARE * len(total))) - 1]
    return episodes[total >= least]


def pessimistic_q(log: Log, episodes: np.ndarray, reward_low: float, reward_high: float) -> np.ndarray:
    """Q of value iteration with a lower confidence bound on the model of observed frequencies, (T, S, A):

        Q_t(s, a) = r(s, a) + sum_s' P(s'|s,a) V_{t+1}(s') - (T - t)(high - low) sqrt(ln(2 / delta) / (2 n(s, a))),

    clipped to the range of a sum of T - t rewards; an untried action has the lowest value. V is 0 after a terminal step
    (where no step is marked so, after an episode that stops before step T). A last step whose next observation was not
    recorded says nothing of what follows earlier ones; a pair known from such steps alone is followed by the lowest
    value. Undiscounted.

    Source: Jin, Yang, Wang, "Is Pessimism Provably Efficient for Offline RL?" (ICML 2021), algorithm 1,
    with Hoeffding's bound.
    """
    T, S, A = log.longest, log.end, int(log.action.max()) + 1
    rows, t = _rows(log, episodes)
    pair = log.observation[rows] * A + log.action[rows]
    n_C = np.bincount(pair, minlength=S * A)
    reward_C = np.bincount(pair, log.reward[rows], S * A) / np.maximum(n_C, 1)
    # The distinct (s, a, s') and their counts; an end leads to the extra state S of value 0.
    steps = log.steps[episodes]
    last = t == np.repeat(steps, steps) - 1
    closed = np.repeat(log.first[episodes + 1] - log.first[episodes] > steps, steps)
    over = log.terminal[rows] if log.terminal.any() else last & (t < T - 1)
    known = over | closed | ~last
    following = np.where(over, S, log.observation[np.minimum(rows + 1, len(log.action) - 1)])
    distinct, count = np.unique(pair[known].astype(np.int64) * (S + 1) + following[known], return_counts=True)
    from_I, to_I = np.divmod(distinct, S + 1)
    known_C = np.bincount(pair[known], minlength=S * A)
    doubt_C = (reward_high - reward_low) * np.sqrt(np.log(2 / DOUBT) / (2 * np.maximum(n_C, 1)))
    q_TSA, v_S = np.empty((T, S, A)), np.zeros(S + 1)
    for step in reversed(range(T)):
        left = T - step
        future_C = np.bincount(from_I, count * v_S[to_I], S * A) / np.maximum(known_C, 1)
        future_C = np.where(known_C > 0, future_C, (left - 1) * reward_low)
        q_C = np.clip(reward_C + future_C - left * doubt_C, left * reward_low, left * reward_high)
        q_TSA[step] = np.where(n_C > 0, q_C, left * reward_low - 1).reshape(S, A)
        v_S[:S] = np.maximum(q_TSA[step].max(-1), left * reward_low)
    return q_TSA


def _rows(log: Log, episodes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the episodes' steps (I,), and the index t of each step in its episode (I,)."""
    steps = log.steps[episodes]
    t = np.arange(steps.sum()) - np.repeat(np.cumsum(steps) - steps, steps)
    return np.repeat(log.first[episodes], steps) + t, t
