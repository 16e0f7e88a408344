"""Exact finite-horizon values at one belief, by the tree of reachable beliefs with equal beliefs merged.

The method is independent of alpha-vectors, and so checks them. The forward pass lists the beliefs after every
sequence of actions and signals, level by level; the backward pass runs the Bellman recursion over the lists. The tree
of an ambiguity set of M models also branches by the model and backs up the recursive alpha-maxmin value

    V_t(b) = max_a { alpha min_m g_m + (1 - alpha) max_m g_m },
    g_m = b . r_m,a + gamma sum_z Pr(z | b, a, m) V_{t+1}(filter of model m)

(Saghafian, "Ambiguous partially observable Markov decision processes", J. Econ. Theory 178, 2018); with
M = 1 this is the value of the POMDP. NumPy, float64. Axis letters as in docs/axes.md.
"""

import math
import time

import numpy as np

from icdm.errors import OutOfTime, TooLarge
from icdm.oracles.belief import BeliefModel

DIGITS = 12  # beliefs are equal if they agree to so many digits
LEVELS = 16  # all levels together may have so many times the numbers that one may have


def tree_values(
    model: BeliefModel,
    belief: np.ndarray,
    horizon: int | None = None,
    *,
    pessimism: float = 0.0,
    most: int = 5_000_000,
    deadline: float = math.inf,
) -> np.ndarray:
    """Q(belief, a) with `horizon` decisions to go, (A,).

    Args:
      model: one problem, or an ambiguity set with a leading axis M on its arrays.
      belief: (S,).
      horizon: the model's horizon if it is None.
      pessimism: alpha.
      most: limit on the numbers on one level of the tree; that on all levels is `LEVELS` times as large.
      deadline: on the clock of `time.monotonic`.

    Raises:
      TooLarge: the tree needs more numbers than `most` allows.
      OutOfTime: the deadline has passed.
    """
    horizon = model.horizon if horizon is None else horizon
    kernel, reward = (
        (model.kernel, model.reward) if model.kernel.ndim == 5 else (model.kernel[None], model.reward[None])
    )
    discount = np.max(model.discount)
    levels, branches = [belief[None]], []
    size = 0
    for _ in range(horizon - 1):
        children, chance, child = _expand(levels[-1], kernel, most)
        size += children.size + 2 * chance.size
        if size > LEVELS * most:
            raise TooLarge(size, LEVELS * most, "numbers in the exact belief tree")
        if time.monotonic() > deadline:
            raise OutOfTime
        levels.append(children)
        branches.append((chance, child))
    value = np.zeros(0)
    for depth in reversed(range(horizon)):
        gain = np.einsum("ns,msa->nma", levels[depth], reward)
        if depth < horizon - 1:
            chance, child = branches[depth]
            gain += discount * (chance * value[child]).sum(-1)
        q_values = pessimism * gain.min(1) + (1 - pessimism) * gain.max(1)
        value = q_values.max(-1)
    return q_values[0]


def _expand(beliefs: np.ndarray, kernel: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Successors of beliefs (P, S): the unique ones (P', S), and their probabilities and indices (P, M, A, Z)."""
    size = len(beliefs) * kernel[..., 0].size
    if size > most:
        raise TooLarge(size, most, "numbers on one level of the exact belief tree")
    joint = np.einsum("ns,mazst->nmazt", beliefs, kernel)
    chance = joint.sum(-1)
    possible = chance > 1e-14
    reached = joint[possible] / chance[possible][:, None]
    unique, index = np.unique(np.round(reached, DIGITS), axis=0, return_inverse=True)
    child = np.zeros(chance.shape, int)
    child[possible] = index.ravel()
    return unique / unique.sum(1, keepdims=True), np.where(possible, chance, 0), child
