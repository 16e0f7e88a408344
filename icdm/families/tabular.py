"""Problems of many sizes and kinds, for one model that is to act in all small problems."""

import dataclasses

import jax
import jax.numpy as jnp

from icdm.errors import UserError
from icdm.problems.counts import dirichlet_draw
from icdm.problems.family import register
from icdm.problems.mdp import MDP, check_horizon
from icdm.problems.spaces import Discrete

NOISES = ("none", "bernoulli", "gaussian")
LOWEST, HIGHEST = 0.02, 2.0  # concentration of transition rows, from nearly deterministic to nearly uniform
BAND = 2  # how far a banded step leads
SPARSE = 0.15  # share of states whose arrival pays, where rewards are sparse
NOISE_SCALE = 0.3  # standard deviation of Gaussian rewards


@register("tabular")
@dataclasses.dataclass(frozen=True)
class Tabular:
    """A task draws everything but the number of actions and the horizon:

    - n, the number of states, uniform from 2 (or 1, if there is no more) to `states`; the other codes never occur;
    - the concentration c of transitions, log-uniform from LOWEST to HIGHEST;
    - where an action can lead, one of three with equal chance: anywhere (rows ~ Dirichlet(c)); banded, at most BAND
      states up or down, the goal at one end and the start at the other; layered, from each layer of states to the next
      alone, the first after the last;
    - rewards, one of four: of (s, a), uniform in [0, 1]; sparse, on arrival in a share SPARSE of the states, uniform in
      [0.3, 1]; a goal that pays 1 on arrival while every step costs up to 0.05; potential-like, a rise of phi(s'), with
      phi uniform in [0, 1/2];
    - ends: in a third of the tasks the goal or a fifth of the other states end the episode;
    - the first state: uniform, or always the same;
    - the codes of states and actions, permuted at random.

    Rewards are within [-1, 1]; `noise` says how the part that depends on (s, a) is random.

    Source: in the spirit of the procedural tasks of AnyMDP (Wang et al., arXiv 2502.02869, 2025), with distributions
    of our own.
    """

    states: int = 16
    actions: int = 4
    horizon: int = 10
    discount: float = 1.0
    noise: str = "none"
    reward_range, n_tasks, hides_state, shows_reward = (-1.0, 1.0), None, False, True

    def __post_init__(self) -> None:
        check_horizon(self.horizon)
        if self.states < 1 or self.actions < 1 or not 0 < self.discount <= 1:
            raise UserError(f"{self}: sizes must be at least 1, the discount in (0, 1]")
        if self.noise not in NOISES:
            raise UserError(f"noise {self.noise!r}: give one of {', '.join(NOISES)}")

    @property
    def n_states(self) -> int:
        return self.states

    @property
    def n_actions(self) -> int:
        return self.actions

    @property
    def observation_space(self) -> Discrete:
        return Discrete(self.states)

    def words(self) -> str:
        return (
            f"There are up to {self.states} states and {self.actions} actions. Where each action leads in each state, "
            "and what it pays, is unknown. The state is observed."
        )

    def sample(self, key: jax.Array) -> MDP:
        keys = dict(zip(("n", "row", "reward", "end", "start", "state", "action"), jax.random.split(key, 7)))
        S, A = self.states, self.actions
        n = jax.random.randint(keys["n"], (), min(2, S), S + 1)
        there_S = jnp.arange(S) < n
        goal = n - 1
        transition = self._transition(keys["row"], n)
        reward_SA, arrival_S = self._rewards(keys["reward"], goal)
        terminal_S = self._ends(keys["end"], goal) & there_S & (jnp.arange(S) > 0)
        any_key = jax.random.split(keys["start"])[1]
        initial_S = jnp.where(jax.random.bernoulli(any_key), there_S & ~terminal_S, jnp.arange(S) == 0)
        initial_S = initial_S / initial_S.sum()
        state, action = jax.random.permutation(keys["state"], S), jax.random.permutation(keys["action"], A)
        return MDP(
            transition=transition[action][:, state][:, :, state],
            reward=reward_SA[state][:, action],
            arrival_reward=arrival_S[state],
            initial=initial_S[state],
            terminal=terminal_S[state],
            discount=jnp.asarray(self.discount, jnp.result_type(float)),
            horizon=self.horizon,
            reward_noise=self.noise,
            noise_scale=NOISE_SCALE,
        )

    def _transition(self, key: jax.Array, n: jax.Array) -> jax.Array:
        """(A, S, S); rows of states that do not occur lead to where the others may."""
        kind_key, c_key, layer_key, row_key = jax.random.split(key, 4)
        S = self.states
        here, there = jnp.arange(S)[:, None], jnp.arange(S)[None]
        layers = jax.random.randint(layer_key, (), 2, 5)
        anywhere = jnp.ones((S, S), bool)
        banded = jnp.abs(here - there) <= BAND
        layered = there % layers == (here + 1) % layers
        kind = jax.random.randint(kind_key, (), 0, 3)
        allowed_SS = jnp.stack([anywhere, banded, layered])[kind] & (there < n)
        allowed_SS = jnp.where(allowed_SS.any(-1, keepdims=True), allowed_SS, there < n)
        c = LOWEST * (HIGHEST / LOWEST) ** jax.random.uniform(c_key, dtype=jnp.result_type(float))
        return dirichlet_draw(row_key, jnp.broadcast_to(c * allowed_SS[None], (self.actions, S, S)))

    def _rewards(self, key: jax.Array, goal: jax.Array) -> tuple[jax.Array, jax.Array]:
        """(S, A) rewards of states and actions, (S,) of arrivals."""
        kind_key, dense_key, sparse_key, which_key = jax.random.split(key, 4)
        S, real = self.states, jnp.result_type(float)
        unit_SA = jax.random.uniform(dense_key, (S, self.actions), real)
        unit_S = jax.random.uniform(sparse_key, (S,), real)
        pays_S = jax.random.bernoulli(which_key, SPARSE, (S,)) | (jnp.arange(S) == goal)
        is_goal_S = (jnp.arange(S) == goal).astype(real)
        phi_S = unit_S / 2
        # A potential-like reward, phi(s') - phi(s), may be negative: its part of (s, a) is no probability, so that
        # under Bernoulli noise only the part of the arrival is paid.
        cost, left = (0.0, 0.0) if self.noise == "bernoulli" else (-0.05, -1.0)
        kinds = [
            (unit_SA, jnp.zeros(S, real)),
            (jnp.zeros_like(unit_SA), pays_S * (0.3 + 0.7 * unit_S)),
            (cost * unit_SA, is_goal_S),
            (left * jnp.broadcast_to(phi_S[:, None], unit_SA.shape), phi_S),
        ]
        kind = jax.random.randint(kind_key, (), 0, len(kinds))
        return jax.tree.map(lambda *each: jnp.stack(each)[kind], *kinds)

    def _ends(self, key: jax.Array, goal: jax.Array) -> jax.Array:
        """(S,) whether an episode ends in each state: in a third of the tasks the goal or some others."""
        any_key, which_key, goal_key = jax.random.split(key, 3)
        S = self.states
        pits_S = jax.random.bernoulli(which_key, 0.2, (S,)) & (jnp.arange(S) != goal)
        is_goal_S = jnp.arange(S) == goal
        ends_S = jnp.where(jax.random.bernoulli(goal_key), is_goal_S, pits_S)
        return ends_S & jax.random.bernoulli(any_key, 1 / 3)
