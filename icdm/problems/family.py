"""Families: distributions over decision problems, what they can do beyond that, and their registry.

A family is a frozen dataclass whose fields are its parameters. To add one, put a file into icdm/families:

    @register("coin")
    @dataclasses.dataclass(frozen=True)
    class Coin:
        '''Guess a biased coin; the bias is the task.'''
        horizon: int = 5
        discount, n_states, n_actions, reward_range, n_tasks = 1.0, 1, 2, (0.0, 1.0), None
        observation_space, hides_state, shows_reward = Discrete(1), False, True

        def sample(self, key):
            bias = jax.random.uniform(key, dtype=float)
            return MDP(transition=jnp.ones((2, 1, 1)), reward=jnp.stack([1 - bias, bias])[None], ...)
"""

import dataclasses
import importlib
import json
import pkgutil
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np

from icdm.errors import UserError, unknown
from icdm.problems.ambiguous import AmbiguousPOMDP
from icdm.problems.counts import Counts
from icdm.problems.mdp import MDP, tasks_at_once
from icdm.problems.policy import Policy
from icdm.problems.pomdp import POMDP
from icdm.problems.spaces import Space


class Family(Protocol):
    """What every family offers.

    Attributes:
      horizon: decisions in an episode.
      discount: of one step, in (0, 1].
      n_states, n_actions: sizes S and A.
      observation_space: what a decider observes.
      hides_state: whether an observation is anything but the state.
      shows_reward: whether a decider sees the rewards.
      reward_range: (lowest, highest) reward of one step.
      n_tasks: how many different tasks there are; None if there is no end of them.
    """

    horizon: int
    discount: float
    n_states: int
    n_actions: int
    observation_space: Space
    hides_state: bool
    shows_reward: bool
    reward_range: tuple[float, float]
    n_tasks: int | None


@runtime_checkable
class CanSample(Protocol):
    """Tasks can be drawn: there is a simulator, not only a record."""

    def sample(self, key: jax.Array) -> MDP | POMDP | AmbiguousPOMDP:
        """One problem; float64 arrays if x64 is enabled. Pure, so it can be vmapped."""


@runtime_checkable
class HasPosterior(Protocol):
    """The posterior over MDPs is known in closed form, or on a grid, given the counts of a context."""

    def posterior_mean(self, counts: Counts) -> MDP:
        """The MDP of the posterior means of transitions and rewards."""

    def posterior_sample(self, key: jax.Array, counts: Counts) -> MDP:
        """A draw from the posterior."""


@runtime_checkable
class HasGrid(Protocol):
    """The task is a few numbers, so that a finite set of problems covers the family."""

    def grid(self, n: int) -> tuple[MDP | POMDP, jax.Array]:
        """G problems, n along the first number, and their prior weights (G,)."""


@runtime_checkable
class HasExpert(Protocol):
    """A policy comes with the data that the family was built from."""

    expert: np.ndarray
    """(S, A) probabilities."""


@runtime_checkable
class HasSymmetry(Protocol):
    """Relabellings of observations and actions take tasks to equally likely tasks."""

    def symmetry(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """One relabelling, ((O,) new code of each observation, (A,) new code of each action)."""


@runtime_checkable
class HasRules(Protocol):
    """Published decision rules act without any context."""

    def rules(self) -> dict[str, Policy]:
        """The rules by their names in results.json."""


@runtime_checkable
class HasBestActionPosterior(Protocol):
    """The probability of each action being the one that the recorded oracle names is known, given what was recorded."""

    def best_action_probabilities(self, trajectories: Any) -> np.ndarray:
        """P(the oracle names a | what came before), (B, U, A) at each of the U observations of one episode a row.

        Args:
          trajectories: B rows of one episode (`icdm.trajectories.trajectory`).
        """


@runtime_checkable
class HasWords(Protocol):
    """The problem can be told in words, to a reader of a report or to a language model."""

    def words(self) -> str:
        """What is observed, what the actions do, what pays: a few sentences."""


_FAMILIES: dict[str, type] = {}


def register(name: str) -> Callable[[type], type]:
    """Class decorator that enters a family under a name."""

    def enter(family: type) -> type:
        _FAMILIES[name] = family
        return family

    return enter


def make_family(name: str, **parameters: Any) -> Family:
    """The family of that name with those parameters.

    Raises:
      UserError: an unknown family or parameter (naming the nearest), or a value the family refuses.
    """
    _import_all()
    if name not in _FAMILIES:
        raise unknown("family", name, _FAMILIES)
    fields = {field.name for field in dataclasses.fields(_FAMILIES[name])}
    for parameter in parameters:
        if parameter not in fields:
            raise unknown(f"parameter of family {name!r}", parameter, fields)
    try:
        return _FAMILIES[name](**parameters)
    except TypeError as error:
        raise UserError(f"family {name!r}: {error}") from None


def parse_family(text: str) -> Family:
    """'random_mdp:states=3,horizon=8' -> the family with these parameters.

    Raises:
      UserError: text of another form, an unknown family or parameter.
    """
    name, parameters = parse_parameters(text)
    return make_family(name, **parameters)


def parse_parameters(text: str) -> tuple[str, dict]:
    """'random_mdp:states=3,horizon=8' -> ("random_mdp", {"states": 3, "horizon": 8}); raises UserError."""
    name, _, rest = text.partition(":")
    parameters = {}
    for item in filter(None, rest.split(",")):
        key, equals, value = item.partition("=")
        try:
            parameters[key.strip()] = json.loads(value)
        except json.JSONDecodeError:
            raise UserError(f"family {text!r}: write parameters as name:key=number,key=number") from None
    return name, parameters


def family_names() -> list[str]:
    _import_all()
    return sorted(_FAMILIES)


def sample_tasks(family: Family, key: jax.Array, n: int) -> MDP | POMDP | AmbiguousPOMDP:
    """n tasks along a leading axis; large problems are drawn one after another to spare memory."""
    batch = tasks_at_once(n, family.n_actions, family.n_states)
    return jax.lax.map(family.sample, jax.random.split(key, n), batch_size=batch)


def midpoints(low: float, high: float, n: int) -> jax.Array:
    """Midpoints of n equal parts of an interval, (n,): where a parameter's grid of tasks lies."""
    return low + (high - low) * (jnp.arange(n) + 0.5) / n


def _import_all() -> None:
    package = importlib.import_module("icdm.families")
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"icdm.families.{module.name}")
