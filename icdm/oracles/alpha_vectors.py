"""Exact finite-horizon values of POMDPs: alpha-vectors, pruned by linear programmes.

With h decisions to go the optimal value is V_h(b) = max_{alpha in Gamma_h} b . alpha, where Gamma_h holds

    alpha = r_a + gamma sum_z K[a, z] alpha_z,   a an action, alpha_z in Gamma_{h-1},

K[a, z] the joint kernel of `BeliefModel` (Sondik 1971). The sums over signals add one signal at a time and are
pruned after each (incremental pruning, Cassandra, Littman and Zhang 1997). NumPy, float64. Axis letters as in
docs/axes.md.
"""

import dataclasses
import math
import time

import numpy as np
from scipy import sparse

from icdm.errors import OutOfTime, TooLarge
from icdm.oracles.belief import BeliefModel

BLOCK = 64  # linear programmes solved in one call
SLACK = 1e-9  # a vector is dropped if it exceeds the others nowhere by more than SLACK times their scale


@dataclasses.dataclass(frozen=True)
class AlphaVectors:
    """V(b) = max_j b . vectors[j], with the first action of the plan of each vector.

    Attributes:
      vectors: (J, S) alpha-vectors.
      actions: (J,) first actions.
    """

    vectors: np.ndarray
    actions: np.ndarray

    def value(self, belief: np.ndarray) -> np.ndarray:
        """V at beliefs (..., S)."""
        return (belief @ self.vectors.T).max(-1)

    def action(self, belief: np.ndarray) -> np.ndarray:
        """A best action at beliefs (..., S)."""
        return self.actions[(belief @ self.vectors.T).argmax(-1)]


def alpha_vectors(
    model: BeliefModel, horizon: int | None = None, *, most: int = 3000, deadline: float = math.inf
) -> list[AlphaVectors]:
    """Gamma_0, ..., Gamma_horizon of one problem; entry h has h decisions to go.

    Raises:
      TooLarge: one pruning step has more than `most` candidate vectors per signal.
      OutOfTime: the deadline, on the clock of `time.monotonic`, has passed.
    """
    horizon = model.horizon if horizon is None else horizon
    n_states = model.reward.shape[0]
    stages = [AlphaVectors(np.zeros((1, n_states)), np.zeros(1, int))]
    for _ in range(horizon):
        stages.append(_backup(model, stages[-1].vectors, most, deadline))
    return stages


def _backup(model: BeliefModel, vectors: np.ndarray, most: int, deadline: float) -> AlphaVectors:
    by_action = []
    for action, kernel_ZSS in enumerate(model.kernel):
        signals = [kernel for kernel in kernel_ZSS if kernel.any()]
        parts = [prune(model.discount * vectors @ kernel.T, deadline) for kernel in signals]
        total = np.zeros((1, vectors.shape[1]))
        for part in sorted(parts, key=len):
            if len(total) * len(part) > most * len(signals):
                raise TooLarge(len(total) * len(part), most * len(signals), "candidates for exact alpha-vectors")
            total = prune((total[:, None] + part).reshape(-1, vectors.shape[1]), deadline)
        by_action.append(total + model.reward[:, action])
    vectors = np.concatenate(by_action)
    actions = np.repeat(np.arange(len(by_action)), [len(part) for part in by_action])
    kept = useful(vectors, deadline)
    return AlphaVectors(vectors[kept], actions[kept])


def prune(vectors: np.ndarray, deadline: float = math.inf) -> np.ndarray:
    """The vectors that are best at some belief, (J', S) of (J, S)."""
    return vectors[useful(vectors, deadline)]


def useful(vectors: np.ndarray, deadline: float = math.inf) -> np.ndarray:
    """Indices of vectors that attain max_j b . v_j for every belief b to within SLACK times their scale.

    The best vectors at a fixed set of witness beliefs are kept without a test. A linear programme for each other
    vector either finds a belief where it exceeds the kept vectors, or discards it (Lark; White 1991).

    Raises:
      OutOfTime: the deadline, on the clock of `time.monotonic`, has passed.
    """
    slack = SLACK * max(1.0, np.abs(vectors).max())
    candidates = _undominated(vectors, slack, deadline)
    if len(candidates) == 1:
        return candidates
    kept = sorted(set(_winners(vectors, candidates, _witnesses(vectors.shape[1]))))
    waiting = [int(k) for k in candidates if k not in set(kept)]
    while waiting:
        _check_time(deadline)
        tested, waiting = waiting[:BLOCK], waiting[BLOCK:]
        beliefs = _beliefs_where_better(vectors[tested], vectors[kept], deadline)
        margin = (beliefs * vectors[tested]).sum(1) - (beliefs @ vectors[kept].T).max(1)
        better = margin > slack
        if better.any():
            hopeful = np.array(sorted({k for k, good in zip(tested, better) if good} | set(waiting)))
            winners = sorted(set(_winners(vectors, hopeful, beliefs[better])))
            kept += winners
            waiting = [int(k) for k in hopeful if k not in set(winners)]
    return np.array(sorted(kept))


def _undominated(vectors: np.ndarray, slack: float, deadline: float) -> np.ndarray:
    """Indices of vectors that no other vector dominates in every state, and of the first of equal vectors."""
    order = np.argsort(-vectors.sum(1), kind="stable")
    kept = []
    for k in order:
        _check_time(deadline)
        if not kept or not (vectors[kept] >= vectors[k] - slack / 10).all(1).any():
            kept.append(k)
    return np.array(sorted(kept))


def _check_time(deadline: float) -> None:
    if time.monotonic() > deadline:
        raise OutOfTime


def _witnesses(n_states: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    spread = rng.dirichlet(np.full(n_states, 0.3), 40 * n_states)
    return np.concatenate([np.eye(n_states), np.full((1, n_states), 1 / n_states), spread])


def _winners(vectors: np.ndarray, candidates: np.ndarray, beliefs: np.ndarray) -> list[int]:
    return [int(k) for k in candidates[(beliefs @ vectors[candidates].T).argmax(1)]]


def _beliefs_where_better(vectors: np.ndarray, others: np.ndarray, deadline: float) -> np.ndarray:
    """argmax_b min_j b . (vector - others[j]) for each of n vectors, (n, S); one block-diagonal linear programme."""
    from scipy.optimize import linprog  # slow to import, and seldom needed

    n, n_states = vectors.shape
    difference = vectors[:, None] - others
    scale = np.maximum(np.abs(difference).max((1, 2), keepdims=True), 1e-300)
    rows = np.concatenate([-difference / scale, np.ones((n, len(others), 1))], 2)
    simplex = [np.r_[np.ones(n_states), 0.0][None]] * n
    result = linprog(
        np.tile(np.r_[np.zeros(n_states), -1.0], n),
        A_ub=sparse.block_diag([*map(sparse.coo_array, rows)]),
        b_ub=np.zeros(n * len(others)),
        A_eq=sparse.block_diag([*map(sparse.coo_array, simplex)]),
        b_eq=np.ones(n),
        bounds=np.tile([(0, np.inf)] * n_states + [(-np.inf, np.inf)], (n, 1)),
        method="highs",
        options={
            "primal_feasibility_tolerance": 1e-10,
            "dual_feasibility_tolerance": 1e-10,
            "time_limit": max(0.0, deadline - time.monotonic()),
        },
    )
    _check_time(deadline)
    if result.x is None:
        raise RuntimeError(f"the linear programme of pruning failed: {result.message}")
    beliefs = np.maximum(result.x.reshape(n, -1)[:, :-1], 0)
    return beliefs / beliefs.sum(1, keepdims=True)
