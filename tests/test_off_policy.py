"""Off-policy estimators against exact truth: all trajectories of a tiny problem, and ICU-Sepsis."""

import importlib.util
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from icdm.errors import UserError
from icdm.evaluation.off_policy import (
    LoggedEpisodes,
    cumulative_ratios,
    doubly_robust_steps,
    estimated_behavior,
    fitted_q,
    mean_by_observation,
    off_policy_values,
    self_normalised,
    untried,
)
from icdm.families.icu_sepsis import nominal_mdp
from icdm.oracles.backward_induction import evaluate, plan, policy_value
from icdm.problems.family import make_family
from icdm.problems.mdp import make_mdp
from icdm.problems.policy import MarkovPolicy
from icdm.trajectories.rollout import rollout


@pytest.fixture
def tiny():
    rng = np.random.default_rng(0)
    transition = rng.dirichlet([1, 1], (2, 2))
    mdp = make_mdp(transition, rng.uniform(size=(2, 2)), [0.3, 0.7], discount=0.9, horizon=3)
    behavior, target = rng.dirichlet([2, 2], (3, 2)), rng.dirichlet([1, 1], (3, 2))
    return mdp, behavior, target


def every_trajectory(mdp, behavior_TSA):
    """All trajectories under the behaviour with their probabilities."""
    T, S, A = behavior_TSA.shape
    rows, probability = [], []
    for states in itertools.product(range(S), repeat=T + 1):
        for actions in itertools.product(range(A), repeat=T):
            p = mdp.initial[states[0]]
            for t, a in enumerate(actions):
                p *= behavior_TSA[t, states[t], a] * mdp.transition[a, states[t], states[t + 1]]
            rows.append((states, actions))
            probability.append(p)
    states, actions = (np.array(x) for x in zip(*rows))
    t = np.arange(T)
    reward, taken = mdp.reward[states[:, :-1], actions], behavior_TSA[t, states[:, :-1], actions]
    log = LoggedEpisodes(states, actions, reward, np.ones(actions.shape, bool), taken, S, A, float(mdp.discount))
    return log, np.array(probability)


def exact(mdp, policy_TSA):
    batch = jax.tree.map(lambda x: np.asarray(x)[None], mdp)
    return float(policy_value(batch, policy_TSA[None])[0])


def test_estimators_are_unbiased(tiny):
    mdp, behavior, target = tiny
    log, p = every_trajectory(mdp, behavior)
    truth = exact(mdp, target)
    target_ETA = target[np.arange(3), log.observation[:, :-1]]
    weight = cumulative_ratios(log, target_ETA)
    paid = log.reward * 0.9 ** np.arange(3)
    assert p @ (weight[:, -1] * paid.sum(1)) == pytest.approx(truth, abs=1e-12)
    assert p @ (weight * paid).sum(1) == pytest.approx(truth, abs=1e-12)
    residual, expected = doubly_robust_steps(log, target_ETA, target)
    before = np.concatenate([np.ones((log.n, 1)), weight[:, :-1]], 1)
    assert p @ (weight * residual + before * expected).sum(1) == pytest.approx(truth, abs=1e-12)
    # With every trajectory as often as it occurs the weights add up to 1: the self-normalised estimates are exact too.
    assert self_normalised(p[None], weight, paid)[0] == pytest.approx(truth, abs=1e-12)
    both = self_normalised(p[None], weight, residual) + self_normalised(p[None], before, expected)
    assert both[0] == pytest.approx(truth, abs=1e-12)
    assert abs(p @ paid.sum(1) - truth) > 1e-3  # the behaviour's own value is another


def test_the_wrong_ratio_is_biased(tiny):
    """Doubly robust with rho_{0:t-1} in both places, a common slip, misses the truth."""
    mdp, behavior, target = tiny
    log, p = every_trajectory(mdp, behavior)
    target_ETA = target[np.arange(3), log.observation[:, :-1]]
    weight = cumulative_ratios(log, target_ETA)
    q_ETA = fitted_q(log, target, p)[np.arange(3), log.observation[:, :-1]]
    taken = np.take_along_axis(q_ETA, log.action[..., None], -1)[..., 0]
    before = np.concatenate([np.ones((log.n, 1)), weight[:, :-1]], 1)
    slip = (0.9 ** np.arange(3) * before * (log.reward - taken + (target_ETA * q_ETA).sum(-1))).sum(1)
    assert abs(p @ slip - exact(mdp, target)) > 1e-3


def test_fitted_q_is_exact_on_all_trajectories(tiny):
    mdp, _, target = tiny
    log, p = every_trajectory(mdp, np.full((3, 2, 2), 0.5))
    with jax.enable_x64(True):
        q, _ = evaluate(jax.tree.map(jnp.asarray, mdp), jnp.asarray(target))
    np.testing.assert_allclose(fitted_q(log, target, p), q, atol=1e-12)


def test_behaviour_is_estimated_by_frequencies(tiny):
    mdp, behavior, _ = tiny
    log, _ = every_trajectory(mdp, behavior)
    found = estimated_behavior(log.observation, log.action, log.valid, 2, 2)
    np.testing.assert_allclose(found, 0.5)


