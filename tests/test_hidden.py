"""Training and evaluation where the state is hidden: what is recorded, what it is worth, what is shown."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.configs import energy_pomdp
from icdm.errors import UserError
from icdm.evaluation.references import references
from icdm.evaluation.summary import mark_below_bracket, summarize_members
from icdm.evaluation.unseen import EvaluationConfig, draw_unseen
from icdm.evaluation.value import measure, measure_members
from icdm.learning.objectives import LabelConfig
from icdm.learning.sources import EPISODES, EpisodePool, Labelled
from icdm.oracles.certify import OracleConfig, certify, informed_critic
from icdm.problems.family import make_family
from icdm.problems.policy import MarkovPolicy, uniform_policy
from icdm.readers.reader import Fixed
from icdm.runs.settings import Settings
from icdm.sharding import make_mesh
from icdm.trajectories.collect import ContextConfig, draw_problems, draw_tasks, record, to_float32
from icdm.trajectories.rollout import rollout

COARSE = OracleConfig(tolerance=0.05, points=16)
FAMILY = make_family("energy_pomdp", horizon=4, fidelity=0.5)
CONFIG = EvaluationConfig(tasks=8, episodes=400, rows=4000)


@pytest.fixture(scope="module")
def unseen():
    return draw_unseen(FAMILY, ContextConfig(1, "oracle"), CONFIG, COARSE, jax.random.key(0))


def follows_the_meter():
    """Works when the meter shows enough, charges otherwise: a policy that reads observations."""
    table = jax.nn.one_hot(jnp.where(jnp.arange(10) >= 5, 1, 0), 3)
    return MarkovPolicy(table[None, None])


def plain_returns(family, problem, policy, n_episodes, key):
    """Mean return of many episodes, by adding up rewards that are shown for the purpose, with standard error."""
    task_B = jnp.repeat(jnp.arange(problem.mdp.initial.shape[0]), n_episodes)
    open_problem = to_float32(jax.tree.map(lambda x: x, problem))
    open_problem = type(problem)(
        open_problem.mdp, open_problem.emission, open_problem.first_emission, problem.observes_first, shows_reward=True
    )
    episode = rollout(open_problem, task_B, policy, key)
    discount = np.asarray(problem.mdp.discount)[0] ** np.arange(family.horizon)
    returns = (np.asarray(episode.reward) * discount).sum(1).reshape(-1, n_episodes)
    return returns.mean(1), returns.std(1) / np.sqrt(n_episodes)


def test_values_by_advantages_are_the_values_by_rewards(unseen):
    problem = draw_problems(FAMILY, jax.random.split(jax.random.key(0), 3)[0], 8)
    value_N = measure(unseen, Fixed(follows_the_meter()), CONFIG, make_mesh())[0]
    mean_N, error_N = plain_returns(FAMILY, problem, follows_the_meter(), 20_000, jax.random.key(5))
    assert (np.abs(value_N - mean_N) < 5 * error_N + 0.02).all()
    uniform = measure(unseen, Fixed(uniform_policy(10, 3)), CONFIG, make_mesh())[0]
    assert np.abs(uniform - unseen.random_N).mean() < 0.03


def test_any_critic_gives_the_same_value(unseen):
    problem = draw_problems(FAMILY, jax.random.split(jax.random.key(0), 3)[0], 8)
    critic, start_N = informed_critic(problem)
    world = type(unseen.world)(unseen.world.problem, critic, start_N)
    by_bound = measure(unseen, Fixed(follows_the_meter()), CONFIG, make_mesh())[0]
    by_informed = measure(unseen, Fixed(follows_the_meter()), CONFIG, make_mesh(), world)[0]
    assert (start_N >= unseen.certified.upper_N - 0.2).all() and np.abs(by_bound - by_informed).mean() < 0.02


@pytest.mark.slow
def test_the_oracle_is_within_its_bracket_and_first(unseen):
    values = {name: measure(unseen, d, CONFIG, make_mesh())[0] for name, d in references(unseen).items()}
    certified = unseen.certified
    alone = measure_members(unseen, None, CONFIG, make_mesh(), values["oracle"])
    np.testing.assert_array_equal(alone, values["oracle"][:, None], "a single model is its own worst and best")
    assert (values["oracle"] >= certified.lower_N - 0.01).all() and (values["oracle"] <= certified.upper_N + 0.01).all()
    assert values["most_likely_state"].mean() < values["oracle"].mean()


@pytest.mark.slow
def test_rewards_that_are_hidden_stay_hidden():
    """Nothing that a learner reads depends on them; an oracle that saw them would know more."""
    tasks = draw_tasks(FAMILY, jax.random.key(0), 4, COARSE)
    assert not np.asarray(record(FAMILY, tasks, jnp.arange(4), jax.random.key(1), "uniform", 3, 0.0).reward).any()
    nearly_blind = dict(horizon=6, fidelity=0.1)
    lower_upper = {}
    for shows_reward in (True, False):
        family = make_family("energy_pomdp", shows_reward=shows_reward, **nearly_blind)
        problem = draw_problems(family, jax.random.key(0), 4)
        lower_upper[shows_reward] = certify(problem, COARSE, jax.random.key(1))
    assert lower_upper[True].lower_N.mean() > lower_upper[False].upper_N.mean(), "rewards tell of the level"


def test_a_pool_gives_episodes_of_one_task_in_each_row_and_the_same_at_every_start():
    context = ContextConfig(2, "oracle")
    recorder = Labelled(context, "mixture", LabelConfig())
    pools = [EpisodePool(FAMILY, recorder, 16, jax.random.key(0), make_mesh(), COARSE, 6) for _ in range(2)]
    rows = pools[0].batch(3)
    assert rows.action.shape == (16, 3, 4) and rows.q.shape == (16, 3, 4, 3)
    jax.tree.map(np.testing.assert_array_equal, rows, pools[1].batch(3))
    assert (np.asarray(pools[0].batch(4).action) != np.asarray(rows.action)).any()
    shown_NE, query_NE = pools[0]._episodes
    assert shown_NE.action.shape == (6, EPISODES, 4)
    for row in range(16):
        kept = [
            {i for i in range(6) if (np.asarray(part.observation[i]) == np.asarray(episode)).all(-1).any()}
            for part, episode in zip((shown_NE, shown_NE, query_NE), rows.observation[row])
        ]
        assert set.intersection(*kept), "all episodes of a row are of one task"


def test_full_fidelity_is_the_chain_that_is_shown():
    problem = draw_problems(make_family("energy_pomdp", horizon=4, fidelity=1.0), jax.random.key(0), 5)
    exact = certify(problem.mdp, COARSE, jax.random.key(1)).lower_N
    hidden = certify(problem, COARSE, jax.random.key(1))
    np.testing.assert_allclose(hidden.lower_N, exact, atol=1e-9)
    np.testing.assert_allclose(hidden.upper_N, exact, atol=1e-9)


@pytest.mark.slow
def test_members_of_a_cloud():
    family = make_family("energy_apomdp", horizon=3, n_models=3, pessimism=1.0)
    config = EvaluationConfig(tasks=3, episodes=50, rows=1000)
    test = draw_unseen(family, ContextConfig(1, "oracle"), config, COARSE, jax.random.key(0))
    deciders = references(test)
    values = {
        name: measure(test, deciders[name], config, make_mesh())[0] for name in ("oracle", "nominal_oracle", "qmdp")
    }
    members = {name: measure_members(test, deciders[name], config, make_mesh(), v) for name, v in values.items()}
    assert test.certified.method == "recursive alpha-maxmin" and members["oracle"].shape == (3, 3)
    found = summarize_members(members["qmdp"], members["oracle"])
    assert found["worst_value"]["mean"] <= values["qmdp"].mean() <= found["best_value"]["mean"]
    assert test.counted_from == "nominal_oracle"
    assert values["nominal_oracle"].mean() >= values["oracle"].mean() - 0.01, "caution costs under the nominal model"
    assert members["oracle"].min(1).mean() >= members["nominal_oracle"].min(1).mean() - 0.01, "and pays under the worst"
    same = summarize_members(members["oracle"], members["oracle"])
    assert same["worst_gap"]["mean"] == same["best_gap"]["mean"] == 0


@pytest.mark.parametrize(
    "change, message",
    [
        ({"context.episodes": EPISODES + 1}, "at most 32"),
        ({"data": "log.parquet"}, "recorded data need a family that shows it"),
        ({"test_oracle.points": 0}, "test_oracle.points 0"),
    ],
)
def test_settings_that_hidden_states_do_not_allow(change, message):
    config = energy_pomdp.get_config()
    config.update_from_flattened_dict(change)
    with pytest.raises(UserError, match=message):
        Settings.from_config(config)


def test_gaps_below_the_bracket_are_marked():
    policies = {"a": {"gap": {"mean": 0.004}}, "b": {"gap": {"mean": 0.02}}, "c": {"value": {"mean": 1.0}}}
    mark_below_bracket(policies, 0.01)
    assert policies["a"]["gap"]["below_bracket"] and "below_bracket" not in policies["b"]["gap"]
