"""The ICU-Sepsis MDP, built from MIMIC-III records, and a family of hospitals around it."""

import dataclasses
import functools
import importlib.util
import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from icdm.errors import UserError
from icdm.problems.counts import Counts, dirichlet_mean
from icdm.problems.family import register
from icdm.problems.mdp import MDP, check_horizon, make_mdp
from icdm.problems.spaces import Discrete

STATES, ACTIONS = 716, 25
DEATH, SURVIVAL, AFTER = 713, 714, 715


@functools.cache
def icu_arrays() -> dict[str, np.ndarray]:
    """The arrays in the package `icu-sepsis`, read as data without importing the package.

    Raises:
      UserError: the package is not installed.
    """
    package = importlib.util.find_spec("icu_sepsis")
    if package is None:
        raise UserError("the ICU-Sepsis arrays are missing: pip install 'icdm[clinical]'")
    path = pathlib.Path(package.origin).parent / "envs" / "assets" / "dynamics.npz"
    with np.load(path) as arrays:
        return {name: arrays[name] for name in arrays.files}


@functools.lru_cache(maxsize=1)
def nominal_mdp(horizon: int) -> MDP:
    """The MDP of the package's arrays in float64; cached, because the check of its 13 million entries is slow."""
    arrays = icu_arrays()
    return make_mdp(
        transition=np.swapaxes(arrays["tx_mat"], 0, 1),
        reward=np.zeros((STATES, ACTIONS)),
        arrival_reward=np.arange(STATES) == SURVIVAL,
        initial=arrays["d_0"],
        terminal=np.isin(np.arange(STATES), [DEATH, SURVIVAL, AFTER]),
        discount=1.0,
        horizon=horizon,
    )


@register("icu_sepsis")
@dataclasses.dataclass(frozen=True)
class ICUSepsis:
    """Treatment of sepsis: 716 patient states, 25 doses of fluids and vasopressors, reward 1 for survival.

    The episode ends in death or survival. `expert` is the clinicians' policy in the package. There is one task.

    Source: Choudhary, Gupta, Thomas, "ICU-Sepsis: A Benchmark MDP Built from Real Medical Data" (RLC
    2024), the arrays of its package, version 2.
    """

    horizon: int = 50
    n_states, n_actions, reward_range, n_tasks, discount = STATES, ACTIONS, (0.0, 1.0), 1, 1.0
    observation_space, hides_state, shows_reward = Discrete(STATES), False, True

    def __post_init__(self) -> None:
        check_horizon(self.horizon)

    @property
    def expert(self) -> np.ndarray:
        """(S, A) the clinicians' policy; uniform in the three absorbing states, where the data have none."""
        policy = icu_arrays()["expert_policy"]
        total = policy.sum(-1, keepdims=True)
        return np.where(total > 0, policy / np.where(total > 0, total, 1), 1 / ACTIONS)

    def sample(self, key: jax.Array) -> MDP:
        del key
        return jax.tree.map(jnp.asarray, nominal_mdp(self.horizon))


@register("icu_sepsis_hospitals")
@dataclasses.dataclass(frozen=True)
class ICUSepsisHospitals(ICUSepsis):
    """Different hospitals: each draws its transition rows ~ Dirichlet(concentration x nominal row).

    The nominal rows are those of ICU-Sepsis, and a row keeps its support. Hospitals differ more if the
    concentration is smaller.
    """

    concentration: float = 10.0
    n_tasks = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.concentration <= 0:
            raise UserError(f"concentration {self.concentration}: give a number above 0")

    def sample(self, key: jax.Array) -> MDP:
        return self._draw(key, jnp.asarray(self.concentration * nominal_mdp(self.horizon).transition))

    def posterior_mean(self, counts: Counts) -> MDP:
        return self._with_rows(dirichlet_mean(self._concentration(counts)))

    def posterior_sample(self, key: jax.Array, counts: Counts) -> MDP:
        return self._draw(key, self._concentration(counts))

    def _draw(self, key: jax.Array, concentration_ASS: jax.Array) -> MDP:
        """Rows ~ Dirichlet, by Gamma variables for the support alone, a tenth of the entries."""
        support = np.nonzero(nominal_mdp(self.horizon).transition)
        gamma_I = jnp.exp(jax.random.loggamma(key, concentration_ASS[support], dtype=jnp.float32))
        drawn = jnp.zeros_like(concentration_ASS).at[support].set(gamma_I.astype(concentration_ASS.dtype))
        return self._with_rows(drawn / drawn.sum(-1, keepdims=True))

    def _concentration(self, counts: Counts) -> jax.Array:
        return self.concentration * nominal_mdp(self.horizon).transition + counts.transition

    def _with_rows(self, transition: jax.Array) -> MDP:
        nominal = jax.tree.map(jnp.asarray, nominal_mdp(self.horizon))
        return dataclasses.replace(nominal, transition=transition)
