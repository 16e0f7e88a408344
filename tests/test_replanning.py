"""Readers that go on reading: they plan from what they have seen so far, and the planning share compares with them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from icdm.evaluation.summary import summaries
from icdm.oracles.backward_induction import backward_induction
from icdm.problems.counts import count
from icdm.problems.family import make_family
from icdm.problems.mdp import expected_reward
from icdm.readers.counts_planners import plan_from_context
from icdm.readers.replanning import Replanning, replanners_of
from icdm.trajectories.collect import draw_tasks, play

FAMILY = make_family("random_mdp", horizon=4, discount=0.9)
B = 6
STEPS = [
    ([0, 1, 2, 3, 4, 0], [0, 1, 2, 0, 1, 2], [1.0, 0, 1, 0, 1, 0]),
    ([1, 1, 3, 3, 0, 2], [2, 2, 0, 1, 1, 0], [0.0] * 6),
]


@pytest.fixture(scope="module")
def context():
    tasks = draw_tasks(FAMILY, jax.random.key(0), B)
    return tasks, play(FAMILY, tasks, jnp.arange(B), jax.random.key(1), "uniform", 3, 0.0)


def asked(context, ahead):
    """Q (B, A) at the last of three observations, after two steps of the reader's own."""
    tasks, recorded = context

    @jax.jit
    def q(recorded):
        policy = Replanning(FAMILY, ahead).policy(tasks, jnp.arange(B), recorded, jax.random.key(2))
        carry = policy.init(jnp.arange(B))
        for state, action, reward in STEPS:
            _, _, carry = policy.act(carry, jnp.array(state), jax.random.key(3))
            carry = policy.observe(carry, jnp.array(action), jnp.array(reward))
        return policy.act(carry, jnp.array([4, 4, 1, 0, 2, 3]), jax.random.key(3))[1]

    return q(recorded)


def models(context):
    """The posterior means of each row, counted by hand from the context and the two steps."""
    (first, second), last = STEPS, [4, 4, 1, 0, 2, 3]
    for b in range(B):
        steps = jax.tree.map(lambda x: x[b].ravel(), (*context[1].steps, context[1].valid))
        own = (
            (first[0][b], *(x[b] for x in first[1:]), second[0][b]),
            (second[0][b], second[1][b], second[2][b], last[b]),
        )
        joined = [jnp.concatenate([x, jnp.array([step[i] for step in own])]) for i, x in enumerate(steps[:4])]
        valid = jnp.concatenate([steps[4], jnp.ones(2, bool)])
        yield FAMILY.posterior_mean(count(*joined, valid, FAMILY.n_states, FAMILY.n_actions))


def test_at_the_start_it_plans_as_the_planner_that_reads_the_context_alone(context):
    tasks, recorded = context
    policy = replanners_of(FAMILY)["posterior_mean_replanned"].policy(tasks, jnp.arange(B), recorded, jax.random.key(2))
    start_B = jnp.arange(B) % FAMILY.n_states
    _, q_BA, _ = policy.act(policy.init(jnp.arange(B)), start_B, jax.random.key(3))
    expected = plan_from_context(FAMILY, tasks.problem, recorded, "posterior_mean", jax.random.key(4))
    np.testing.assert_allclose(q_BA, expected[jnp.arange(B), 0, start_B], rtol=1e-5)


def test_its_own_steps_are_counted_and_the_decisions_to_go_are_fewer(context):
    expected = [backward_induction(m)[0][2][s] for m, s in zip(models(context), [4, 4, 1, 0, 2, 3])]
    np.testing.assert_allclose(asked(context, FAMILY.horizon), np.stack(expected), rtol=1e-5)
    np.testing.assert_allclose(asked(context, 2), np.stack(expected), rtol=1e-5)  # two decisions are left


def test_the_myopic_reader_looks_at_the_next_reward_alone(context):
    expected = [expected_reward(m)[s] for m, s in zip(models(context), [4, 4, 1, 0, 2, 3])]
    np.testing.assert_allclose(asked(context, 1), np.stack(expected), rtol=1e-5)


def test_families_without_a_posterior_have_none():
    assert replanners_of(make_family("icu_sepsis")) == {}


def test_the_planning_share_is_0_for_myopic_readers_and_1_for_the_planner():
    rng = np.random.default_rng(0)
    optimal = 1 + rng.random(400)
    arrays = {"optimal": optimal, "upper": optimal, "random": optimal - 1}
    gaps = {"posterior_mean_replanned": 0.1, "myopic": 0.3, "fine_tuned": 0.15, "copy": 0.3, "oracle": 0.0}
    arrays |= {f"policy/{name}": optimal - gap * (1 + 0.2 * rng.standard_normal(400)) for name, gap in gaps.items()}
    policies = summaries(arrays)["policies"]
    shares = {name: m["planning_share"] for name, m in policies.items() if "planning_share" in m}
    assert shares.keys() == {"fine_tuned", "copy", "oracle"}
    assert shares["fine_tuned"]["mean"] == pytest.approx(0.75, abs=0.05)
    assert shares["copy"]["mean"] == pytest.approx(0, abs=0.05)
    low, high = shares["fine_tuned"]["ci95"]
    assert low < shares["fine_tuned"]["mean"] < high and shares["fine_tuned"]["n_tasks"] == 400
    arrays["policy/myopic"] = optimal - 0.12  # planning hardly pays here
    assert not any("planning_share" in m for m in summaries(arrays)["policies"].values())


def test_in_one_task_policies_are_compared_by_its_episodes():
    optimal = np.array([2.0])
    arrays = {"optimal": optimal, "upper": optimal, "random": optimal - 1}
    arrays |= {"policy/fine_tuned": np.full(6, 1.9), "policy/certainty_equivalence": np.linspace(1.5, 1.7, 6)}
    found = summaries(arrays)
    assert found["ratios"]["fine_tuned/certainty_equivalence"]["mean"] == pytest.approx(0.25)
    assert found["advantages"]["certainty_equivalence"]["mean"] == pytest.approx(0.3)
    assert found["advantages"]["certainty_equivalence"]["n_tasks"] == 6
