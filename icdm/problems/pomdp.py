"""Partially observed Markov decision processes: an MDP whose states are observed through emissions.

An MDP is the special case whose emission is the identity. `icdm.problems.ambiguous` defines ambiguity sets of
several such models. Axis letters as in docs/axes.md.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from icdm.errors import UserError
from icdm.problems.mdp import MDP, draw, make_mdp, normalised_rows


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["mdp", "emission", "first_emission"],
    meta_fields=["observes_first", "shows_reward"],
)
@dataclasses.dataclass(frozen=True)
class POMDP:
    """A partially observed MDP, or N of them along a leading axis of every array.

    A step from s under a draws s' as the MDP does and then an observation from `emission[a, s']`. Deciders and
    oracles observe the observations, and the rewards if `shows_reward`. The first observation is 0 in every state
    if there is none before the first action.

    Attributes:
      mdp: dynamics, rewards, discount and horizon.
      emission: (A, S, O) probabilities P(o | a, s').
      first_emission: (S, O) probabilities of the observation before the first action.
      observes_first: whether there is an observation before the first action.
      shows_reward: whether the decider observes the rewards.
    """

    mdp: MDP
    emission: jax.Array
    first_emission: jax.Array
    observes_first: bool = False
    shows_reward: bool = False
    hides_state, is_ambiguous, others = True, False, ()

    @property
    def nominal(self) -> "POMDP":
        """The model that generates the episodes: itself."""
        return self

    @property
    def n_states(self) -> int:
        return self.mdp.n_states

    @property
    def n_actions(self) -> int:
        return self.mdp.n_actions

    @property
    def n_observations(self) -> int:
        return self.emission.shape[-1]

    @property
    def horizon(self) -> int:
        return self.mdp.horizon

    @property
    def discount(self) -> jax.Array:
        return self.mdp.discount

    def reset(self, task_B: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        """First states of B episodes, row i in problem `task_B[i]`; returns (state_B, observation_B)."""
        state_key, emission_key = jax.random.split(key)
        state_B, _ = self.mdp.reset(task_B, state_key)
        uniform_B = jax.random.uniform(emission_key, task_B.shape, jnp.float32)
        return state_B, draw(self.first_emission[task_B, state_B], uniform_B)

    def step(
        self, task_B: jax.Array, state_B: jax.Array, action_B: jax.Array, key: jax.Array
    ) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
        """One step of B episodes; returns (state_B, reward_B, observation_B, done_B)."""
        mdp_key, emission_key = jax.random.split(key)
        next_B, reward_B, _, done_B = self.mdp.step(task_B, state_B, action_B, mdp_key)
        uniform_B = jax.random.uniform(emission_key, task_B.shape, jnp.float32)
        return next_B, reward_B, draw(self.emission[task_B, action_B, next_B], uniform_B), done_B


def make_pomdp(
    transition: ArrayLike,
    reward: ArrayLike,
    initial: ArrayLike,
    emission: ArrayLike,
    *,
    discount: float,
    horizon: int,
    first_emission: ArrayLike | None = None,
    shows_reward: bool = False,
    **mdp_fields: Any,
) -> POMDP:
    """One validated float64 POMDP from arrays with the shapes of `POMDP`.

    Args:
      first_emission: None if there is no observation before the first action.
      mdp_fields: the further arguments of `make_mdp`.

    Raises:
      UserError: `make_mdp` refuses an argument, an emission has a wrong shape, or a row of an emission is not a
        distribution.
    """
    mdp = make_mdp(transition, reward, initial, discount=discount, horizon=horizon, **mdp_fields)
    emission = _rows("emission", emission, (mdp.n_actions, mdp.n_states), ("action", "state"))
    shape = (mdp.n_states, emission.shape[-1])
    observes_first = first_emission is not None
    first = _rows("first_emission", first_emission, shape[:1], ("state",)) if observes_first else silent_start(*shape)
    if first.shape != shape:
        raise UserError(f"first_emission has shape {first.shape}: give {shape}")
    return POMDP(mdp, emission, first, observes_first=observes_first, shows_reward=bool(shows_reward))


def silent_start(n_states: int, n_observations: int) -> np.ndarray:
    """The first emission of a problem without a first observation: 0 in every state, (S, O)."""
    first = np.zeros((n_states, n_observations))
    first[:, 0] = 1
    return first


def as_pomdp(problem: "MDP | POMDP") -> POMDP:
    """The problem (or batch) as a POMDP; an MDP becomes a POMDP whose observations are the states."""
    return problem if problem.hides_state else shown(problem)


def shown(mdp: MDP) -> POMDP:
    """The MDP (or batch) as a POMDP whose observations are the states."""
    identity = jnp.eye(mdp.n_states)
    return POMDP(
        mdp,
        jnp.broadcast_to(identity, mdp.transition.shape),
        jnp.broadcast_to(identity, mdp.initial.shape[:-1] + identity.shape),
        observes_first=True,
    )


def _rows(name: str, array: ArrayLike, leading: tuple[int, ...], axes: tuple[str, ...]) -> np.ndarray:
    array = np.asarray(array, np.float64)
    if array.ndim != len(leading) + 1 or array.shape[:-1] != leading or array.shape[-1] < 1:
        raise UserError(f"{name} has shape {array.shape}: give ({', '.join(map(str, leading))}, observations)")
    if not np.isfinite(array).all():
        raise UserError(f"{name} holds a value that is not finite")
    return normalised_rows(array, name, axes)
