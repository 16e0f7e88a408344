"""Problems of known truth that are seen through features: a state shows noisy numbers, of which some are missing.

B rows of episodes that are played side by side, F features; other letters as in docs/axes.md.
"""

import csv
import dataclasses
import pathlib
from collections.abc import Callable
from typing import NamedTuple, Protocol

import jax
import numpy as np

from icdm.oracles.backward_induction import plan, policy_value
from icdm.problems.mdp import MDP
from icdm.runs.decider import Decider


@dataclasses.dataclass(frozen=True)
class World:
    """An MDP whose states cannot be seen.

    Attributes:
      mdp: the process, of one task (N = 1), in float64.
      actions: their names.
      names: of the features.
      mean_SF, noise_F: a state shows mean + noise times a standard normal, anew in every step.
      scale: of each feature, from that number to the one that is recorded.
      missing_F: how often each is missing.
      digits: to which the numbers are rounded.
    """

    mdp: MDP
    actions: tuple[str, ...]
    names: tuple[str, ...]
    mean_SF: np.ndarray
    noise_F: np.ndarray
    scale: tuple[Callable[[np.ndarray], np.ndarray], ...]
    missing_F: np.ndarray
    digits: int = 2

    def show(self, state_B: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """The features of each row's state, (B, F)."""
        x_BF = self.mean_SF[state_B] + self.noise_F * rng.normal(size=(len(state_B), len(self.names)))
        value_BF = np.stack([scale(x) for scale, x in zip(self.scale, x_BF.T)], -1).round(self.digits)
        return np.where(rng.random(value_BF.shape) < self.missing_F, np.nan, value_BF)


class Actor(Protocol):
    """Whoever acts in B rows."""

    def begin(self, rows: int) -> None: ...

    def chances(self, state_B: np.ndarray, value_BF: np.ndarray) -> np.ndarray:
        """The probabilities of the actions in every row, (B, A)."""

    def observe(self, action_B: np.ndarray, reward_B: np.ndarray) -> None: ...


@dataclasses.dataclass
class Knowing:
    """Acts by probabilities (T or 1, S, A) of the state."""

    table_TSA: np.ndarray
    t: int = 0

    def begin(self, rows: int) -> None:
        self.t = 0

    def chances(self, state_B: np.ndarray, value_BF: np.ndarray) -> np.ndarray:
        return self.table_TSA[min(self.t, len(self.table_TSA) - 1), state_B]

    def observe(self, action_B: np.ndarray, reward_B: np.ndarray) -> None:
        self.t += 1


@dataclasses.dataclass
class Learned:
    """A trained run, which sees features alone; it takes the best action, or draws."""

    decider: Decider
    names: tuple[str, ...]
    draws: bool

    def begin(self, rows: int) -> None:
        self.decider.reset(rows=rows)

    def chances(self, state_B: np.ndarray, value_BF: np.ndarray) -> np.ndarray:
        decision = self.decider.act(dict(zip(self.names, value_BF.T)))
        return decision.probability if self.draws else np.eye(decision.probability.shape[1])[decision.action]

    def observe(self, action_B: np.ndarray, reward_B: np.ndarray) -> None:
        self.decider.observe(action_B, reward_B)


class Played(NamedTuple):
    """Episodes: value (B, T, F); action, reward, chance (of the action), valid, terminal (B, T)."""

    value: np.ndarray
    action: np.ndarray
    reward: np.ndarray
    chance: np.ndarray
    valid: np.ndarray
    terminal: np.ndarray

    @property
    def returns(self) -> np.ndarray:
        return np.where(self.valid, self.reward, 0).sum(1)


def play(world: World, actor: Actor, rows: int, seed: int) -> Played:
    """So many episodes."""
    rng, mdp = np.random.default_rng(seed), jax.tree.map(lambda x: np.asarray(x)[0], world.mdp)
    upto_ASS = np.cumsum(mdp.transition, -1)
    state = _drawn(np.cumsum(mdp.initial)[None].repeat(rows, 0), rng)
    over = mdp.terminal[state]
    actor.begin(rows)
    steps = []
    for _ in range(mdp.horizon):
        value = world.show(state, rng)
        chance_BA = actor.chances(state, value)
        action = _drawn(np.cumsum(chance_BA, -1), rng)
        after = _drawn(upto_ASS[action, state], rng)
        paid = mdp.reward[state, action]
        paid = (rng.random(rows) < paid).astype(float) if mdp.reward_noise == "bernoulli" else paid
        reward = paid + mdp.arrival_reward[after]
        chance = np.take_along_axis(chance_BA, action[:, None], 1)[:, 0]
        ends = mdp.terminal[after]
        steps.append((value, action, np.where(over, 0.0, reward), chance, ~over, ~over & ends))
        actor.observe(action.astype(np.int32), np.where(over, 0.0, reward).astype(np.float32))
        state, over = np.where(over, state, after), over | ends
    return Played(*(np.stack(x, 1) for x in zip(*steps)))


def write_log(path: pathlib.Path, world: World, played: Played, with_probabilities: bool = False) -> None:
    """The episodes as a hospital would keep them: one row per step, empty cells where nothing was measured."""
    extra = ["pscore"] if with_probabilities else []
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["stay", "block", *world.names, "treatment", "outcome", "over", *extra])
        for stay, step in zip(*np.nonzero(played.valid)):
            numbers = ["" if np.isnan(x) else f"{x:g}" for x in played.value[stay, step]]
            action, reward = world.actions[played.action[stay, step]], f"{played.reward[stay, step]:g}"
            chance = [f"{played.chance[stay, step]:.6g}"] if with_probabilities else []
            writer.writerow([stay, step, *numbers, action, reward, int(played.terminal[stay, step]), *chance])


def columns(world: World) -> list[str]:
    """The column map of such a log."""
    return [
        f"observation={','.join(world.names)}",
        *("action=treatment", "reward=outcome", "t=block", "episode_id=stay", "terminal=over"),
    ]


def optimum(world: World) -> float:
    """The value of who knows the state."""
    with jax.enable_x64(True):
        q_TSA = np.asarray(plan(world.mdp))[0]
        return value_of(world, np.eye(q_TSA.shape[-1])[q_TSA.argmax(-1)])


def value_of(world: World, table_TSA: np.ndarray) -> float:
    """The value of action probabilities (T or 1, S, A) in the states."""
    with jax.enable_x64(True):
        return float(policy_value(world.mdp, table_TSA[None])[0])


def _drawn(upto_BA: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """An index of each row of cumulative probabilities."""
    return (rng.random((len(upto_BA), 1)) * upto_BA[:, -1:] > upto_BA).sum(1)
