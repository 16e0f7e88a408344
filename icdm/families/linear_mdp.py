"""Linear MDPs: transitions, rewards and therefore all Q-functions are linear in known features.

    P_h(s' | s, a) = <phi(s, a), mu_h(s')>,    r_h(s, a) = <phi(s, a), theta_h>
    Q*_h(s, a) = <phi(s, a), w*_h>,    w*_h = theta_h + sum_s' mu_h(s') V*_{h+1}(s')

Features on the simplex and measures mu_h whose d coordinates are distributions over states make every
P_h(. | s, a) a distribution. Source: Jin, Yang, Wang, Jordan, "Provably Efficient Reinforcement Learning
with Linear Function Approximation", COLT 2020, Assumption A and Proposition 2.3. Axis letters as
in docs/axes.md.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp

from icdm.errors import UserError
from icdm.problems.family import register
from icdm.problems.mdp import MDP, check_horizon
from icdm.problems.spaces import Discrete


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["features", "measures", "weights", "initial"],
    meta_fields=[],
)
@dataclasses.dataclass(frozen=True)
class LinearMDP:
    """A linear MDP of T steps, undiscounted.

    Attributes:
      features: (S, A, F) phi(s, a), each on the simplex.
      measures: (T, F, S) mu_h, each row a distribution over next states.
      weights: (T, F) theta_h.
      initial: (S,) distribution of the first state.
    """

    features: jax.Array
    measures: jax.Array
    weights: jax.Array
    initial: jax.Array

    def transition(self) -> jax.Array:
        """P_h(s' | s, a), (T, S, A, S)."""
        return jnp.einsum("saf,tfy->tsay", self.features, self.measures)

    def reward(self) -> jax.Array:
        """r_h(s, a), (T, S, A)."""
        return _linear(self.features, self.weights)


def simplex_features(key: jax.Array, states: int, actions: int, dimension: int) -> jax.Array:
    """phi(s, a) ~ Dirichlet(1, ..., 1), independent over (s, a), (S, A, F)."""
    return jax.random.dirichlet(key, jnp.ones(dimension), (states, actions))


def sample_linear_mdp(key: jax.Array, features: jax.Array, horizon: int, concentration: float = 0.3) -> LinearMDP:
    """mu_h coordinates ~ Dirichlet(concentration) over states, theta_h ~ Uniform[0, 1]^F, uniform start."""
    states, _, dimension = features.shape
    measure_key, weight_key = jax.random.split(key)
    measures = jax.random.dirichlet(measure_key, jnp.full(states, concentration), (horizon, dimension))
    weights = jax.random.uniform(weight_key, (horizon, dimension), dtype=float)
    return LinearMDP(features, measures, weights, jnp.full(states, 1 / states))


def optimal_weights(problem: LinearMDP) -> jax.Array:
    """w*_h = theta_h + sum_s' mu_h(s') max_a <phi(s', a), w*_{h+1}>, by backward recursion; (T, F)."""

    def back(value_S: jax.Array, step: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        measure_FS, theta_F = step
        weight_F = theta_F + measure_FS @ value_S
        return jnp.max(problem.features @ weight_F, axis=-1), weight_F

    last_S = jnp.zeros(problem.features.shape[0], problem.features.dtype)
    return jax.lax.scan(back, last_S, (problem.measures, problem.weights), reverse=True)[1]


def with_optimal_weights(problem: LinearMDP, weights_TF: jax.Array) -> LinearMDP:
    """The linear MDP with the same dynamics and the optimal weights `weights_TF`.

    theta_h = w_h - sum_s' mu_h(s') max_a <phi(s', a), w_{h+1}>.
    """
    value_TS = jnp.max(_linear(problem.features, weights_TF), axis=-1)
    next_TS = jnp.concatenate([value_TS[1:], jnp.zeros_like(value_TS[:1])])
    theta_TF = weights_TF - jnp.einsum("tfs,ts->tf", problem.measures, next_TS)
    return dataclasses.replace(problem, weights=theta_TF)


def time_augmented(problem: LinearMDP) -> MDP:
    """The same problem as a stationary MDP over pairs (step, state), numbered step * S + state.

    Its observation contains the step, which determines P_h and r_h.
    """
    horizon, states, actions, _ = problem.transition().shape
    next_step = jnp.eye(horizon, k=1).at[-1, -1].set(1.0)
    transition = jnp.einsum("tu,tsay->atsuy", next_step, problem.transition())
    size = horizon * states
    return MDP(
        transition=transition.reshape(actions, size, size),
        reward=problem.reward().reshape(size, actions),
        arrival_reward=jnp.zeros(size),
        initial=jnp.zeros(size).at[:states].set(problem.initial),
        terminal=jnp.zeros(size, bool),
        discount=jnp.ones(()),
        horizon=horizon,
    )


@register("linear_mdp")
@dataclasses.dataclass(frozen=True)
class LinearMDPFamily:
    """Linear MDPs with common features; mu_h and theta_h are the task.

    Observations are pairs (step, state), so the tabular problem has horizon * states states.

    Source: see the file's docstring; Dirichlet measures and uniform theta_h are this project's choice.
    """

    states: int = 8
    actions: int = 3
    dimension: int = 4
    horizon: int = 5
    feature_seed: int = 0
    reward_range, n_tasks, discount, hides_state, shows_reward = (0.0, 1.0), None, 1.0, False, True

    def __post_init__(self) -> None:
        check_horizon(self.horizon)
        if min(self.states, self.actions, self.dimension) < 1:
            raise UserError(f"{self}: states, actions and dimension must be at least 1")

    @property
    def n_states(self) -> int:
        return self.horizon * self.states

    @property
    def n_actions(self) -> int:
        return self.actions

    @property
    def observation_space(self) -> Discrete:
        return Discrete(self.n_states)

    def sample(self, key: jax.Array) -> MDP:
        features = simplex_features(jax.random.key(self.feature_seed), self.states, self.actions, self.dimension)
        return time_augmented(sample_linear_mdp(key, features, self.horizon))


def _linear(features_SAF: jax.Array, weights_TF: jax.Array) -> jax.Array:
    return jnp.einsum("saf,tf->tsa", features_SAF, weights_TF)
