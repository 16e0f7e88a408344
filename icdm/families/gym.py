"""Tabular environments of Gymnasium, read from their own tables."""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from icdm.errors import UserError
from icdm.problems.family import register
from icdm.problems.mdp import MDP, check_horizon, make_mdp
from icdm.problems.spaces import Discrete

CLOSE = 1e-9  # to which rewards must be a sum of one term for (s, a) and one for s'


class Table(NamedTuple):
    """P(s', r, end | s, a) of an environment, states that cannot be reached left out.

    transition: (A, S, S); reward: (S, A); arrival_reward: (S,); initial: (S,); terminal: (S,) bool.
    """

    transition: np.ndarray
    reward: np.ndarray
    arrival_reward: np.ndarray
    initial: np.ndarray
    terminal: np.ndarray


@register("gym")
@dataclasses.dataclass(frozen=True)
class Gym:
    """One task: an environment of Gymnasium that holds its table, such as FrozenLake-v1, CliffWalking-v1 or Taxi-v3.

    States that cannot be reached from the start are left out, the others keep their order. Where a reward depends on
    the state that is reached, it is paid on arrival.

    Source: Towers et al., "Gymnasium: A Standard Interface for Reinforcement Learning Environments" (2024); the table
    is `env.unwrapped.P`, the start `env.unwrapped.initial_state_distrib`.
    """

    env: str = "FrozenLake-v1"
    horizon: int = 20
    discount: float = 1.0
    n_tasks, hides_state, shows_reward = 1, False, True

    def __post_init__(self) -> None:
        check_horizon(self.horizon)
        if not 0 < self.discount <= 1:
            raise UserError(f"discount {self.discount}: give a number in (0, 1]")
        _ = self._problem  # reads the table

    @property
    def n_states(self) -> int:
        return self._problem.n_states

    @property
    def n_actions(self) -> int:
        return self._problem.n_actions

    @property
    def observation_space(self) -> Discrete:
        return Discrete(self.n_states)

    @property
    def reward_range(self) -> tuple[float, float]:
        paid_ASS = self._problem.reward.T[:, :, None] + self._problem.arrival_reward
        possible = paid_ASS[self._problem.transition > 0]
        low, high = float(possible.min()), float(possible.max())
        return (low, high) if high > low else (min(low, 0.0), max(high, 1.0))

    def sample(self, key: jax.Array) -> MDP:
        del key
        return jax.tree.map(jnp.asarray, self._problem)

    @functools.cached_property
    def _problem(self) -> MDP:
        return make_mdp(**table_of(self.env)._asdict(), discount=self.discount, horizon=self.horizon)


@functools.cache
def table_of(env: str) -> Table:
    """The table of an environment.

    Raises:
      UserError: Gymnasium is not installed or does not know the environment, it holds no table, or a reward depends on
        state, action and next state otherwise than as a sum.
    """
    try:
        import gymnasium
    except ImportError:
        raise UserError("family gym needs Gymnasium: pip install 'icdm[gym]'") from None
    try:
        unwrapped = gymnasium.make(env).unwrapped
    except Exception as error:  # of its own kinds, and whatever a constructor raises
        raise UserError(f"Gymnasium cannot make {env!r}: {str(error).splitlines()[0]}") from None
    if not hasattr(unwrapped, "P") or not hasattr(unwrapped, "initial_state_distrib"):
        raise UserError(f"{env} holds no table of transitions: give an environment that does, such as FrozenLake-v1")
    return _read(env, unwrapped.P, np.asarray(unwrapped.initial_state_distrib, np.float64))


def _read(env: str, outcomes: dict[int, dict[int, list[tuple]]], initial_S: np.ndarray) -> Table:
    """The table of P[s][a] = [(probability, next state, reward, whether the episode ends), ...]."""
    S, A = len(outcomes), len(outcomes[0])
    transition, paid_ASS, terminal = np.zeros((A, S, S)), np.full((A, S, S), np.nan), np.zeros(S, bool)
    steps = [(s, a, *step) for s in range(S) for a in range(A) for step in outcomes[s][a] if step[0] > 0]
    for s, a, probability, arrival, reward, ends in steps:
        transition[a, s, arrival] += probability
        if not np.isnan(paid_ASS[a, s, arrival]) and paid_ASS[a, s, arrival] != reward:
            raise UserError(f"{env}: state {s}, action {a} and next state {arrival} pay more than one reward")
        paid_ASS[a, s, arrival] = reward
        terminal[arrival] |= bool(ends)
    reached = _reached(transition, initial_S, terminal)
    for s, _, _, arrival, _, ends in steps:
        if reached[s] and not terminal[s] and terminal[arrival] and not ends:
            raise UserError(f"{env}: the episode ends in state {arrival} after some steps and goes on after others")
    kept = np.flatnonzero(reached)
    square = np.ix_(range(A), kept, kept)
    reward, arrival = _separated(env, np.where(terminal[kept][:, None], np.nan, paid_ASS[square]))
    return Table(transition[square], reward, arrival, initial_S[kept], terminal[kept])


def _reached(transition_ASS: np.ndarray, initial_S: np.ndarray, terminal_S: np.ndarray) -> np.ndarray:
    """Which states an episode can be in, (S,) bool."""
    follows_SS = (transition_ASS > 0).any(0) & ~terminal_S[:, None]
    reached = initial_S > 0
    while (more := reached | follows_SS[reached].any(0)).sum() > reached.sum():
        reached = more
    return reached


def _separated(env: str, paid_ASS: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(reward (S, A), arrival reward (S,)) whose sum is what a step pays; nan stands for steps that there are not.

    One of the two is 0 where the other is enough.
    """
    paid_SAS = paid_ASS.swapaxes(0, 1)
    there = ~np.isnan(paid_SAS)
    S, A = paid_SAS.shape[:2]
    for axes in ((2,), (0, 1)):
        lowest, highest = np.where(there, paid_SAS, np.inf).min(axes), np.where(there, paid_SAS, -np.inf).max(axes)
        same = np.where(there.any(axes), lowest, 0.0)
        if (highest - lowest <= CLOSE).all():  # - inf where there is no step
            return (same, np.zeros(S)) if axes == (2,) else (np.zeros((S, A)), same)
    state, action, arrival = np.nonzero(there)
    design = np.zeros((len(state), S * A + S))
    design[np.arange(len(state)), state * A + action] = 1
    design[np.arange(len(state)), S * A + arrival] = 1
    paid_I = paid_SAS[there]
    terms, *_ = np.linalg.lstsq(design, paid_I, rcond=None)
    if np.abs(design @ terms - paid_I).max() > CLOSE:
        raise UserError(f"{env}: a reward is no sum of one term for state and action and one for the next state")
    return terms[: S * A].reshape(S, A), terms[S * A :]
