"""Laws of vectors: the distributions of a prompt's features and a task's weights.

A law offers `sample(key, shape)`, its second moment E[x x^T], the fourth-order moment E[x x^T S x x^T], and
a `rule`: points and weights whose finite sums give every moment up to degree 7 exactly. Closed forms need
the moments, Monte Carlo the samples, and population losses the rule, so that each can check the others.
"""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np

from icdm.errors import UserError


@functools.partial(jax.tree_util.register_dataclass, data_fields=["root"], meta_fields=[])
@dataclasses.dataclass(frozen=True)
class Gaussian:
    """N(0, root root^T).

    Attributes:
      root: (F, F).
    """

    root: np.ndarray

    @property
    def second(self) -> np.ndarray:
        return np.asarray(self.root, np.float64) @ np.asarray(self.root, np.float64).T

    def fourth(self, between: np.ndarray) -> np.ndarray:
        """E[x x^T S x x^T] = L (S + S^T) L + tr(S L) L with L = E[x x^T] (Isserlis)."""
        second = self.second
        return second @ (between + between.T) @ second + np.trace(between @ second) * second

    def sample(self, key, shape=()):
        normal = jax.random.normal(key, (*shape, self.root.shape[0]), jnp.float32)
        return normal @ jnp.asarray(self.root, jnp.float32).T

    def rule(self) -> tuple[np.ndarray, np.ndarray]:
        """Product Gauss-Hermite rule with 4 points an axis, exact to degree 7; (4^F, F) and (4^F,)."""
        size = self.root.shape[0]
        if size > 4:
            raise UserError(f"a product rule in {size} dimensions has {4**size} points: use at most 4")
        node, weight = np.polynomial.hermite_e.hermegauss(4)
        points = np.array(list(itertools.product(node, repeat=size))) @ self.root.T
        weights = np.array(list(itertools.product(weight / weight.sum(), repeat=size))).prod(-1)
        return points, weights


@functools.partial(jax.tree_util.register_dataclass, data_fields=["points", "weights"], meta_fields=[])
@dataclasses.dataclass(frozen=True)
class Finite:
    """One of P points.

    Attributes:
      points: (P, F).
      weights: (P,) probabilities.
    """

    points: np.ndarray
    weights: np.ndarray

    @property
    def second(self) -> np.ndarray:
        return np.einsum("p,pi,pj->ij", self.weights, self.points, self.points)

    def fourth(self, between: np.ndarray) -> np.ndarray:
        """E[x x^T S x x^T]."""
        inner = np.einsum("pi,ij,pj->p", self.points, between, self.points)
        return np.einsum("p,pi,pj->ij", self.weights * inner, self.points, self.points)

    def sample(self, key, shape=()):
        cumulative = jnp.cumsum(jnp.asarray(self.weights, jnp.float32))
        uniform = jax.random.uniform(key, shape, jnp.float32) * cumulative[-1]
        index = jnp.minimum(jnp.searchsorted(cumulative, uniform, side="right"), cumulative.shape[0] - 1)
        return jnp.asarray(self.points, jnp.float32)[index]

    def rule(self) -> tuple[np.ndarray, np.ndarray]:
        return self.points, self.weights


Law = Gaussian | Finite


def gaussian(second: np.ndarray) -> Gaussian:
    """N(0, second), for a positive definite second moment."""
    return Gaussian(np.linalg.cholesky(np.asarray(second, np.float64)))


def spectrum(dimension: int, condition: float) -> np.ndarray:
    """diag with eigenvalues in geometric progression, the given condition number, and trace F."""
    values = np.geomspace(condition, 1, dimension) if dimension > 1 else np.ones(1)
    return np.diag(values * dimension / values.sum())


def uniform_over(points: np.ndarray) -> Finite:
    """Each of the points with the same probability."""
    return Finite(points, np.full(len(points), 1 / len(points)))


def one_hot(probabilities) -> Finite:
    """The unit vectors e_i with the given probabilities: a tabular problem's cells."""
    return Finite(np.eye(len(probabilities)), np.asarray(probabilities, np.float64))


def symmetric(points: np.ndarray) -> Finite:
    """Plus or minus a point, less the points' mean: an empirical law that is symmetric about 0."""
    centred = points - points.mean(0)
    return uniform_over(np.concatenate([centred, -centred]))
