"""The value that attention heads give every action, and how well these values rank the actions.

The query is a decision of the last episode, mostly its first. A head's attention to the steps i of the context gives

    value(a) = sum_i attention_i [a_i = a] G_i / sum_i attention_i [a_i = a],

G_i the discounted return from step i to the end of its episode. A head is scored by the Spearman correlation over the
actions of these values with Q*(s, .). Axis letters: N tasks, E episodes, T steps, A actions, X layers, H heads.
"""

import numpy as np
from scipy.stats import rankdata

from icdm.intervals import NORMAL_95
from icdm.trajectories.trajectory import Trajectories
from theory.circuits.trained import Study, centred


def values_read(attention_XNHET: np.ndarray, episodes: Trajectories, gamma: float, step: int = 0) -> np.ndarray:
    """value(a) of each head, (X, N, H, A); an action that does not occur in the context has the mean over all.

    Args:
      step: of the last episode, at which the query stands; the steps before it are read too, with the returns so far.
    """
    taken_NETA = taken_before(episodes, step)
    reward_NET = np.where(taken_NETA.any(-1), np.asarray(episodes.reward), 0.0)
    return_NET, total = np.zeros(reward_NET.shape), 0.0
    for t in reversed(range(reward_NET.shape[-1])):
        return_NET[..., t] = total = reward_NET[..., t] + gamma * total
    weighted = np.einsum("xnhet,neta->xnha", attention_XNHET, taken_NETA * return_NET[..., None])
    mass = np.einsum("xnhet,neta->xnha", attention_XNHET, taken_NETA)
    overall = weighted.sum(-1, keepdims=True) / np.maximum(mass.sum(-1, keepdims=True), 1e-12)
    return np.where(mass > 1e-12, weighted / np.maximum(mass, 1e-12), overall)


def taken_before(episodes: Trajectories, step: int = 0) -> np.ndarray:
    """Whether a step took place before that step of the last episode, and its action was a, (N, E, T, A)."""
    known_NET = np.array(episodes.valid)
    known_NET[:, -1, step:] = False
    return known_NET[..., None] & (np.asarray(episodes.action)[..., None] == np.arange(episodes.q.shape[-1]))


def mean_and_half(correlation_NXH: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means over N tasks, and half their normal 95 % intervals, (X, H) both."""
    return correlation_NXH.mean(0), NORMAL_95 * correlation_NXH.std(0, ddof=1) / np.sqrt(len(correlation_NXH))


def ranked_heads(study: Study) -> list[tuple[int, int]]:
    """(layer, head) pairs of the fine-tuned model, the best reader of Q on the first half of the tasks first."""
    half = len(study.rows.queries) // 2
    means_XH = head_correlations(study, "fine_tuned")[:half].mean(0)
    order = np.argsort(-means_XH, axis=None)
    return [tuple(int(i) for i in np.unravel_index(index, means_XH.shape)) for index in order]


def head_correlations(study: Study, name: str) -> np.ndarray:
    """(N, X, H) Spearman correlation of each head's values with Q*(s, .)."""
    episodes = study.shuffled if name == "shuffled_context" else study.rows.episodes
    values_XNHA = values_read(study.readings[name].attention, episodes, study.run.family.discount)
    return np.moveaxis(spearman(values_XNHA, study.rows.true_q()[None, :, None]), 0, 1)


def spearman(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Rank correlation along the last axis, ties at their mean rank; 0 where one of the two is constant."""
    return (unit_ranks(x) * unit_ranks(y)).sum(-1)


def unit_ranks(x: np.ndarray) -> np.ndarray:
    """Centred ranks along the last axis, of length 1, or 0 where all are tied."""
    ranks = centred(rankdata(x, axis=-1))
    length = np.linalg.norm(ranks, axis=-1, keepdims=True)
    return np.divide(ranks, length, out=np.zeros_like(ranks), where=length > 0)
