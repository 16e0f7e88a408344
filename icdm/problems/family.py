"""Families: distributions over decision problems, looked up by name.

A family is a frozen dataclass whose fields are its parameters. To add one, put a file beside this one:

    @register("coin")
    @dataclasses.dataclass(frozen=True)
    class Coin:
        '''Guess a biased coin; the bias is the task.'''
        horizon: int = 5
        n_states, n_actions, reward_range, n_tasks = 1, 2, (0.0, 1.0), None

        def sample(self, key):
            bias = jax.random.uniform(key, dtype=float)
            return MDP(transition=jnp.ones((2, 1, 1)), reward=jnp.stack([1 - bias, bias])[None], ...)
"""

import dataclasses
import importlib
import json
import pkgutil
from typing import Protocol

import jax
import jax.numpy as jnp

from icdm.errors import UserError, unknown
from icdm.problems.mdp import MDP, tasks_at_once


class Family(Protocol):
    """What every family offers.

    Attributes:
      horizon: decisions in an episode.
      n_states, n_actions: sizes (problems with hidden states also give n_observations).
      reward_range: (lowest, highest) reward of one step.
      n_tasks: how many different tasks there are; None when there is no end of them.
      sample: key -> one problem, float64 arrays when x64 is enabled; pure, so it can be vmapped.

    Optional: `shows_reward`, false where the rewards are hidden from the decider; `posterior_mean(counts)` and
    `posterior_sample(key, counts)`, the mean of, and a draw from, the posterior over MDPs given the transition
    counts of a context; `grid(n)`, where the task is a few numbers: G problems on a grid of them, n along the
    first, and their prior weights (G,); `expert`, an (S, A) policy that comes with the data; `sides`, of the
    grid whose cells are the observations.
    """

    horizon: int
    n_states: int
    n_actions: int
    reward_range: tuple[float, float]
    n_tasks: int | None

    def sample(self, key: jax.Array) -> MDP: ...


_FAMILIES: dict[str, type] = {}


def register(name: str):
    """Class decorator that enters a family under a name."""

    def enter(family: type) -> type:
        _FAMILIES[name] = family
        return family

    return enter


def make_family(name: str, **parameters) -> Family:
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


def n_observations(family: Family) -> int:
    """How many observations a decider may see; a family that shows its state need not say."""
    return getattr(family, "n_observations", family.n_states)


def hides_state(family: Family) -> bool:
    """Whether what a decider sees is not the state itself."""
    return hasattr(family, "n_observations")


def sample_tasks(family: Family, key: jax.Array, n: int):
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
