"""Families with hidden states: valid problems, and deciders in the order that they must come in."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from icdm.errors import UserError
from icdm.families.energy_apomdp import drawn_back, relative_entropy
from icdm.oracles.alpha_meu import solve_recursive
from icdm.oracles.belief import belief_model
from icdm.oracles.point_based import solve
from icdm.oracles.pomdp_planners import (
    AlphaVectors,
    Ambiguous,
    BeliefPolicy,
    LinearQ,
    MostLikelyState,
    fast_informed,
    qmdp,
)
from icdm.problems.family import make_family, sample_tasks
from icdm.problems.policy import uniform_policy
from icdm.trajectories.rollout import assess_along, rollout

FAMILIES = ("energy_pomdp", "tiger", "random_pomdp", "regimes")
KEY = jax.random.key(2)
N_TASKS, N_EPISODES = 4, 1000


def tasks(family, n=N_TASKS, seed=0):
    with jax.enable_x64(True):
        return jax.tree.map(np.asarray, sample_tasks(family, jax.random.split(jax.random.key(seed), n)))


def in_float32(tree):
    return jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf)), tree)


def play(problem, policy, key=KEY):
    """Observations, actions and rewards, (B, T) each, with `N_EPISODES` rows a task."""
    problem, policy = in_float32(problem), in_float32(policy)
    task_B = jnp.repeat(jnp.arange(N_TASKS), N_EPISODES)

    @jax.jit
    def episodes(problem, policy):
        state_B, observation_B = problem.reset(task_B, key)

        def step(carry, t):
            state_B, observation_B, memory = carry
            action_B, _, memory = policy.act(memory, observation_B, jax.random.fold_in(key, 2 * t + 1))
            state_B, reward_B, next_B, _ = problem.step(task_B, state_B, action_B, jax.random.fold_in(key, 2 * t))
            memory = policy.observe(memory, action_B, reward_B)
            return (state_B, next_B, memory), (observation_B, action_B, reward_B)

        start = (state_B, observation_B, policy.init(task_B))
        return jax.lax.scan(step, start, jnp.arange(1, problem.horizon + 1))[1]

    return task_B, *(np.asarray(record).T for record in episodes(problem, policy))


def returns(problem, policy):
    _, _, _, reward_BT = play(problem, policy)
    weight_NT = np.asarray(problem.discount)[:, None] ** np.arange(reward_BT.shape[1])
    return (reward_BT.reshape(N_TASKS, N_EPISODES, -1) * weight_NT[:, None]).sum(-1)


@pytest.mark.parametrize("name", (*FAMILIES, "energy_apomdp"))
def test_samples_are_valid_problems_of_the_sizes_they_promise(name):
    family = make_family(name)
    problem = tasks(family)
    models = problem.models if name == "energy_apomdp" else problem
    assert (models.n_states, models.n_actions, models.n_observations, models.horizon) == (
        family.n_states,
        family.n_actions,
        family.observation_space.n,
        family.horizon,
    )
    for rows in (models.mdp.transition, models.emission, models.first_emission, models.mdp.initial):
        assert rows.dtype == np.float64 and (rows >= 0).all() and np.allclose(rows.sum(-1), 1, atol=1e-12)
    low, high = family.reward_range
    pay = models.mdp.reward[..., None] + models.mdp.arrival_reward[..., None, None, :]  # (..., S, A, S')
    pay = pay[np.swapaxes(models.mdp.transition, -3, -2) > 0]
    assert low - 1e-9 <= pay.min() and pay.max() <= high + 1e-9
    assert np.unique(models.mdp.transition, axis=0).shape[0] > 1 or name == "tiger", "tasks differ"


@pytest.mark.parametrize(
    "name", ["tiger", *(pytest.param(n, marks=pytest.mark.slow) for n in FAMILIES if n != "tiger")]
)
def test_the_oracle_earns_its_bracket_and_beats_the_planners(name):
    problem = tasks(make_family(name))
    model = belief_model(problem)
    solution = solve(model, jax.random.key(1), tolerance=0.05, time_limit=600)
    policies = {
        "oracle": AlphaVectors(model, solution.bounds.alpha),
        "qmdp": LinearQ(qmdp(problem)),
        "informed": LinearQ(fast_informed(model)),
        "most_likely_state": MostLikelyState(qmdp(problem)),
    }
    earned = {planner: returns(problem, BeliefPolicy(problem, policies[planner])) for planner in policies}
    oracle, slack = earned["oracle"].mean(1), 4 * earned["oracle"].std(1) / np.sqrt(N_EPISODES)
    assert (oracle >= solution.lower - slack).all() and (oracle <= solution.upper + slack).all()
    random = returns(problem, uniform_policy(problem.n_observations, problem.n_actions))
    assert oracle.mean() > random.mean()
    for planner in policies:
        difference = earned["oracle"] - earned[planner]
        assert difference.mean() >= -(solution.gap.mean() + 4 * difference.std() / np.sqrt(difference.size))


def test_what_the_oracle_says_along_recorded_episodes_is_what_it_saw_itself():
    """Labels recomputed from a record equal what the oracle itself saw, and average to its value."""
    problem = tasks(make_family("energy_pomdp"))
    model = belief_model(problem)
    solution = solve(model, jax.random.key(1), tolerance=0.05, time_limit=600)
    policy = BeliefPolicy(problem, AlphaVectors(model, solution.bounds.alpha))
    task_B = jnp.repeat(jnp.arange(N_TASKS), N_EPISODES)
    episodes = jax.jit(rollout)(in_float32(problem), task_B, in_float32(policy), jax.random.key(2))
    with jax.enable_x64(True):
        q_BTA, value_BT = jax.jit(assess_along)(policy, task_B, episodes)
    q_BTA, action_BT = np.asarray(q_BTA), np.asarray(episodes.action)
    assert q_BTA.dtype == np.float64
    chosen_BT = np.take_along_axis(q_BTA, action_BT[..., None], 2)[..., 0]
    assert (q_BTA.max(-1) - chosen_BT).max() < 1e-4
    assert (q_BTA.max(-1) >= np.asarray(value_BT) - 1e-9).all(), "looking ahead never loses"
    at_start = np.asarray(value_BT)[:, 0].reshape(N_TASKS, -1)
    assert np.allclose(at_start.mean(1), solution.lower, atol=4 * at_start.std(1).max() / np.sqrt(N_EPISODES))


def test_energy_meter_and_cloud():
    family = make_family("energy_apomdp", n_models=5, horizon=5, pessimism=0.25)
    cloud = tasks(family)
    transition = cloud.models.mdp.transition
    nominal = np.broadcast_to(transition[:, :1], transition.shape)
    with jax.enable_x64(True):
        entropy = np.asarray(relative_entropy(jnp.asarray(transition), jnp.asarray(nominal)))
    assert entropy.max() <= 0.2 + 1e-9 and (entropy[:, 1:] > 0.01).any() and not entropy[:, 0].any()
    assert ((transition > 0) <= (nominal > 0)).all()
    assert (cloud.pessimism == 0.25).all()
    assert np.allclose(np.diagonal(cloud.models.emission, axis1=-2, axis2=-1), 0.8)
    assert np.allclose(tasks(make_family("energy_pomdp", fidelity=1.0)).emission, np.eye(10))


def test_rows_are_drawn_back_exactly_to_the_radius():
    with jax.enable_x64(True):
        nominal = jnp.array([[0.9, 0.1], [0.5, 0.5]])
        row = jnp.array([[0.1, 0.9], [0.45, 0.55]])
        back = drawn_back(row, nominal, 0.2)
        assert float(relative_entropy(back, nominal)[0]) == pytest.approx(0.2, abs=1e-9)
        assert np.array_equal(back[1], row[1])


@pytest.mark.slow
def test_the_ambiguous_oracle_acts_and_one_model_is_the_nominal_problem():
    cloud = tasks(make_family("energy_apomdp", n_models=1, horizon=5))
    solution = solve_recursive(cloud, jax.random.key(0))
    nominal = cloud.model(0)
    certified = solve(belief_model(nominal), jax.random.key(1), tolerance=0.005, time_limit=600)
    assert (solution.value >= certified.lower - solution.error - 0.005).all()
    assert (solution.value <= certified.upper + solution.error + 0.005).all()
    planner = Ambiguous(belief_model(cloud.models), cloud.pessimism, solution.interpolated)
    earned = returns(cloud.model(0), BeliefPolicy(nominal, planner))
    assert (earned.mean(1) >= 0.98 * certified.lower - 4 * earned.std(1) / np.sqrt(N_EPISODES)).all()


def test_regimes_pay_growth_and_charge_for_trading():
    family = make_family("regimes")
    problem = tasks(family)
    assert np.allclose(problem.mdp.arrival_reward[:, [0, 3]], 0), "cash earns nothing"
    assert (problem.mdp.arrival_reward[:, 2] > 0).all() and (problem.mdp.arrival_reward[:, 5] < 0).all()
    assert np.allclose(problem.mdp.reward[:, 0], [0, -0.1, -0.2])
    held = problem.mdp.transition[0].reshape(3, 6, 2, 3).sum(2)
    assert np.allclose(held, np.broadcast_to(np.eye(3)[:, None], held.shape)), "an action sets the share held"
    stay = problem.mdp.initial[0].reshape(2, 3).sum(1) @ problem.mdp.transition[0, 0].reshape(2, 3, 2, 3)[:, 0].sum(-1)
    assert np.allclose(stay, problem.mdp.initial[0].reshape(2, 3).sum(1)), "regimes start stationary"


@pytest.mark.parametrize(
    "name, parameters, message",
    [
        ("energy_pomdp", {"fidelity": 1.2}, "fidelity 1.2"),
        ("energy_pomdp", {"horizon": 0}, "horizon 0"),
        ("energy_apomdp", {"pessimism": -1}, "pessimism -1"),
        ("energy_apomdp", {"n_models": 0}, "n_models 0"),
        ("energy_apomdp", {"radius": 0}, "radius 0"),
        ("tiger", {"discount": 0}, "discount 0"),
        ("random_pomdp", {"observations": 0}, "at least 1 observation"),
        ("random_pomdp", {"states": 0}, "sizes must be at least 1"),
        ("regimes", {"cost": 1}, "cost in"),
    ],
)
def test_refusals(name, parameters, message):
    with pytest.raises(UserError, match=message):
        make_family(name, **parameters)
