"""Greedy decisions from attention's estimate of Q in linear MDPs, and their cost.

Every step h has a prompt of its own: M pairs (phi(s_i, a_i), Q*_h(s_i, a_i)) with (s_i, a_i) uniform, from
which the reduced layer estimates w_h. There are finitely many features, so a prompt enters only by how
often each pair occurs, and prompts of any length cost the same. Axis letters: N problems, T steps, S states,
A actions, F features, C = S A pairs.
"""

import functools
from typing import NamedTuple

import jax
import numpy as np

from icdm.families.linear_mdp import (
    optimal_weights,
    sample_linear_mdp,
    simplex_features,
    with_optimal_weights,
)


class Problems(NamedTuple):
    """N linear MDPs that share features (S, A, F); uniform start.

    transition (N, T, S, A, S), reward (N, T, S, A), weights w*_h (N, T, F).
    """

    features: np.ndarray
    transition: np.ndarray
    reward: np.ndarray
    weights: np.ndarray

    @property
    def cells(self) -> np.ndarray:
        return self.features.reshape(-1, self.features.shape[-1])

    @property
    def q(self) -> np.ndarray:
        return self.q_of(self.weights)

    def q_of(self, weights) -> np.ndarray:
        """<phi(s, a), w_h>, (N, T, S, A)."""
        return np.einsum("saf,rtf->rtsa", self.features, weights)


def shared_features(config) -> np.ndarray:
    with jax.enable_x64(True):
        key = jax.random.key(config.feature_seed)
        return np.asarray(simplex_features(key, config.states, config.actions, config.dimension))


def sample_problems(config, seed: int, n: int, weights_NTF=None) -> Problems:
    """n linear MDPs with the config's features; with given optimal weights, where there are some."""
    features = shared_features(config)
    with jax.enable_x64(True):
        keys = jax.random.split(jax.random.key(seed), n)
        return Problems(features, *map(np.asarray, _sample(keys, features, weights_NTF, config.horizon)))


@functools.partial(jax.jit, static_argnums=3)
def _sample(keys, features, weights_NTF, horizon):
    def one(key, weights):
        problem = sample_linear_mdp(key, features, horizon)
        if weights is not None:
            problem = with_optimal_weights(problem, weights)
        return problem.transition(), problem.reward(), optimal_weights(problem)

    return jax.vmap(one, (0, None if weights_NTF is None else 0))(keys, weights_NTF)


def estimated_weights(problems: Problems, u, m: float, rng) -> np.ndarray:
    """U_h G w*_h with G = (1/M) sum_i x_i x_i^T of one prompt for each problem and step; (N, T, F).

    u is (T, F, F) or (F, F); m may be infinite, where G is its mean.
    """
    cells, weights = problems.cells, problems.weights
    share = np.full(len(cells), 1 / len(cells))
    if np.isinf(m):
        moment = np.einsum("c,cf,cg,rtg->rtf", share, cells, cells, weights, optimize=True)
    else:
        counts = rng.multinomial(int(m), share, weights.shape[:2]) / m
        moment = np.einsum("rtc,cf,rtc->rtf", counts, cells, weights @ cells.T, optimize=True)
    return np.einsum("...fg,r...g->r...f", u, moment) if u.ndim == 3 else moment @ u.T


def greedy_outcome(problems: Problems, q_hat: np.ndarray):
    """Value gap of the policy greedy in q_hat (N,), and the states it meets, (N, T, S)."""
    action = q_hat.argmax(-1)[..., None]
    reward = np.take_along_axis(problems.reward, action, -1)[..., 0]
    transition = np.take_along_axis(problems.transition, action[..., None], -2)[..., 0, :]
    n, horizon, states = reward.shape
    occupancy = np.full((n, horizon, states), 1 / states)
    for h in range(1, horizon):
        occupancy[:, h] = np.einsum("rs,rsy->ry", occupancy[:, h - 1], transition[:, h - 1])
    optimal = problems.q[:, 0].max(-1).mean(-1)
    return optimal - np.einsum("rts,rts->r", occupancy, reward), occupancy
