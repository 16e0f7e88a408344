"""Grids of tasks: families whose task is a few numbers, discretised for readers that keep a posterior over them.

`grid(family, n)` gives G problems of the family along a leading axis and their prior weights (G,), which sum
to 1; float64 where x64 is enabled.
"""

import functools

import jax
import jax.numpy as jnp

from icdm.errors import UserError
from icdm.problems.energy import Energy
from icdm.problems.energy_apomdp import EnergyAPOMDP
from icdm.problems.energy_pomdp import EnergyPOMDP
from icdm.problems.families import sample_tasks
from icdm.problems.regimes import Regimes
from icdm.problems.tiger import Tiger

PAYS = 5  # points along the bite and along the treasure of `tiger`


@functools.singledispatch
def grid(family, n: int):
    """G tasks of the family and their prior weights; n points along its first parameter.

    Raises:
      UserError: a family whose tasks have no grid.
    """
    raise UserError(f"the tasks of family {type(family).__name__} are no few numbers: there is no grid of them")


def has_grid(family) -> bool:
    return grid.dispatch(type(family)) is not grid.dispatch(object)


@grid.register
def _(family: Energy, n: int):
    return jax.vmap(family.problem)(midpoints(0.5, 1.0, n)), jnp.full(n, 1 / n)


@grid.register
def _(family: EnergyPOMDP, n: int):
    mdp_G, weight_G = grid(Energy(family.horizon, family.discount), n)
    return jax.vmap(family.problem)(mdp_G), weight_G


@grid.register
def _(family: EnergyAPOMDP, n: int):
    """The nominal model, which generates the episodes."""
    return grid(EnergyPOMDP(family.horizon, family.discount, family.fidelity), n)


@grid.register
def _(family: Tiger, n: int):
    axes = midpoints(0.6, 0.95, n), midpoints(50.0, 100.0, PAYS), midpoints(5.0, 10.0, PAYS)
    points = jnp.meshgrid(*axes, indexing="ij")
    return jax.vmap(family.problem)(*map(jnp.ravel, points)), jnp.full(n * PAYS**2, 1 / (n * PAYS**2))


@grid.register
def _(family: Regimes, n: int):
    """Six numbers are too many for a lattice: n draws from the prior."""
    return sample_tasks(family, jax.random.key(0), n), jnp.full(n, 1 / n)


def midpoints(low: float, high: float, n: int) -> jax.Array:
    return low + (high - low) * (jnp.arange(n) + 0.5) / n