def random_log(rng, n=60, T=4, S=3, A=3):
    """Episodes of different lengths, some of which only stopped being recorded."""
    valid = np.arange(T) < rng.integers(1, T + 1, (n, 1))
    log = LoggedEpisodes(
        np.where(np.arange(T + 1) <= valid.sum(1, keepdims=True), rng.integers(0, S, (n, T + 1)), S),
        rng.integers(0, A, (n, T)),
        rng.normal(size=(n, T)),
        valid,
        np.where(valid, rng.uniform(0.1, 1, (n, T)), 1.0),
        *(S, A, 0.9),
        terminal=valid & ~np.pad(valid[:, 1:], [(0, 0), (0, 1)]) & (rng.random((n, 1)) < 0.5),
    )
    return log, rng.dirichlet(np.ones(A), (n, T))


def test_estimates_are_their_formulas_step_by_step():
    """The sums of the docstring, written out for one episode and one step at a time."""
    log, target = random_log(np.random.default_rng(0))
    q = [fitted_q(log[1 - fold :: 2], None, np.ones(30)) for fold in range(2)]
    for clip in (np.inf, 1.5):
        found = off_policy_values(log, target, clip=clip)
        n, T = log.action.shape
        weight = np.ones((n, T + 1))  # rho_{0:t} stands at t + 1
        sums = dict.fromkeys(("pdis", "pdwis", "dr", "wdr"), 0.0)
        for i, t in itertools.product(range(n), range(T)):
            ratio = target[i, t, log.action[i, t]] / log.behavior[i, t] if log.valid[i, t] else 1.0
            weight[i, t + 1] = weight[i, t] * ratio
        weight = np.minimum(weight, np.where(np.arange(T + 1) == 0, 1.0, clip))
        for i, t in itertools.product(range(n), range(T)):
            if not log.valid[i, t]:
                continue
            w, before = weight[i, t + 1] / n, weight[i, t] / n
            own, own_before = weight[i, t + 1] / weight[:, t + 1].sum(), weight[i, t] / weight[:, t].sum()
            state, reward = log.observation[i, t], 0.9**t * log.reward[i, t]
            value = target[i, t] @ q[i % 2][t, state]
            left = log.reward[i, t] - q[i % 2][t, state, log.action[i, t]]
            if log.last[i, t] and not log.terminal[i, t] and t + 1 < T and log.observation[i, t + 1] < 3:
                left += 0.9 * target[i, t + 1] @ q[i % 2][t + 1, log.observation[i, t + 1]]
            sums["pdis"] += w * reward
            sums["pdwis"] += own * reward
            sums["dr"] += 0.9**t * (w * left + before * value)
            sums["wdr"] += 0.9**t * (own * left + own_before * value)
        for name, value in sums.items():
            assert found[name]["mean"] == pytest.approx(value, abs=1e-12), name
            assert found[name]["ci95"][0] < value < found[name]["ci95"][1]
        whole = weight[:, -1]
        assert found["pdwis"]["effective_sample_size"] == pytest.approx(whole.sum() ** 2 / (whole @ whole))


def test_a_policy_of_the_past_is_averaged_and_what_was_never_tried_is_counted():
    observation, valid = np.array([[0, 0, 1], [1, 0, 2]]), np.array([[True, True], [True, False]])
    chance = np.array([[[0.2, 0.8], [0.6, 0.4]], [[1.0, 0.0], [0.5, 0.5]]])
    mean = mean_by_observation(observation, valid, chance, 3)
    np.testing.assert_allclose(mean, [[0.4, 0.6], [1, 0], [0.5, 0.5]])
    log = LoggedEpisodes(observation, np.array([[1, 1], [1, 0]]), valid * 1.0, valid, np.ones((2, 2)), 3, 2)
    np.testing.assert_allclose(untried(log, chance), [0.8 / 3, 1 / 3, 0])


def test_bad_logs_are_refused(tiny):
    mdp, behavior, target = tiny
    log, _ = every_trajectory(mdp, behavior)
    with pytest.raises(UserError, match="behavior_probability 0 of episode 3, step 1"):
        bad = log.behavior.copy()
        bad[3, 1] = 0
        LoggedEpisodes(log.observation, log.action, log.reward, log.valid, bad, 2, 2)
    with pytest.raises(UserError, match="target has shape"):
        off_policy_values(log, np.ones((1, 1, 2)))


def two_steps_at_most(end, recorded):
    """A step pays 1; action 0 ends the episode in the observation `end`, action 1 stays in 0. All four pairs of
    actions, equally often; uniformly random actions are worth 1 + 1 / 2."""
    first, second = np.divmod(np.arange(400) % 4, 2)
    over = first == 0
    observation = np.stack([np.zeros(400, int), np.where(over, end, 0), np.where(over, 2, np.where(second, 0, end))], 1)
    valid = np.stack([np.ones(400, bool), ~over], 1)
    action = np.stack([first, np.where(over, 0, second)], 1)
    terminal = np.stack([over, ~over & (second == 0)], 1) if recorded else None
    half = np.full((400, 2), 0.5)
    return LoggedEpisodes(observation, action, valid.astype(float), valid, half, 2, 2, terminal=terminal)


