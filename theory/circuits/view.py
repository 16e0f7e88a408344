"""One run at some decisions of the episode that follows the context: its heads' values, logits and influences.

Axis letters: N tasks, W decisions, E episodes, T steps, A actions, X layers, H heads.
"""

import dataclasses
import functools

import jax
import numpy as np

from icdm.errors import UserError
from icdm.models.transformer import Transformer
from icdm.problems.family import HasGrid, HasPosterior
from icdm.runs.run import Run
from icdm.trajectories.prompt import encode
from icdm.trajectories.trajectory import Trajectories
from theory.circuits.beliefs import posterior
from theory.circuits.decisions import attention_at_steps, logits_at_steps, replaced
from theory.circuits.heads import spearman, values_read
from theory.circuits.influence import distances, one_step
from theory.circuits.positions import by_step, step_of_position
from theory.circuits.trained import ROWS, Rows, centred

LEAST_CHANGE = 1e-9  # of the planner's Q, which is more than rounding


@dataclasses.dataclass(frozen=True, eq=False)
class View:
    """A model that reads rows, at some decisions of their last episode.

    Attributes:
      steps: of the W decisions.
    """

    run: Run
    rows: Rows
    steps: tuple[int, ...]
    model: Transformer

    @functools.cached_property
    def scale(self) -> float:
        """What turns centred logits into values in units of reward; 1 where the labels carry no values."""
        scale = self.run.settings.value_scale
        return scale if np.isfinite(scale) else 1.0

    @property
    def planner(self) -> str:
        """The reader to which the model is compared, in words; "" where there is none."""
        if self.rows.family.hides_state:
            return "posterior over a grid of tasks" if isinstance(self.rows.family, HasGrid) else ""
        is_exact = isinstance(self.rows.family, HasPosterior)
        return "posterior-mean planner" if is_exact else "planner of the observed frequencies"

    @functools.cached_property
    def took_place_NW(self) -> np.ndarray:
        """Whether there was a decision: an episode may have ended before."""
        return np.asarray(self.rows.episodes.valid)[:, -1, list(self.steps)]

    @functools.cached_property
    def true_NWA(self) -> np.ndarray:
        """Q* of the task, at the state or at the belief of a decider who knows the task."""
        return np.stack([self.rows.true_q(step=t) for t in self.steps], 1)

    @functools.cached_property
    def planner_NWA(self) -> np.ndarray | None:
        return self.planned(self.rows.episodes)

    def planned(self, episodes: Trajectories) -> np.ndarray | None:
        """The planner's Q at the decisions, given these episodes in the place of the rows', (N, W, A)."""
        if not self.planner:
            return None
        if self.rows.family.hides_state:
            return posterior(self.rows.family, episodes, self.steps)[0]
        rows = dataclasses.replace(self.rows, episodes=episodes)
        return np.stack([rows.reader_q(step=t) for t in self.steps], 1)

    @functools.cached_property
    def logits_NWA(self) -> np.ndarray:
        """Scaled, less their mean."""
        return self.logits(self.rows.episodes)

    def logits(self, episodes: Trajectories, without: tuple[tuple[int, int], ...] = ()) -> np.ndarray:
        """The same of other episodes, or without some heads."""
        return self.scale * centred(logits_at_steps(self.run.layout, self.model, episodes, self.steps, without))

    def attention(self, episodes: Trajectories) -> np.ndarray:
        """To every position of the prompt, (N, W, X, H, L)."""
        return attention_at_steps(self.run.layout, self.model, episodes, self.steps)

    @property
    def discount(self) -> float:
        return self.rows.family.discount

    @functools.cached_property
    def signal(self) -> str:
        """What is replaced, one at a time, to see its influence: the reward; or the observation, where states are
        hidden or rewards tell the planner nothing."""
        if self.rows.family.hides_state:
            return "observation"
        rewards = self.planned(replaced(self.rows.family, self.rows.episodes, self.rows.context_steps, "reward"))
        return "reward" if np.abs(centred(rewards - self.planner_NWA)).max() > LEAST_CHANGE else "observation"

    def replaced_once(self, rng: np.random.Generator) -> dict[str, tuple[Trajectories, np.ndarray]]:
        """One random signal of each context is replaced.

        Returns:
          (episodes, in which rows there was one) by where it is, in words: at the query's own state, or one step away;
          anywhere, where states are hidden. A place that hardly any context shows is left out.
        """
        places = {"of the context": np.ones(self.rows.episodes.valid.shape, bool)}
        if not self.rows.family.hides_state:
            distance_NET = distances(self.rows)
            places = {"at the query's own state": distance_NET == 0, "one step away": distance_NET == 1}
        found = {}
        for name, there_NET in places.items():
            chosen_NET, kept_N = one_step(self.rows.context_steps & there_NET, rng)
            if kept_N.sum() > 1:
                found[name] = replaced(self.rows.family, self.rows.episodes, chosen_NET, self.signal), kept_N
        return found

    def check_is_read(self, episodes: Trajectories) -> None:
        """Raises UserError if the prompt does not show what was replaced in the rows' episodes."""
        before, after = (encode(self.run.layout, x).tokens for x in (self.rows.episodes, episodes))
        if all(np.array_equal(x, y) for x, y in zip(jax.tree.leaves(before), jax.tree.leaves(after))):
            raise UserError(
                f"{self.run.directory}: its layout has no position that shows a {self.signal}, on which Q depends; "
                "train one that shows it, such as layout transition"
            )

    @functools.cached_property
    def step_L(self) -> np.ndarray:
        """Which step each position of the prompt holds."""
        return step_of_position(self.run.layout, *self.rows.episodes.action.shape[1:])

    def attention_to_steps(self, episodes: Trajectories) -> np.ndarray:
        """(N, W, X, H, E, T)"""
        return by_step(self.attention(episodes), self.step_L, episodes.action.shape[1])

    def head_values(self, episodes: Trajectories) -> np.ndarray:
        """The value that each head gives every action, (N, W, X, H, A); the attention is not kept."""
        found = []
        for start in range(0, len(episodes.action), ROWS):
            part = jax.tree.map(lambda x, start=start: x[start : start + ROWS], episodes)
            attention = self.attention_to_steps(part)
            values = [
                values_read(np.moveaxis(attention[:, w], 1, 0), part, self.discount, step)
                for w, step in enumerate(self.steps)
            ]
            found.append(np.stack([np.moveaxis(each, 0, 1) for each in values], 1))
        return np.concatenate(found)

    @functools.cached_property
    def values_NWXHA(self) -> np.ndarray:
        return self.head_values(self.rows.episodes)

    @functools.cached_property
    def correlation_NWXH(self) -> np.ndarray:
        """Rank correlation of each head's values with Q*."""
        return spearman(self.values_NWXHA, self.true_NWA[:, :, None, None])
