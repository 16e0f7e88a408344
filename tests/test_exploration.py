"""Exploration from nothing: every decider reads its own earlier episodes, beside an independent simulation."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.configs import base
from experiments.experiment import run
from icdm.errors import UserError
from icdm.evaluation.exploration import explore, nothing_yet
from icdm.evaluation.unseen import EvaluationConfig, draw_unseen
from icdm.oracles.certify import OracleConfig
from icdm.problems.family import make_family
from icdm.problems.policy import MarkovPolicy
from icdm.readers.counts_planners import CountsPlanner
from icdm.readers.q_learning import learned_q
from icdm.readers.reader import Fixed
from icdm.runs.settings import Settings
from icdm.sharding import make_mesh
from icdm.trajectories.collect import ContextConfig, draw_tasks, play

ARMS, GAP, PULLS, RUNS = 4, 0.4, 30, 600
BANDIT = make_family("bernoulli_bandit", arms=ARMS, gap=GAP)


def never():
    return False


def unseen_of(family, tasks, own_episodes):
    config = EvaluationConfig(tasks=tasks, episodes=1, rows=500, own_episodes=own_episodes)
    return config, draw_unseen(family, ContextConfig(1, "uniform"), config, OracleConfig(), jax.random.key(0))


@pytest.fixture(scope="module")
def thompson():
    """Number of pulls of the best arm, arm 0, by Thompson sampling in each of RUNS runs, simulated with NumPy."""
    rng = np.random.default_rng(1)
    chance_A = np.where(np.arange(ARMS) == 0, 1 + GAP, 1 - GAP) / 2
    wins_BA, losses_BA = np.zeros((RUNS, ARMS)), np.zeros((RUNS, ARMS))
    for _ in range(PULLS):
        arm_B = rng.beta(1 + wins_BA, 1 + losses_BA).argmax(1)
        won_B = rng.random(RUNS) < chance_A[arm_B]
        np.add.at(wins_BA, (np.arange(RUNS), arm_B), won_B)
        np.add.at(losses_BA, (np.arange(RUNS), arm_B), ~won_B)
    return (wins_BA + losses_BA)[:, 0]


def same_mean(first, second):
    """Whether two samples may have the same mean, by four standard errors."""
    error = np.sqrt(first.var() / len(first) + second.var() / len(second))
    return abs(first.mean() - second.mean()) < 4 * error


@pytest.mark.slow
def test_posterior_sampling_before_every_pull_is_thompson_sampling(thompson):
    config, unseen = unseen_of(BANDIT, RUNS, PULLS)
    found = explore(unseen, CountsPlanner(BANDIT, "posterior_sampling"), config, make_mesh(), never)
    assert same_mean(found["optimal"].sum(1), thompson)
    np.testing.assert_allclose(found["regret"], GAP * (1 - found["optimal"]), atol=1e-6)
    assert found["optimal"][:, 0].mean() == pytest.approx(1 / ARMS, abs=0.08)


def test_the_behavior_that_learns_is_posterior_sampling(thompson):
    tasks = draw_tasks(BANDIT, jax.random.key(0), RUNS)
    episodes = play(BANDIT, tasks, jnp.arange(RUNS), jax.random.key(1), "posterior_sampling", PULLS, 0.0)
    best_B = np.asarray(tasks.problem.reward[:, 0]).argmax(1)
    pulls_B = (np.asarray(episodes.action)[..., 0] == best_B[:, None]).sum(1)
    assert same_mean(pulls_B, thompson)


@dataclasses.dataclass(frozen=True)
class Counting:
    """Takes the action whose number is that of the episodes read so far."""

    def policy(self, tasks, task_B, context, key):
        read_B = context.valid.any(-1).sum(-1)
        return MarkovPolicy(jax.nn.one_hot(read_B % ARMS, ARMS)[:, None, None], index=jnp.arange(task_B.size))


def test_all_earlier_episodes_are_read():
    config, unseen = unseen_of(BANDIT, 10, 2 * ARMS)
    found = explore(unseen, Counting(), config, make_mesh(), never)
    for name, expected in {"tried": 1, "least_pulled": 1, "suffix_failure": 0}.items():
        np.testing.assert_allclose(found[name], expected)
    np.testing.assert_allclose(found["optimal"].sum(1), 2)


def test_q_learning_replays_what_was_done_in_order():
    """Beside a loop in Python; episodes that did not take place change nothing."""
    family = make_family("random_mdp", states=3, actions=2, horizon=4, discount=0.9)
    tasks = draw_tasks(family, jax.random.key(0), 1)
    own = play(family, tasks, jnp.zeros(1, int), jax.random.key(1), "uniform", 6, 0.0)
    T, gamma = family.horizon, family.discount
    highest = [sum(gamma**k for k in range(T - t)) for t in range(T + 1)]
    q, n = {}, {}
    for steps in zip(*(np.asarray(x)[0] for x in own.steps)):
        for t, (s, a, r, arrival) in enumerate(zip(*steps)):
            n[t, s, a] = n.get((t, s, a), 0) + 1
            value = min(max(q.get((t + 1, arrival, b), highest[t + 1]) for b in range(2)), highest[t + 1])
            rate = (T + 1) / (T + n[t, s, a])
            target = r + gamma * value + 0.5 / np.sqrt(n[t, s, a])
            q[t, s, a] = (1 - rate) * q.get((t, s, a), highest[t]) + rate * target
    empty = nothing_yet(1, 2, T)
    found = learned_q(family, jax.tree.map(lambda x, y: jnp.concatenate([x[0], y[0]]), empty, own))
    for t, s, a in np.ndindex(found.shape):
        assert found[t, s, a] == pytest.approx(q.get((t, s, a), highest[t]), abs=1e-4)


def test_regret_is_what_the_exact_value_lacks():
    family = make_family("random_mdp", states=3, actions=2, horizon=4, discount=0.9)
    config, unseen = unseen_of(family, 50, 40)
    policy = MarkovPolicy(jnp.full((1, 1, 3, 2), 0.5))
    found = explore(unseen, Fixed(policy), config, make_mesh(), never)
    assert found["regret"].shape == (50, 40)
    difference_N = found["regret"].mean(1) - (unseen.world.start_N - unseen.random_N)
    assert np.abs(difference_N).max() < 0.35 and abs(difference_N.mean()) < 0.03
    assert "suffix_failure" not in found


def config(**evaluation):
    c = base.get_config()
    c.family, c.horizon, c.problem = "bernoulli_bandit", 1, dict(arms=3)
    c.context.update(episodes=2, behavior="posterior_sampling")
    c.query_behavior = "posterior_sampling"
    c.model.update(width=16, layers=1, heads=2, kv_heads=2, hidden=16, max_length=32)
    c.pretrain.update(steps=0, mixture=())
    c.fine_tune.update(steps=2, batch=4, labels="argmax")
    c.evaluation.update(tasks=6, episodes=1, own_episodes=4, **evaluation)
    return c


@pytest.mark.slow
def test_a_run_reports_how_its_model_explores(tmp_path, capsys):
    results = run(config(), tmp_path)
    explored = results["exploration"]
    assert {"fine_tuned", "fine_tuned_sampled", "posterior_sampling", "uniform"} <= explored.keys()
    assert len(explored["fine_tuned"]["by_episode"]) == 4
    assert "from nothing, 4 episodes" in capsys.readouterr().out
    assert "From nothing: share of optimal decisions" in (tmp_path / "report.html").read_text()
    assert run(config(), tmp_path)["exploration"] == json.loads(json.dumps(explored))


def test_what_cannot_be_explored_is_refused():
    c = config()
    c.evaluation.own_episodes = 40
    with pytest.raises(UserError, match="positions, the model's limit is 32"):
        Settings.from_config(c)
    c = config()
    c.family, c.problem, c.context.behavior, c.query_behavior = "tiger", {}, "oracle", "oracle"
    with pytest.raises(UserError, match="evaluation.own_episodes needs"):
        Settings.from_config(c)
    c.evaluation.own_episodes, c.context.behavior = 0, "posterior_sampling"
    with pytest.raises(UserError, match="computes no posterior to sample from"):
        Settings.from_config(c)
    with pytest.raises(UserError, match="at least 2 arms"):
        make_family("bernoulli_bandit", arms=1)
