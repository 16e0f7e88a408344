"""Evaluation: the regret estimator against plain returns, planners against brute force, intervals that cover."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from icdm.errors import UserError
from icdm.evaluation.references import references
from icdm.evaluation.summary import summarize
from icdm.evaluation.unseen import EvaluationConfig, draw_unseen, with_context
from icdm.evaluation.value import _repeats, measure
from icdm.intervals import interval, ratio
from icdm.models.policy import TransformerPolicy
from icdm.models.transformer import ModelConfig, Transformer
from icdm.oracles.backward_induction import plan, policy_value
from icdm.oracles.certify import OracleConfig
from icdm.problems.counts import Counts, count
from icdm.problems.family import make_family
from icdm.problems.policy import MarkovPolicy, uniform_policy
from icdm.readers.copying import CopyPolicy
from icdm.readers.counts_planners import doubting, maximum_likelihood, plan_from_context
from icdm.readers.reader import Fixed
from icdm.sharding import make_mesh
from icdm.trajectories.collect import ContextConfig, draw_problems, draw_tasks, record
from icdm.trajectories.layouts import make_layout
from icdm.trajectories.rollout import rollout
from icdm.trajectories.trajectory import Trajectories

FAMILY = make_family("random_mdp", horizon=5, discount=0.9)


@pytest.fixture(scope="module")
def unseen():
    config = EvaluationConfig(tasks=40, episodes=100, rows=1000)
    return config, draw_unseen(FAMILY, ContextConfig(2, "uniform"), config, OracleConfig(), jax.random.key(0))


def test_the_regret_estimator_agrees_with_the_exact_value(unseen):
    config, test = unseen
    policy = np.random.default_rng(0).dirichlet(np.ones(3), (40, 5, 5))
    exact = np.asarray(policy_value(draw_like(test), policy))
    table = jnp.asarray(policy, jnp.float32)
    estimate = measure(test, Fixed(MarkovPolicy(table)), config, make_mesh())[0]
    assert abs((estimate - exact).mean()) < 0.02
    assert np.abs(estimate - exact).max() < 0.5
    uniform = measure(test, Fixed(uniform_policy(5, 3)), config, make_mesh())[0]
    assert abs((uniform - test.random_N).mean()) < 0.02


def test_tasks_in_which_next_to_nothing_can_be_won_have_no_normalized_gap():
    optimal, random = np.array([1.0, 1.0, 1.0, 0.5 + 1e-5, 0.5]), np.array([0.0, 0.0, 0.5, 0.5, 0.5])
    found = summarize(np.array([0.5, 1.0, 0.75, -1.0, -1.0]), optimal, random)
    assert found["normalized_gap"]["n_tasks"] == 3 and found["normalized_gap"]["mean"] == pytest.approx(1 / 3)
    assert found["regret"]["n_tasks"] == 5


def test_the_copy_heuristic_does_what_was_done_at_this_time_then_at_any_time():
    """Two episodes of three steps; the action of the last is not valid."""
    context = Trajectories(
        observation=jnp.array([[[0, 1, 0, 4], [1, 0, 3, 4]]]),
        action=jnp.array([[[2, 1, 0], [0, 2, 1]]]),
        reward=jnp.zeros((1, 2, 3)),
        valid=jnp.array([[[True, True, True], [True, True, False]]]),
    )

    def probabilities(t, observation):
        policy = CopyPolicy(context, 3)
        carry = policy.init(jnp.zeros(1, jnp.int32)) + t
        return np.exp(policy.act(carry, jnp.array([observation]), jax.random.key(0))[1])[0]

    np.testing.assert_allclose(probabilities(0, 0), [0, 0, 1], atol=1e-6)  # done at t = 0
    np.testing.assert_allclose(probabilities(2, 0), [1, 0, 0], atol=1e-6)  # at t = 2 once, though 2 is the commonest
    np.testing.assert_allclose(probabilities(2, 1), [0.5, 0.5, 0], atol=1e-6)  # never at t = 2, each once before
    np.testing.assert_allclose(probabilities(1, 3), [1 / 3] * 3, atol=1e-6)  # seen in a step that did not take place


def test_repeats_are_decisions_for_the_action_seen_most_often():
    """In the context: action 0 once, action 1 twice. Then 1, 2, 2, 2 are taken, the last after the end."""
    context = Trajectories(
        jnp.zeros((1, 1, 4)), jnp.array([[[0, 1, 1]]]), jnp.zeros((1, 1, 3)), jnp.ones((1, 1, 3), bool)
    )
    episode = Trajectories(
        jnp.zeros((1, 5)), jnp.array([[1, 2, 2, 2]]), jnp.zeros((1, 4)), jnp.array([[True, True, True, False]])
    )
    np.testing.assert_allclose(_repeats(context, episode, 3), [1 / 3])
    np.testing.assert_allclose(_repeats(None, episode, 3), [1 / 3])  # 2 after 1 and 2: as often as any other


def test_further_contexts_are_of_the_same_tasks(unseen):
    config, test = unseen
    other = with_context(test, ContextConfig(1, "oracle"), jax.random.key(3))
    assert other.context.action.shape[:2] == (4000, 1) and other.task_B is test.task_B
    for text in ("oracle", "oracle:²"):  # a digit that is no number
        with pytest.raises(UserError, match="write BEHAVIOR:EPISODES"):
            EvaluationConfig(contexts=(text,)).further(ContextConfig())
    assert EvaluationConfig(contexts=("uniform:4",)).further(ContextConfig(epsilon=0.1)) == {
        "uniform:4": ContextConfig(4, "uniform", 0.1)
    }


def draw_like(test):
    """The problems of the test tasks in float64 again."""
    return jax.tree.map(lambda x: np.asarray(x, np.float64) if x.dtype == np.float32 else x, test.tasks.problem)


def test_the_oracle_has_no_regret_and_planners_have_some(unseen):
    config, test = unseen
    values = {name: measure(test, decider, config, make_mesh())[0] for name, decider in references(test).items()}
    np.testing.assert_allclose(values["oracle"], test.certified.lower_N, atol=1e-6)
    assert values["posterior_mean"].mean() < values["oracle"].mean()
    assert values["posterior_mean"].mean() > values["posterior_sampling"].mean() > test.random_N.mean()


def test_common_random_numbers(unseen):
    """Two policies given the same key that choose alike live through the same episode."""
    _, test = unseen
    tasks, task_B = test.tasks, jnp.arange(40)
    a = rollout(tasks.problem, task_B, uniform_policy(5, 3), jax.random.key(1))
    b = rollout(tasks.problem, task_B, MarkovPolicy(jnp.ones((1, 1, 5, 3)) / 3), jax.random.key(1))
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_counts_by_hand():
    state, action, after = jnp.array([0, 0, 1, 0]), jnp.array([1, 1, 0, 1]), jnp.array([1, 0, 1, 1])
    reward, valid = jnp.array([1.0, 0.0, 0.5, 9.0]), jnp.array([True, True, True, False])
    counts = count(state, action, reward, after, valid, 2, 2)
    np.testing.assert_array_equal(counts.transition, [[[0, 0], [0, 1]], [[1, 1], [0, 0]]])
    np.testing.assert_array_equal(counts.reward_sum, [[0, 1], [0.5, 0]])
    np.testing.assert_array_equal(counts.visits, [[0, 2], [1, 0]])


def test_certainty_equivalence_uses_frequencies():
    family = make_family("random_mdp", states=2, actions=2)
    known = jax.tree.map(lambda x: x[0], draw_problems(family, jax.random.key(0), 1))
    counts = Counts(jnp.array([[[0.0, 0], [0, 1]], [[1, 3], [0, 0]]]), jnp.array([[0.0, 1], [0.5, 0]]))
    model = maximum_likelihood(known, counts)
    np.testing.assert_allclose(model.transition[1, 0], [0.25, 0.75])
    np.testing.assert_allclose(model.transition[0, 0], [0.5, 0.5])  # never tried
    np.testing.assert_allclose(model.reward, [[0.3, 0.25], [0.5, 0.3]])


def test_doubt_is_a_standard_error_of_the_reward():
    """(s, a) = (0, 1) was tried four times with mean 1/4, (1, 0) once with mean 1/2, the others never."""
    family = make_family("random_mdp", states=2, actions=2)
    known = jax.tree.map(lambda x: x[0], draw_problems(family, jax.random.key(0), 1))
    counts = Counts(jnp.array([[[0.0, 0], [0, 1]], [[1, 3], [0, 0]]]), jnp.array([[0.0, 1], [0.5, 0]]))
    fitted = maximum_likelihood(known, counts)
    np.testing.assert_allclose(doubting(fitted, counts, 1.0, 0.0, 1.0).reward, [[1, 0.5], [1, 1]])
    np.testing.assert_allclose(doubting(fitted, counts, -1.0, 0.0, 1.0).reward, [[0, 0], [0, 0]], atol=1e-7)


@pytest.mark.parametrize("name", [pytest.param("energy", marks=pytest.mark.slow), "random_mdp"])
def test_posterior_mean_is_the_likelihood_weighted_mean_of_the_prior(name):
    """The closed form against importance weighting of many draws from the family itself."""
    family = make_family(name, horizon=4) if name == "energy" else make_family(name, states=2, actions=1, horizon=4)
    n = 40_000
    problems = draw_problems(family, jax.random.key(3), n)
    tasks = draw_tasks(family, jax.random.key(4), 1)
    shown = jax.tree.map(lambda x: x[0], record(family, tasks, jnp.zeros(1, int), jax.random.key(5), "uniform", 1, 0.0))
    with jax.enable_x64(True):
        counts = count(
            shown.observation[:, :-1].ravel(),
            shown.action.ravel(),
            shown.reward.ravel(),
            shown.observation[:, 1:].ravel(),
            shown.valid.ravel(),
            family.n_states,
            family.n_actions,
        )
        counts, mean = jax.tree.map(np.asarray, (counts, family.posterior_mean(counts)))
    transition, reward = np.asarray(problems.transition), np.asarray(problems.reward)
    with np.errstate(divide="ignore", invalid="ignore"):
        log_weight = np.nansum(np.where(counts.transition > 0, counts.transition * np.log(transition), 0), (1, 2, 3))
        if family.reward_range == (0.0, 1.0):
            lost = np.asarray(counts.visits - counts.reward_sum)
            log_weight += (counts.reward_sum * np.log(reward) + lost * np.log1p(-reward)).sum((1, 2))
    weight = np.exp(log_weight - log_weight.max())
    weight /= weight.sum()
    spread = 5 / np.sqrt(1 / (weight**2).sum())
    np.testing.assert_allclose(np.einsum("n,nasz->asz", weight, transition), mean.transition, atol=spread)
    np.testing.assert_allclose(np.einsum("n,nsa->sa", weight, reward), mean.reward, atol=spread)


@pytest.mark.slow
def test_with_endless_context_every_planner_finds_the_optimum():
    family = make_family("random_mdp", states=2, actions=2, horizon=3)
    problem = draw_problems(family, jax.random.key(0), 4)
    tasks = draw_tasks(family, jax.random.key(0), 4)
    context = record(family, tasks, jnp.arange(4), jax.random.key(1), "uniform", 5000, 0.0)
    q = np.asarray(plan(problem))
    for planner in ("certainty_equivalence", "posterior_mean", "posterior_sampling"):
        found = np.asarray(plan_from_context(family, tasks.problem, context, planner, jax.random.key(2)))
        assert found.dtype == np.float64
        assert np.abs(found - q).max() < 0.15


@pytest.mark.slow
def test_posterior_mean_picks_the_oracles_action_as_often_as_reported():
    """68.6 % (+- 1) of the states that the uniform policy visits next, 10 context episodes."""
    family = make_family("random_mdp")
    tasks = draw_tasks(family, jax.random.key(0), 4000)
    shown = record(family, tasks, jnp.arange(4000), jax.random.key(1), "uniform", 11, 0.0)
    context = jax.tree.map(lambda x: x[:, :10], shown)
    q = np.asarray(plan_from_context(family, tasks.problem, context, "posterior_mean", jax.random.key(2)))
    state = np.asarray(shown.observation[:, 10, :-1])
    choice = q[np.arange(4000)[:, None], np.arange(6)[None], state].argmax(-1)
    best = np.asarray(shown.q[:, 10]).argmax(-1)
    assert abs((choice == best).mean() - 0.686) < 0.01


def test_a_transformer_is_refused_a_context_beyond_its_limit():
    layout = make_layout("transition", FAMILY, reward_bins=2)
    model = Transformer(ModelConfig(width=16, layers=1, heads=2, kv_heads=2, max_length=10), layout.size, nnx.Rngs(0))
    tasks = draw_tasks(FAMILY, jax.random.key(0), 2)
    context = record(FAMILY, tasks, jnp.arange(2), jax.random.key(1), "uniform", 3, 0.0)
    with pytest.raises(UserError, match="24 positions, the model's limit is 10"):
        TransformerPolicy(model, context, layout).init(jnp.arange(2))


def test_metrics_by_hand():
    found = summarize([1.0, 0.5, 0.2], [2.0, 0.5, -0.2], [0.0, 0.1, -1.2])
    assert found["value"]["mean"] == pytest.approx(1.7 / 3)
    assert found["gap"] == found["gap"] | {"mean": 0.25, "n_tasks": 2, "n_left_out": 1}
    assert found["normalized_gap"]["mean"] == pytest.approx((0.5 + 0 - 0.4) / 3)
    assert found["failure_rate"]["mean"] == 0.0
    assert found["regret"]["n_tasks"] == 3


def test_one_task_is_summarized_over_its_episodes():
    found = summarize(np.array([1.0, 0.0, 1.0, 0.0]), np.array([1.0]), np.array([0.0]))
    assert found["normalized_gap"]["mean"] == 0.5 and found["normalized_gap"]["n_tasks"] == 4
    assert found["failure_rate"] == {"mean": 0.0, "ci95": [0.0, 0.0], "n_tasks": 1}


def test_intervals_cover_the_mean():
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(100):
        low, high = interval(rng.exponential(size=60))["ci95"]
        covered += low <= 1 <= high
    assert covered >= 85
    paired = rng.exponential(size=500)
    found = ratio(2 * paired, paired)
    assert found["mean"] == pytest.approx(2) and found["standard_error"] < 1e-9
