"""Which step each position of a prompt holds.

Append t + 1 of an episode holds step t; the positions of append 0 hold none, nor do those of the layout's opening.
Axis letters: B rows, E episodes, T steps, L positions, I = E T steps one after another.
"""

import jax
import jax.numpy as jnp
import numpy as np

from icdm.trajectories.layouts import Layout


def step_of_position(layout: Layout, n_episodes: int, n_steps: int) -> np.ndarray:
    """Which of the I steps a position of the prompt holds, (L,); -1 at openings, of the prompt and of episodes."""
    step_EU = np.arange(n_episodes)[:, None] * n_steps + np.arange(-1, n_steps)
    step_EU[:, 0] = -1
    return np.concatenate([np.full(len(layout.opening), -1), np.repeat(step_EU.ravel(), layout.positions)])


def by_step(x: np.ndarray | jax.Array, step_L: np.ndarray, n_episodes: int) -> np.ndarray | jax.Array:
    """Numbers of positions (..., L), summed over those that hold a step, (..., E, T)."""
    first = int(np.argmax(step_L >= 0))
    per_step = int((step_L == 0).sum())
    opening = first - per_step  # the prompt's; the first episode's own opening has as many positions as a step
    grouped = x[..., opening:].reshape(*x.shape[:-1], n_episodes, -1, per_step)
    return grouped.sum(-1)[..., 1:]


def holds(steps_BET: jax.Array, step_L: np.ndarray) -> jax.Array:
    """Whether a position holds one of these steps, (B, L)."""
    steps_BI = steps_BET.reshape(len(steps_BET), -1)
    return jnp.where(step_L[None] >= 0, steps_BI[:, step_L], False)
