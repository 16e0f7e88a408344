"""Families: distributions over decision problems, their optional abilities, and their registry.

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
    """The attributes of every family.

    Attributes:
      horizon: decisions in an episode.
      discount: of one step, in (0, 1].
      n_states, n_actions: sizes S and A.
      observation_space: the space of the observations.
      hides_state: whether the state is partially observed.
      shows_reward: whether the decider observes the rewards.
      reward_range: (lowest, highest) reward of one step.
      n_tasks: number of different tasks; None if it is infinite.
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
    """The family has a simulator, which draws tasks."""

    def sample(self, key: jax.Array) -> MDP | POMDP | AmbiguousPOMDP:
        """One problem, with float64 arrays if x64 is enabled. The function is pure and can be vmapped."""


@runtime_checkable
class HasPosterior(Protocol):
    """The family computes the posterior over its MDPs given the counts of a context, exactly or on a grid."""

    def posterior_mean(self, counts: Counts) -> MDP:
        """The MDP of the posterior means of transitions and rewards."""

    def posterior_sample(self, key: jax.Array, counts: Counts) -> MDP:
        """A draw from the posterior."""


@runtime_checkable
class HasGrid(Protocol):
    """A finite grid of problems covers the family, because a task has few parameters."""

    def grid(self, n: int) -> tuple[MDP | POMDP, jax.Array]:
        """G problems, n along the first parameter, and their prior weights (G,)."""


@runtime_checkable
class HasExpert(Protocol):
    """The data from which the family is built contain an expert's policy."""

    expert: np.ndarray
    """(S, A) probabilities."""


@runtime_checkable
class HasSymmetry(Protocol):
    """Some relabellings of observations and actions map tasks to equally likely tasks."""

    def symmetry(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """One relabelling, ((O,) new code of each observation, (A,) new code of each action)."""


@runtime_checkable
class HasRules(Protocol):
    """The family has published decision rules, which need no context."""

    def rules(self) -> dict[str, Policy]:
        """The rules by their names in results.json."""


@runtime_checkable
class HasBestActionPosterior(Protocol):
    """The family computes the probability that an action is the recorded oracle's, given the recorded steps."""

    def best_action_probabilities(self, trajectories: Any) -> np.ndarray:
        """P(the oracle's action is a | the steps before), (B, U, A), at each observation of one episode per row.

        Args:
          trajectories: B rows with one episode each (`icdm.trajectories.trajectory`).
        """


@runtime_checkable
class HasWords(Protocol):
    """The family describes its problems in words, for reports and for language models."""

    def words(self) -> str:
        """A few sentences on the observations, the actions and the rewards."""


_FAMILIES: dict[str, type] = {}


def register(name: str) -> Callable[[type], type]:
    """A class decorator that registers a family under a name."""

    def enter(family: type) -> type:
        _FAMILIES[name] = family
        return family

    return enter


def make_family(name: str, **parameters: Any) -> Family:
    """The family of that name with those parameters.

    Raises:
      UserError: the family or a parameter is unknown (the message names the nearest one), or the family
        refuses a value.
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
      UserError: the text has another form, or the family or a parameter is unknown.
    """
    name, parameters = parse_parameters(text)
    return make_family(name, **parameters)


def parse_parameters(text: str) -> tuple[str, dict]:
    """'random_mdp:states=3,horizon=8' -> ("random_mdp", {"states": 3, "horizon": 8}).

    Raises:
      UserError: the text has another form.
    """
    name, _, rest = text.partition(":")
    parameters = {}
    for item in filter(None, rest.split(",")):
        key, equals, value = item.partition("=")
        try:
            parameters[key.strip()] = json.loads(value)
        except json.JSONDecodeError:
            raise UserError(f"family {text!r}: write parameters as name:key=number,key=number") from None
    return name, parameters


def families() -> dict[str, type]:
    """The classes of all families by their names, sorted."""
    _import_all()
    return dict(sorted(_FAMILIES.items()))


def sample_tasks(family: Family, keys: jax.Array) -> MDP | POMDP | AmbiguousPOMDP:
    """A task of each key along a leading axis; large problems are drawn one after another to save memory."""
    batch = tasks_at_once(keys.size, family.n_actions, family.n_states)
    return jax.lax.map(family.sample, keys, batch_size=batch)


def midpoints(low: float, high: float, n: int) -> jax.Array:
    """Midpoints of n equal parts of the interval [low, high], (n,)."""
    return low + (high - low) * (jnp.arange(n) + 0.5) / n


def _import_all() -> None:
    package = importlib.import_module("icdm.families")
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"icdm.families.{module.name}")
