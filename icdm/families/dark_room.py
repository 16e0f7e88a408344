"""Dark Room: a square grid with an unobserved goal, which is the task.

Axis letters as in docs/axes.md: S cells, G goals.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from icdm.errors import UserError
from icdm.problems.counts import Counts
from icdm.problems.family import register
from icdm.problems.mdp import MDP, check_horizon
from icdm.problems.spaces import Grid

MOVES = ((1, 0), (-1, 0), (0, 1), (0, -1), (0, 0))


@register("dark_room")
@dataclasses.dataclass(frozen=True)
class DarkRoom:
    """A size x size grid with states x * size + y; every step that arrives at the goal pays 1.

    Actions: x + 1, x - 1, y + 1, y - 1, stay; a move into a wall has no effect. Episodes start in the corner (0, 0).
    The goal is uniform over the cells.

    Source: Lee et al. (NeurIPS 2023), after Zintgraf et al., "VariBAD" (ICLR 2020).
    """

    size: int = 5
    horizon: int = 25
    n_actions, reward_range, n_tasks, discount = len(MOVES), (0.0, 1.0), None, 1.0
    hides_state, shows_reward = False, True

    def __post_init__(self) -> None:
        check_horizon(self.horizon)
        if self.size < 2:
            raise UserError(f"size {self.size}: give at least 2")

    @property
    def n_states(self) -> int:
        return self.size**2

    @property
    def observation_space(self) -> Grid:
        return Grid((self.size, self.size))

    @property
    def next_state(self) -> np.ndarray:
        """(S, A) next state of each action."""
        x, y = np.divmod(np.arange(self.n_states), self.size)
        return np.stack([self.size * self._inside(x + dx) + self._inside(y + dy) for dx, dy in MOVES], -1)

    def _inside(self, x: np.ndarray) -> np.ndarray:
        return x.clip(0, self.size - 1)

    def sample(self, key: jax.Array) -> MDP:
        return self.problem(jax.nn.one_hot(jax.random.randint(key, (), 0, self.n_states), self.n_states))

    def problem(self, goal_S: jax.Array) -> MDP:
        """The task of a one-hot goal, or the mean of the tasks under a distribution over goals."""
        dtype = jnp.result_type(float)
        return MDP(
            transition=jax.nn.one_hot(self.next_state.T, self.n_states, dtype=dtype),
            reward=jnp.zeros((self.n_states, self.n_actions)),
            arrival_reward=goal_S.astype(dtype),
            initial=jax.nn.one_hot(0, self.n_states, dtype=dtype),
            terminal=jnp.zeros(self.n_states, bool),
            discount=jnp.asarray(self.discount, dtype),
            horizon=self.horizon,
        )

    def posterior(self, counts: Counts) -> jax.Array:
        """P(goal = s | context), (S,): uniform over the cells that the recorded rewards do not exclude."""
        arrived_S = jnp.zeros(self.n_states).at[self.next_state].add(counts.visits)
        paid_S = jnp.zeros(self.n_states).at[self.next_state].add(counts.reward_sum)
        possible_S = jnp.where(paid_S.sum() > 0, paid_S > 0, arrived_S == 0)
        return possible_S / possible_S.sum()

    def posterior_mean(self, counts: Counts) -> MDP:
        return self.problem(self.posterior(counts))

    def posterior_sample(self, key: jax.Array, counts: Counts) -> MDP:
        goal = jax.random.choice(key, self.n_states, p=self.posterior(counts))
        return self.problem(jax.nn.one_hot(goal, self.n_states))

    def symmetry(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """A random reflection of x, of y, of both or of none, as a relabelling of states and actions.

        The exchange of x and y is no symmetry: it changes which of two best actions the oracle names first.
        """
        x, y = np.divmod(np.arange(self.n_states), self.size)
        action = np.arange(self.n_actions)
        if rng.integers(2):
            x, action = self.size - 1 - x, np.array([1, 0, 2, 3, 4])[action]
        if rng.integers(2):
            y, action = self.size - 1 - y, np.array([0, 1, 3, 2, 4])[action]
        return x * self.size + y, action

    def first_best_action(self) -> np.ndarray:
        """(G, S) the action of DPT's oracle (Lee et al., 2023), which moves along x first, then along y, then stays."""
        x, y = np.divmod(np.arange(self.n_states), self.size)
        dx, dy = np.sign(x[:, None] - x[None]), np.sign(y[:, None] - y[None])
        return np.select([dx > 0, dx < 0, dy > 0, dy < 0], [0, 1, 2, 3], 4)

    def best_action_probabilities(self, trajectories: Any) -> np.ndarray:
        """P(a is `first_best_action` at each observation | the steps before it), (B, U, A).

        The posterior over goals is uniform over the cells that the steps do not exclude.
        """
        query_BU = np.asarray(trajectories.observation)[:, 0]
        arrival_BT, reward_BT = (np.asarray(x)[:, 0] for x in (trajectories.steps.arrival, trajectories.reward))
        cells = np.arange(self.n_states)
        possible_BG = np.ones((len(query_BU), self.n_states), bool)
        count_BUA = np.zeros((*query_BU.shape, self.n_actions))
        for t in range(query_BU.shape[1]):
            if t:
                here_BG = cells[None] == arrival_BT[:, t - 1, None]
                possible_BG &= np.where(reward_BT[:, t - 1, None] > 0, here_BG, ~here_BG)
            action_BG = self.first_best_action()[:, query_BU[:, t]].T
            for a in range(self.n_actions):
                count_BUA[:, t, a] = (possible_BG & (action_BG == a)).sum(-1)
        return count_BUA / count_BUA.sum(-1, keepdims=True)
