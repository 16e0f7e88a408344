"""The optimum of a linear self-attention layer on random prompts, and its error, in closed form.

A prompt holds n labelled features y_i = <w, x_i> + noise and a query x_q; the reduced layer predicts

    Qhat(x_q) = x_q^T U (1/n) sum_i y_i x_i,    U = W_PV[last, last] * W_KQ[features, features]^T.

N is the length of the prompts it was trained on, M that of its test prompts. Sources: [Z] Zhang, Frei,
Bartlett, "Trained Transformers Learn Linear Models In-Context", JMLR 25(49), 2024; [P] arXiv 2605.09009.
Formulas without a source are derived here and checked by Monte Carlo in the tests.
"""

import numpy as np

from icdm.errors import UserError
from theory.linear.laws import Law


def gamma(covariance: np.ndarray, n: int) -> np.ndarray:
    """Gamma_N = (1 + 1/N) Lambda + (tr Lambda / N) I; its inverse is U for Gaussian features [Z, Thm 4.1]."""
    return (1 + 1 / n) * covariance + np.trace(covariance) / n * np.eye(len(covariance))


def optimum(features: Law, task_second: np.ndarray, n: int, noise: float = 0.0) -> np.ndarray:
    """The U that is best for prompts of n independent features.

    U_N = S_w Lambda (E[G S_w G] + (noise^2 / N) Lambda)^+,   G = (1/N) sum_i x_i x_i^T,
    E[G S_w G] = (1/N) E[x x^T S_w x x^T] + (1 - 1/N) Lambda S_w Lambda.

    Shapes: (F, F). The pseudo-inverse serves features that do not span the space.
    """
    second = features.second
    return optimum_from_moment(second, task_second, gram_moment(features, task_second, n) + noise**2 / n * second)


def gram_moment(features: Law, between: np.ndarray, n: int) -> np.ndarray:
    """E[G S G] for n independent features, (F, F)."""
    second = features.second
    return features.fourth(between) / n + (1 - 1 / n) * second @ between @ second


def optimum_from_moment(second: np.ndarray, task_second: np.ndarray, label_moment: np.ndarray) -> np.ndarray:
    """U = S_w Lambda (E[g g^T])^+ with g = (1/n) sum_i y_i x_i, whatever the features' correlation."""
    return task_second @ second @ np.linalg.pinv(label_moment, rcond=1e-12, hermitian=True)


def squared_error(
    features: Law, task_second: np.ndarray, u: np.ndarray, m: float, noise: float = 0.0, query_second=None
) -> tuple[float, float]:
    """Training-length bias and in-context estimation error of the reduced layer; their sum is its MSE.

    bias       = tr[Lambda_q (U Lambda - I) S_w (U Lambda - I)^T]
    estimation = (1/M) tr[Lambda_q U (E[x x^T S_w x x^T] - Lambda S_w Lambda + noise^2 Lambda) U^T]

    The error is that against <w, x_q>, without the query's own label noise. `task_second` and `features` are
    those of the test prompts, Lambda_q that of the query (the features' where not given). M may be infinite.
    """
    second = features.second
    query = second if query_second is None else query_second
    off = u @ second - np.eye(len(second))
    spread = features.fourth(task_second) - second @ task_second @ second + noise**2 * second
    return float(np.trace(query @ off @ task_second @ off.T)), float(np.trace(query @ u @ spread @ u.T)) / m


def gaussian_squared_error(covariance: np.ndarray, n: int, m: int) -> float:
    """MSE(N, M) = tr[Lambda - 2 Lambda^2 Gamma_N^-1 + Lambda^2 Gamma_M Gamma_N^-2] [Z, Thm 4.2].

    For Gaussian features, w ~ N(0, I) and the layer that is best at length N.
    """
    inverse, square = np.linalg.inv(gamma(covariance, n)), covariance @ covariance
    return float(np.trace(covariance - 2 * square @ inverse + square @ gamma(covariance, m) @ inverse @ inverse))


def upper_bound(covariance: np.ndarray, n: int, m: int) -> float:
    """(d + 1) tr(Lambda) / M + (1 + 2 d + d^2 cond(Lambda)) tr(Lambda) / N^2 [P, eq. 6; Z, Cor. 4.3]."""
    d, trace = len(covariance), np.trace(covariance)
    return float((d + 1) * trace / m + (1 + 2 * d + d**2 * np.linalg.cond(covariance)) * trace / n**2)


def check_lengths(dimension: int, *lengths) -> None:
    """Refuses prompts shorter than the features' dimension, which do not determine the weights.

    Raises:
      UserError: naming the dimension and the length.
    """
    for length in lengths:
        if length < dimension:
            raise UserError(
                f"dimension {dimension} exceeds the prompt length {length}: give at least {dimension} pairs"
            )
