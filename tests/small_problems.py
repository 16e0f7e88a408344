"""Small POMDPs that several test files use."""

import jax
import jax.numpy as jnp
import numpy as np

from icdm.problems.pomdp import make_pomdp


def tiger(accuracy=0.85, discount=0.95, horizon=5, **fields):
    """Listen, open left, open right."""
    hears = [[accuracy, 1 - accuracy], [1 - accuracy, accuracy]]
    anew = np.full((2, 2), 0.5)
    reward = [[-1, -100, 10], [-1, 10, -100]]
    return make_pomdp(
        [np.eye(2), anew, anew],
        reward,
        [0.5, 0.5],
        [hears, anew, anew],
        discount=discount,
        horizon=horizon,
        **fields,
    )


def random_pomdp(seed=0, n_states=4, n_actions=2, n_observations=3, horizon=4, **fields):
    rng = np.random.default_rng(seed)
    fields = {"first_emission": rng.dirichlet(np.ones(n_observations), n_states), **fields}
    return make_pomdp(
        rng.dirichlet(np.ones(n_states), (n_actions, n_states)),
        rng.random((n_states, n_actions)).round(1),
        rng.dirichlet(np.ones(n_states)),
        rng.dirichlet(np.ones(n_observations), (n_actions, n_states)),
        discount=0.9,
        horizon=horizon,
        **fields,
    )


def batch(problem):
    return jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], problem)
