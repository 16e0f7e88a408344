"""Partially observed problems with sparse tables, for problems whose dense tables would not fit the memory."""

import dataclasses

import numpy as np
from scipy import sparse

from icdm.errors import TooLarge
from icdm.problems.mdp import MDP
from icdm.problems.pomdp import POMDP, silent_start

LARGEST = 2**25  # most entries of a dense table


@dataclasses.dataclass(frozen=True)
class SparsePOMDP:
    """A POMDP without a horizon, or an MDP if the decider observes the state, before the first action too.

    Attributes:
      transition: A arrays (S, S) in CSR form, P(s' | s, a).
      emission: A arrays (S, O) in CSR form, P(o | a, s').
      reward: (S, A) mean rewards.
      initial: (S,) distribution of the first state.
      discount: in (0, 1].
      observes_state: whether every observation, and one before the first action, is the state.
    """

    transition: tuple[sparse.csr_array, ...]
    emission: tuple[sparse.csr_array, ...]
    reward: np.ndarray
    initial: np.ndarray
    discount: float
    observes_state: bool = False

    @property
    def n_states(self) -> int:
        return self.reward.shape[0]

    @property
    def n_actions(self) -> int:
        return self.reward.shape[1]

    @property
    def n_observations(self) -> int:
        return self.emission[0].shape[1]

    def dense(self, horizon: int) -> POMDP:
        """The problem with dense tables.

        Raises:
          TooLarge: a table has more than `LARGEST` entries.
        """
        size = self.n_actions * self.n_states * max(self.n_states, self.n_observations)
        if size > LARGEST:
            raise TooLarge(size, LARGEST, "entries of a dense table")
        mdp = MDP(
            transition=np.stack([table.toarray() for table in self.transition]),
            reward=self.reward,
            arrival_reward=np.zeros(self.n_states),
            initial=self.initial,
            terminal=np.zeros(self.n_states, bool),
            discount=np.float64(self.discount),
            horizon=horizon,
        )
        emission = np.stack([table.toarray() for table in self.emission])
        first = emission[0] if self.observes_state else silent_start(self.n_states, self.n_observations)
        return POMDP(mdp, emission, first, observes_first=self.observes_state)
