"""Finite-horizon Markov decision processes as immutable pytrees of arrays.

A batch of N problems is the same dataclass with a leading axis N on every array, and functions of one problem
extend to a batch by `jax.vmap`. Axis letters as in docs/axes.md.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from icdm.errors import UserError

TOLERANCE = 1e-6  # largest accepted difference between the sum of a row of probabilities and 1


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["transition", "reward", "arrival_reward", "initial", "terminal", "discount"],
    meta_fields=["horizon", "reward_noise", "noise_scale"],
)
@dataclasses.dataclass(frozen=True)
class MDP:
    """A Markov decision process, or N of them along a leading axis of every array.

    A step from state s under action a draws s' from `transition[a, s]` and pays
    `reward[s, a] + arrival_reward[s']`. The first term is the mean of a Bernoulli variable if `reward_noise` is
    "bernoulli", and of a normal variable if it is "gaussian". The episode ends in a `terminal` state, which pays
    nothing.

    Attributes:
      transition: (A, S, S) probabilities P(s' | s, a).
      reward: (S, A) mean reward of taking a in s.
      arrival_reward: (S,) reward of arriving in a state.
      initial: (S,) distribution of the first state.
      terminal: (S,) bool, whether the episode ends in the state.
      discount: () per step, in (0, 1].
      horizon: number of decisions in an episode.
      reward_noise: "none", "bernoulli" or "gaussian".
      noise_scale: standard deviation of Gaussian rewards.
    """

    transition: jax.Array
    reward: jax.Array
    arrival_reward: jax.Array
    initial: jax.Array
    terminal: jax.Array
    discount: jax.Array
    horizon: int
    reward_noise: str = "none"
    noise_scale: float = 0.0
    hides_state, shows_reward, is_ambiguous = False, True, False  # the decider observes states and rewards
    others = ()  # models of an ambiguity set that do not generate the episodes

    @property
    def mdp(self) -> "MDP":
        """The fully observed problem: itself."""
        return self

    @property
    def nominal(self) -> "MDP":
        """The model that generates the episodes: itself."""
        return self

    @property
    def n_actions(self) -> int:
        return self.transition.shape[-3]

    @property
    def n_states(self) -> int:
        return self.transition.shape[-1]

    @property
    def n_observations(self) -> int:
        return self.n_states

    def reset(self, task_B: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        """First states of B episodes, row i in problem `task_B[i]`; returns (state_B, observation_B)."""
        state_B = draw(self.initial[task_B], _uniform(key, task_B.shape))
        return state_B, state_B

    def step(
        self, task_B: jax.Array, state_B: jax.Array, action_B: jax.Array, key: jax.Array
    ) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
        """One step of B episodes; returns (state_B, reward_B, observation_B, done_B)."""
        transition_key, reward_key = jax.random.split(key)
        row_BS = self.transition[task_B, action_B, state_B]
        next_B = draw(row_BS, _uniform(transition_key, task_B.shape))
        reward_B = self.reward[task_B, state_B, action_B]
        if self.reward_noise == "bernoulli":
            reward_B = (_uniform(reward_key, task_B.shape) < reward_B).astype(reward_B.dtype)
        elif self.reward_noise == "gaussian":
            reward_B = reward_B + self.noise_scale * jax.random.normal(reward_key, task_B.shape, reward_B.dtype)
        reward_B = reward_B + self.arrival_reward[task_B, next_B]
        return next_B, reward_B, next_B, self.terminal[task_B, next_B]


def make_mdp(
    transition: ArrayLike,
    reward: ArrayLike,
    initial: ArrayLike,
    *,
    discount: float,
    horizon: int,
    arrival_reward: ArrayLike | None = None,
    terminal: ArrayLike | None = None,
    reward_noise: str = "none",
) -> MDP:
    """One validated float64 MDP from arrays with the shapes of `MDP`.

    Rows of probabilities are renormalised if they sum to 1 within 1e-6.

    Raises:
      UserError: an array has a wrong shape or holds a value that is not finite, a probability is negative, a row
        does not sum to 1 (the message names action, state and sum), the discount is outside (0, 1], or the
        horizon is below 1.
    """
    transition = _finite("transition", transition)
    if transition.ndim != 3 or transition.shape[1] != transition.shape[2]:
        raise UserError(f"transition has shape {transition.shape}: give (actions, states, states)")
    n_actions, n_states, _ = transition.shape
    reward = _shaped("reward", reward, (n_states, n_actions))
    initial = _shaped("initial", initial, (n_states,))
    arrival = _shaped("arrival_reward", np.zeros(n_states) if arrival_reward is None else arrival_reward, (n_states,))
    terminal = np.zeros(n_states, bool) if terminal is None else np.asarray(terminal, bool)
    if terminal.shape != (n_states,):
        raise UserError(f"terminal has shape {terminal.shape}: give {(n_states,)}")
    if reward_noise not in ("none", "bernoulli"):
        raise UserError(f"reward_noise {reward_noise!r}: give 'none' or 'bernoulli'")
    if reward_noise == "bernoulli" and (reward.min() < 0 or reward.max() > 1):
        raise UserError("Bernoulli rewards need means in [0, 1]; give reward_noise='none' or rescale them")
    check_horizon(horizon)
    if not 0 < float(discount) <= 1:
        raise UserError(f"discount {discount}: give a number in (0, 1]")
    return MDP(
        transition=normalised_rows(transition, "transition", ("action", "state")),
        reward=reward,
        arrival_reward=arrival,
        initial=normalised_rows(initial, "initial", ()),
        terminal=terminal,
        discount=np.float64(discount),
        horizon=int(horizon),
        reward_noise=reward_noise,
    )


def expected_reward(mdp: MDP) -> jax.Array:
    """Mean reward, r(s, a) = reward[s, a] + sum_s' P(s'|s,a) arrival_reward[s'], (..., S, A)."""
    arrival = jnp.einsum("...axy,...y->...xa", mdp.transition, mdp.arrival_reward)
    return jnp.where(mdp.terminal[..., None], 0.0, mdp.reward + arrival)


def draw(probability_BS: jax.Array, uniform_B: jax.Array) -> jax.Array:
    """Inverse-CDF draws, (B,) int32, so that policies with the same uniform numbers are compared on common randomness.

    Args:
      probability_BS: unnormalised probabilities of the outcomes 0, 1, ... .
      uniform_B: uniform numbers in [0, 1).
    """
    cumulative_BS = jnp.cumsum(probability_BS, axis=-1)
    threshold_B = uniform_B.astype(cumulative_BS.dtype) * cumulative_BS[..., -1]
    return jnp.sum(cumulative_BS <= threshold_B[..., None], axis=-1).astype(jnp.int32)


def tasks_at_once(n: int, n_actions: int, n_states: int) -> int:
    """Number of the n tasks that are processed in parallel, such that their transitions fill at most 2**24 entries."""
    return max(1, min(n, 2**24 // (n_actions * n_states**2)))


def check_horizon(horizon: int) -> None:
    """Raises UserError if the horizon is below 1."""
    if int(horizon) < 1:
        raise UserError(f"horizon {horizon}: an episode needs at least 1 decision")


def normalised_rows(array: np.ndarray, name: str, axes: tuple[str, ...]) -> np.ndarray:
    """Rows of probabilities divided by their sums.

    Args:
      name: name of the array in messages.
      axes: names of the leading axes in messages.

    Raises:
      UserError: a row holds a negative number or misses 1 by more than 1e-6.
    """
    total = array.sum(-1)
    bad = (array < 0).any(-1) | (np.abs(total - 1) > TOLERANCE)
    if bad.any():
        index = np.argwhere(bad)[0] if axes else ()
        where = ", ".join(f"{axis} {i}" for axis, i in zip(axes, index))
        row = array[tuple(index)]
        fault = f"holds a negative probability {row.min():g}" if (row < 0).any() else f"sums to {row.sum():.9g}, not 1"
        raise UserError(f"{name}{' at ' + where if where else ''} {fault}")
    return array / total[..., None]


def _uniform(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    return jax.random.uniform(key, shape, jnp.float32)


def _finite(name: str, array: ArrayLike) -> np.ndarray:
    array = np.asarray(array, np.float64)
    if not np.isfinite(array).all():
        raise UserError(f"{name} holds a value that is not finite at {tuple(np.argwhere(~np.isfinite(array))[0])}")
    return array


def _shaped(name: str, array: ArrayLike, shape: tuple[int, ...]) -> np.ndarray:
    array = _finite(name, array)
    if array.shape != shape:
        raise UserError(f"{name} has shape {array.shape}: give {shape}")
    return array
