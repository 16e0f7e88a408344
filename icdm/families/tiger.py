"""The tiger problem: a decider listens, or opens one of two doors."""

import dataclasses

import jax
import jax.numpy as jnp

from icdm.errors import UserError
from icdm.problems.family import midpoints, register
from icdm.problems.mdp import MDP, check_horizon
from icdm.problems.pomdp import POMDP, silent_start
from icdm.problems.spaces import Discrete

LISTEN_COST = 1.0
PAYS = 5  # values of the bite and of the treasure in a grid of tasks


@register("tiger")
@dataclasses.dataclass(frozen=True)
class Tiger:
    """A tiger is behind one of two doors, a treasure behind the other; the tiger's side is the hidden state.

    Action 0 listens (cost 1) and observes the tiger's side correctly with probability `accuracy`. Actions 1 and 2
    open the left and the right door, which pays the treasure or costs the bite; then the tiger's side is drawn
    uniformly. The task: accuracy ~ Uniform[0.6, 0.95), bite ~ Uniform[50, 100), treasure ~ Uniform[5, 10). The
    decider observes the rewards, which carry no information about the tiger's new side.

    Source: Kaelbling, Littman and Cassandra, "Planning and acting in partially observable stochastic
    domains", Artificial Intelligence 101 (1998), where accuracy is 0.85, bite 100, treasure 10.
    """

    horizon: int = 10
    discount: float = 0.95
    n_states, n_actions, reward_range, n_tasks = 2, 3, (-100.0, 10.0), None
    observation_space, hides_state, shows_reward = Discrete(2), True, True

    def __post_init__(self) -> None:
        check_horizon(self.horizon)
        if not 0 < self.discount <= 1:
            raise UserError(f"discount {self.discount}: give a number in (0, 1]")

    def sample(self, key: jax.Array) -> POMDP:
        low, high = jnp.array([0.6, 50.0, 5.0]), jnp.array([0.95, 100.0, 10.0])
        return self.problem(*(low + (high - low) * jax.random.uniform(key, (3,), dtype=low.dtype)))

    def words(self) -> str:
        return (
            "A tiger waits behind the left or the right door, a treasure behind the other. Action 0 listens: it costs "
            f"{LISTEN_COST:g}, and observation 0 (left) or 1 (right) names the tiger's side with an unknown accuracy. "
            "Actions 1 and 2 open the left and the right door: that pays the treasure or costs the bite, both of "
            "unknown size, and the tiger is placed anew."
        )

    def grid(self, n: int) -> tuple[POMDP, jax.Array]:
        """Tasks of n accuracies x 5 bites x 5 treasures, midpoints of equal parts of the ranges, and prior weights."""
        axes = midpoints(0.6, 0.95, n), midpoints(50.0, 100.0, PAYS), midpoints(5.0, 10.0, PAYS)
        points = jnp.meshgrid(*axes, indexing="ij")
        return jax.vmap(self.problem)(*map(jnp.ravel, points)), jnp.full(n * PAYS**2, 1 / (n * PAYS**2))

    def problem(self, accuracy: jax.Array | float, bite: jax.Array | float, treasure: jax.Array | float) -> POMDP:
        """The task with these parameters."""
        anew = jnp.full((2, 2), 0.5)
        hears = jnp.stack([jnp.stack([accuracy, 1 - accuracy]), jnp.stack([1 - accuracy, accuracy])])
        listen = jnp.full(2, -LISTEN_COST)
        mdp = MDP(
            transition=jnp.stack([jnp.eye(2), anew, anew]),
            reward=jnp.stack([listen, jnp.stack([-bite, treasure]), jnp.stack([treasure, -bite])], -1),
            arrival_reward=jnp.zeros(2),
            initial=jnp.full(2, 0.5),
            terminal=jnp.zeros(2, bool),
            discount=jnp.asarray(self.discount, jnp.result_type(float)),
            horizon=self.horizon,
        )
        first = jnp.asarray(silent_start(2, 2), anew.dtype)
        return POMDP(mdp, jnp.stack([hears, anew, anew]), first, observes_first=False, shows_reward=True)
