"""Problems without a simulator, which are known only from recorded trajectories."""

import dataclasses

from icdm.errors import UserError
from icdm.problems.family import register
from icdm.problems.mdp import check_horizon
from icdm.problems.spaces import Discrete, Encoded


@register("recorded")
@dataclasses.dataclass(frozen=True)
class Recorded:
    """The sizes of a log; it has no simulator. `icdm describe` prints the sizes of a file.

    Where observations have several features, `states` counts the states that are made of them, and `widths` says how
    many numbers a model reads of each; () if it reads the states.
    """

    states: int = 1
    actions: int = 2
    horizon: int = 1
    reward_low: float = 0.0
    reward_high: float = 1.0
    widths: tuple[int, ...] = ()
    n_tasks, discount, hides_state, shows_reward = None, 1.0, False, True

    def __post_init__(self) -> None:
        check_horizon(self.horizon)
        object.__setattr__(self, "widths", tuple(self.widths))  # a list in a config
        sizes = (self.states, self.actions, *self.widths)
        if min(sizes) < 1 or not self.reward_low < self.reward_high:
            raise UserError(f"{self}: sizes must be at least 1, and reward_low below reward_high")

    @property
    def n_states(self) -> int:
        return self.states

    @property
    def n_actions(self) -> int:
        return self.actions

    @property
    def observation_space(self) -> Discrete | Encoded:
        return Encoded(self.widths) if self.widths else Discrete(self.states)

    @property
    def reward_range(self) -> tuple[float, float]:
        return self.reward_low, self.reward_high