@pytest.mark.parametrize("recorded", [True, False])
@pytest.mark.parametrize("end", [1, 2])
def test_nothing_follows_a_terminal_step_even_if_it_is_step_t(end, recorded):
    found = off_policy_values(two_steps_at_most(end, recorded), np.full((400, 2, 2), 0.5), np.full((1, 2, 2), 0.5))
    assert found["fqe"]["mean"] == pytest.approx(1.5, abs=1e-12)
    assert found["dr"]["mean"] == pytest.approx(1.5, abs=1e-12)


def test_recording_that_stops_is_no_end():
    """Estimates that look ahead are those of whole episodes, whatever share of them is cut."""
    paid, T = np.array([[1.0, 0.0], [0.0, 3.0]]), 3  # action a leads to state a
    actions = np.repeat(np.array(list(itertools.product(range(2), repeat=T))), 2, axis=0)
    states = np.concatenate([np.zeros((16, 1), int), actions], 1)
    reward = paid[states[:, :-1], actions]
    target = np.array([[0.3, 0.7], [0.6, 0.4]])

    def log(n_valid, ends):
        valid = np.broadcast_to(np.arange(T) < n_valid[:, None], (16, T))
        seen = np.where(np.arange(T + 1) <= n_valid[:, None], states, 2)
        terminal = ends & (np.arange(T) == n_valid[:, None] - 1)
        half = np.full((16, T), 0.5)
        return LoggedEpisodes(seen, actions, reward, valid, half, 2, 2, 0.9, terminal=terminal)

    def values(log):
        of_steps = np.concatenate([target, [[0.5, 0.5]]])[log.observation[:, :-1]]
        q = fitted_q(log, target[None], np.ones(16))
        residual, expected = doubly_robust_steps(log, of_steps, target[None])
        weight = cumulative_ratios(log, of_steps)
        before = np.concatenate([np.ones((16, 1)), weight[:, :-1]], 1)
        return (target[0] * q[0, 0]).sum(), (weight * residual + before * expected).sum(1).mean()

    whole = values(log(np.full(16, T), False))
    assert whole == pytest.approx((whole[0], whole[0]), abs=1e-12)
    some = np.repeat(np.array([3, 1, 3, 2, 1, 3, 2, 3]), 2)
    fitted, robust = values(log(some, False))
    assert fitted == pytest.approx(whole[0], abs=1e-12) and robust == pytest.approx(whole[0], abs=1e-12)
    assert values(log(some, True))[0] < whole[0] - 0.1  # were the same steps the ends of their episodes


def test_steps_after_a_terminal_one_are_refused():
    log = two_steps_at_most(1, True)
    with pytest.raises(UserError, match="terminal of episode 2, step 0: the episode goes on"):
        terminal = log.terminal.copy()
        terminal[2, 0] = True
        LoggedEpisodes(log.observation, log.action, log.reward, log.valid, log.behavior, 2, 2, terminal=terminal)


def icu_log(n_episodes=2000, horizon=10):
    family = make_family("icu_sepsis", horizon=horizon)
    with jax.enable_x64(True):
        problem = jax.tree.map(lambda x: jnp.asarray(x)[None], nominal_mdp(family.horizon))
    q_SA = np.asarray(plan(problem))[0, 0]
    expert = family.expert
    target = expert * np.exp((q_SA - q_SA.max(-1, keepdims=True)) / 0.02)
    target /= target.sum(-1, keepdims=True)
    small = jax.tree.map(lambda x: x.astype(jnp.float32) if x.dtype == jnp.float64 else x, problem)
    policy = MarkovPolicy(jnp.asarray(expert, jnp.float32)[None, None])
    found = jax.jit(rollout)(small, jnp.zeros(n_episodes, jnp.int32), policy, jax.random.key(0))
    observation, action, reward, valid = (
        np.asarray(x) for x in (found.observation, found.action, found.reward, found.valid)
    )
    behavior = np.where(valid, expert[observation[:, :-1], action], 1.0)
    log = LoggedEpisodes(observation, action, reward.astype(np.float64), valid, behavior, 716, 25)

    def value(policy):
        return float(policy_value(problem, policy[None, None])[0])

    return log, target, value(target), value(expert)


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("icu_sepsis") is None, reason="needs the extra clinical")
def test_icu_sepsis_from_the_clinicians_log():
    log, target, truth, expert = icu_log()
    assert truth - expert > 0.003  # another policy, and a better one
    found = off_policy_values(log, target[log.observation[:, :-1]], target[None])
    for name, estimate in found.items():
        low, high = estimate["ci95"]
        error = (high - low) / 3.92
        assert abs(estimate["mean"] - truth) <= 4 * error, (name, estimate, truth)
        assert error < 0.05
    assert found["dr"]["ci95"][1] - found["dr"]["ci95"][0] < found["is"]["ci95"][1] - found["is"]["ci95"][0]
    assert 100 < found["is"]["effective_sample_size"] < log.n
