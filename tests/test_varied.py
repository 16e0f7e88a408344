"""One model of many families: rows of a mixture, their layouts and labels."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from icdm.errors import UserError
from icdm.families.random_mdp import RandomMDP
from icdm.learning.objectives import Advantage, LabelConfig
from icdm.learning.planned import Planned
from icdm.learning.sources import Labelled
from icdm.learning.varied import Levelled, Renamed, Shortened
from icdm.problems.family import make_family, sample_tasks
from icdm.readers.replanning import Replanning
from icdm.trajectories.collect import ContextConfig, draw_tasks
from icdm.trajectories.layouts import make_layout
from icdm.trajectories.prompt import encode
from icdm.trajectories.trajectory import NOTHING

FAMILY = RandomMDP(states=4, actions=3, horizon=5)
B, K = 16, 3
LABELS = LabelConfig("advantage", 0.1)
PLAIN = Labelled(ContextConfig(K, "uniform"), "mixture", LABELS)


@pytest.fixture(scope="module")
def tasks():
    return draw_tasks(FAMILY, jax.random.key(3), B)


def lesson_of(recorder, tasks, key=4):
    return jax.jit(lambda key: recorder(FAMILY, tasks, jnp.arange(B), key))(jax.random.key(key))


def test_rows_lose_some_of_their_first_episodes_whole(tasks):
    short = lesson_of(Shortened(PLAIN), tasks).trajectories
    there = np.asarray(short.observation != NOTHING)
    assert (there.all(-1) == there.any(-1)).all()
    assert there[:, -1].all(), "the last episode stays"
    assert (np.diff(there[..., 0].astype(int), axis=1) >= 0).all(), "those that stay are the last ones"
    assert not np.asarray(short.valid)[~there[..., 0]].any()
    kept = there[..., 0].sum(1)
    assert (kept == K + 1).sum() >= B // 4 and (kept < K + 1).any()
    assert (
        not encode(make_layout("transition", FAMILY, reward_bins=2), short).tokens.valid[~there.all(-1).all(-1)].all()
    )


def test_names_are_a_relabelling_of_each_row(tasks):
    layout = dataclasses.replace(make_layout("transition", FAMILY, reward_bins=2), n_observations=11)
    plain = Planned(PLAIN, LABELS, "oracle", (1,))
    key = jax.random.split(jax.random.key(4))[0]
    before = jax.jit(lambda key: plain(FAMILY, tasks, jnp.arange(B), key))(key)
    after = lesson_of(Renamed(plain, layout), tasks)
    assert after.layout == layout
    for old, new in zip(np.asarray(before.trajectories.observation), np.asarray(after.trajectories.observation)):
        pairs = {(int(a), int(b)) for a, b in zip(old.ravel(), new.ravel())}
        assert len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})
        assert all(0 <= b < 11 for _, b in pairs)
    assert len({tuple(row.ravel()) for row in np.asarray(after.trajectories.observation)}) == B
    np.testing.assert_array_equal(before.target.q, after.target.q)


def test_every_row_counts_the_same_whatever_its_scale(tasks):
    recorder = Levelled(Planned(PLAIN, LABELS, "oracle", (1,)))
    lesson = lesson_of(recorder, tasks)
    for target in (lesson.target, *lesson.iterates):
        zero = jnp.zeros_like(target.target.q)
        loss = np.where(target.counts, target.losses(zero), 0).sum((1, 2)) / np.asarray(target.counts).sum((1, 2))
        own = np.where(target.counts, target.target.losses(zero), 0).sum((1, 2)) / np.asarray(target.counts).sum((1, 2))
        np.testing.assert_allclose(loss, own / (1 + own), rtol=1e-5)


@pytest.mark.slow
def test_labels_that_read_on_are_the_replanned_posterior_mean(tasks):
    """Beside the policy that is a reference, at every step of the last episode."""
    lesson = lesson_of(Planned(PLAIN, LABELS, "posterior_mean_replanned", (1, 2)), tasks)
    context, own = (jax.tree.map(lambda x: x[:, part], lesson.trajectories) for part in (slice(0, K), K))
    for ahead, target in ((5, lesson.target), (1, lesson.iterates[0]), (2, lesson.iterates[1])):
        assert isinstance(target, Advantage)
        policy = Replanning(FAMILY, ahead).policy(tasks, jnp.arange(B), context, jax.random.key(0))
        carry = policy.init(jnp.arange(B))
        for t in range(FAMILY.horizon):
            _, q, carry = policy.act(carry, own.observation[:, t], jax.random.key(0))
            np.testing.assert_allclose(target.q[:, -1, t], q, atol=1e-5)
            carry = policy.observe(carry, own.action[:, t], own.reward[:, t])
    whole = lesson_of(Planned(PLAIN, LABELS, "posterior_mean", ()), tasks)
    np.testing.assert_allclose(lesson.target.q[:, :-1], whole.target.q[:, :-1], atol=1e-6)


@pytest.mark.parametrize("noise", ["none", "bernoulli", "gaussian"])
def test_tabular_tasks_are_problems_of_many_kinds(noise):
    family = make_family("tabular", states=9, actions=3, horizon=4, noise=noise)
    with jax.enable_x64(True):
        keys = jax.random.split(jax.random.key(0), 200)
        tasks = jax.tree.map(np.asarray, jax.jit(lambda keys: sample_tasks(family, keys))(keys))
    np.testing.assert_allclose(tasks.transition.sum(-1), 1, atol=1e-9)
    np.testing.assert_allclose(tasks.initial.sum(-1), 1, atol=1e-9)
    total = (tasks.reward)[..., None, :] + (tasks.arrival_reward)[:, None, :, None]
    assert total.min() >= -1 and total.max() <= 1.0 + 1e-9 if noise != "gaussian" else True
    if noise == "bernoulli":
        assert (tasks.reward).min() >= 0 and (tasks.reward).max() <= 1
    occurs = (tasks.transition).max((1, 2)) > 0
    sizes = occurs.sum(-1)
    assert sizes.min() >= 1 and sizes.max() == 9 and len(set(sizes.tolist())) > 5
    assert 0.1 < (tasks.terminal).any(-1).mean() < 0.5
    assert not ((tasks.initial)[(tasks.terminal)] > 0).any()
    starts = ((tasks.initial) > 0).sum(-1)
    assert (starts == 1).mean() > 0.3 and (starts > 1).mean() > 0.3
    first = (tasks.initial).argmax(-1)
    assert len(set(first[starts == 1].tolist())) > 5, "codes mean nothing"


def test_tabular_refuses():
    for wrong in (dict(states=0), dict(actions=0), dict(horizon=0), dict(discount=0.0), dict(noise="loud")):
        with pytest.raises(UserError):
            make_family("tabular", **wrong)
