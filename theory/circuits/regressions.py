"""Regressions of logit differences on Q differences, through the origin and over all pairs of actions.

sum_{a, a'} (z_a - z_a')(q_a - q_a') = 2 A sum_a z_a q_a for centred z and q: the regression needs only sums
of products of centred logits and values, which add up over tasks and steps. Axis letters: N tasks, Q seeds, A actions.
"""

import numpy as np

from theory.circuits.trained import centred


def pair_products(logits: np.ndarray, q: np.ndarray) -> np.ndarray:
    """z.q, q.q and z.z of centred logits and values (..., A), (..., 3)."""
    z, q = centred(np.asarray(logits, np.float64)), centred(q)
    return np.stack([(z * q).sum(-1), (q * q).sum(-1), (z * z).sum(-1)], axis=-1)


def r_squared(sums_NQ3: np.ndarray) -> float:
    """(z.q)^2 / (q.q z.z): share of the logits' variance that the regression explains, mean over Q seeds."""
    zq, qq, zz = np.moveaxis(sums_NQ3.sum(0), -1, 0)
    return float((zq**2 / (qq * zz)).mean())


def slope(sums_NQ3: np.ndarray) -> float:
    """z.q / q.q: least-squares slope of logit differences on Q differences, mean over Q seeds."""
    zq, qq, _ = np.moveaxis(sums_NQ3.sum(0), -1, 0)
    return float((zq / qq).mean())
