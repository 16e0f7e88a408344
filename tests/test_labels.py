"""Labels of logs that have no oracle."""

import dataclasses
import statistics

import numpy as np
import pytest

from icdm.errors import UserError
from icdm.evaluation.logged import held_out_sequences
from icdm.logs.labels import best_episodes, pessimistic_q, relabelled
from icdm.logs.log import hold_out, log_of
from icdm.logs.table import NOTHING, Rows
from icdm.problems.family import make_family

FAMILY = make_family("recorded", states=3, actions=2, horizon=2)


def log_from(episodes):
    """A log of one task from [(observation, action, reward), ...] lists, without closing rows."""
    flat = [(0, e, t, *step) for e, steps in enumerate(episodes) for t, step in enumerate(steps)]
    task, episode, t, observation, action, reward = (np.array(x) for x in zip(*flat))
    n = len(t)
    nothing, unknown = np.full(n, NOTHING), np.full(n, np.nan)
    return log_of([Rows(task, episode, t, observation, action, reward, nothing, unknown, np.zeros(n, bool))], 3)


# In state 0 action 0 pays 0.6 for sure, over 200 tries; action 1 was tried once and paid 1.
LOG = log_from([[(0, 0, 0.6), (1, 0, 0.5)]] * 200 + [[(0, 1, 1.0), (2, 1, 0.0)]])


def test_imitation_takes_the_recorded_actions():
    np.testing.assert_array_equal(relabelled(LOG, "imitation", FAMILY).label, LOG.action)


def test_best_return_takes_the_best_episodes_alone():
    log = log_from([[(0, 0, 0.1)], [(0, 1, 0.9)], [(0, 0, 0.2)], [(0, 0, 0.3)]])
    assert best_episodes(log, log.contexts[0], log.contexts[0]).tolist() == [1]
    assert relabelled(log, "best_return", FAMILY).label.tolist() == [NOTHING, 1, NOTHING, NOTHING]


def test_pessimism_distrusts_what_was_tried_once():
    label = relabelled(LOG, "pessimistic", FAMILY).label
    assert (label[LOG.observation == 0] == 0).all()
    reward = LOG.reward[(LOG.observation == 0) & (LOG.action == 1)].mean()
    assert reward > 0.6  # plain averages would choose the other action


def test_pessimistic_values_approach_the_truth_with_data():
    q = pessimistic_q(log_from([[(0, 0, 0.6), (1, 0, 0.5)]] * 50_000), np.arange(50_000), 0.0, 1.0)
    assert q[0, 0, 0] == pytest.approx(1.1, abs=0.03) and q[0, 0, 0] < 1.1


def test_pessimistic_values_are_their_formula_pair_by_pair():
    """Value iteration over lists of steps; episodes of 1 to 3 steps of which the shorter ones have ended."""
    rng, T, S, A = np.random.default_rng(0), 3, 3, 2
    episodes = [
        [(int(rng.integers(S)), int(rng.integers(A)), float(rng.random())) for _ in range(rng.integers(1, T + 1))]
        for _ in range(40)
    ]
    episodes.append([(0, 1, 0.5)] * T)
    found = pessimistic_q(log_from(episodes), np.arange(len(episodes)), 0.0, 1.0)
    steps = [  # (s, a, r, s'), in which None is the end and "?" was not recorded
        (*step, episode[t + 1][0] if t + 1 < len(episode) else None if len(episode) < T else "?")
        for episode in episodes
        for t, step in enumerate(episode)
    ]
    z, v = statistics.NormalDist().inv_cdf(1 - 0.1 / (A * T)), dict.fromkeys([*range(S), None], 0.0)
    for t in reversed(range(T)):
        y, mean = {}, {}
        for s, a in {step[:2] for step in steps}:
            mine = [step for step in steps if step[:2] == (s, a)]
            future = np.mean([v[after] for *_, after in mine if after != "?"])
            y[s, a] = [r + (future if after == "?" else v[after]) for _, _, r, after in mine]
            mean[s, a] = np.mean([r for _, _, r, _ in mine]) + future
        every = np.concatenate(list(y.values()))
        within = sum(((np.array(y[pair]) - mean[pair]) ** 2).sum() for pair in y)
        sigma = np.sqrt((within + len(y) * every.var()) / (len(every) + len(y)))
        for (s, a), values in y.items():
            assert found[t, s, a] == pytest.approx(mean[s, a] - z * sigma / np.sqrt(len(values)), abs=1e-6)
        v |= {s: float(np.clip(max(found[t, s]), 0, T - t)) for s in range(S)}


def test_recording_that_stops_is_not_an_end():
    many = np.arange(50_000)
    stops = log_from([[(0, 0, 1.0), (0, 0, 1.0)]] * len(many))
    assert pessimistic_q(stops, many, 0.0, 1.0)[0, 0, 0] == pytest.approx(2.0, abs=0.05)
    ends = dataclasses.replace(stops, terminal=np.arange(len(stops.action)) % 2 == 1)
    assert pessimistic_q(ends, many, 0.0, 1.0)[0, 0, 0] == pytest.approx(1.5, abs=0.05)


def test_held_out_episodes_of_a_task_are_labelled_by_what_was_fitted_to_the_others():
    """In the others action 0 pays, in every tenth episode action 1 does, and an observation of its own is there."""
    episodes = []
    for e in range(200):
        held, action = e % 10 == 9, e // 10 % 2
        episodes.append([(0, action, float(action == held)), (2 if held else 1, action, 0.5)])
    train, test = hold_out(log_from(episodes))
    assert (
        test.contexts[0].tolist() == list(range(9, 200, 10)) and test.fitted[0].tolist() == train.contexts[0].tolist()
    )
    assert set(np.intersect1d(train.rows(), test.rows())) == set()
    labels = {name: relabelled(test, name, FAMILY).label[test.rows()] for name in ("pessimistic", "best_return")}
    assert labels["pessimistic"].tolist() == [0, NOTHING] * 20  # the others do not have observation 2
    assert (relabelled(train, "pessimistic", FAMILY).label[train.rows()[::2]] == 0).all()
    acted = test.action[test.rows()]  # those who took action 1 earned 1.5, as much as the best of the others
    assert labels["best_return"].tolist() == np.where(acted == 1, 1, NOTHING).tolist()
    poor = log_from([[(0, 0, 0.0 if e % 10 == 9 else 1.0), (1, 0, 0.0)] for e in range(20)])
    assert (relabelled(hold_out(poor)[1], "best_return", FAMILY).label == NOTHING).all()


def test_held_out_tasks_are_labelled_by_their_own_episodes():
    logs = [log_from([[(0, 0, 1.0 - task), (0, 1, float(task))]] * 20) for task in range(2)]
    both = log_of([rows_of(log, task) for task, log in enumerate(logs)], 3)
    train, test = hold_out(both)
    assert (train.n_tasks, test.n_tasks) == (1, 1) and test.fitted[0].tolist() == test.contexts[0].tolist()
    assert (relabelled(test, "pessimistic", FAMILY).label[test.rows()] == 1).all()


def rows_of(log, task):
    n, first = len(log.action), np.repeat(np.arange(len(log.steps)), log.steps)
    t, nothing = np.arange(n) - log.first[first], np.full(n, NOTHING)
    known = (log.observation, log.action, log.reward, nothing, np.full(n, np.nan), np.zeros(n, bool))
    return Rows(np.full(n, task), first, t, *known)


@pytest.mark.parametrize("share,n,held", [(0.1, 30, [9, 19, 29]), (0.5, 5, [1, 3]), (0.25, 4, [3])])
def test_a_share_is_held_out_evenly(share, n, held):
    train, test = hold_out(log_from([[(0, 0, 0.0)]] * n), share)
    assert test.contexts[0].tolist() == held and sorted([*train.contexts[0], *held]) == list(range(n))
    with pytest.raises(UserError, match=f"a single task with 1 episodes: at least .* to hold {share:.0%} out"):
        hold_out(log_from([[(0, 0, 0.0)]]), share)


def test_every_held_out_episode_of_a_task_has_a_sequence_in_which_it_alone_counts():
    log = relabelled(log_from([[(0, 0, 0.5), (e % 3, 1, 0.5)] for e in range(40)]), "imitation", FAMILY)
    _, test = hold_out(log)
    found = held_out_sequences(test, 2, seed=0, independent_steps=False)
    assert found.label.shape == (4, 3, 3) and (found.label[:, :2] == NOTHING).all()
    assert found.label[:, 2].tolist() == [[0, 1, NOTHING]] * 4
    assert found.trajectories.observation[:, 2, 1].tolist() == [e % 3 for e in range(9, 40, 10)]
    test.label[test.rows()[:2]] = NOTHING  # of the first of them
    assert len(held_out_sequences(test, 2, seed=0, independent_steps=False).label) == 3


def test_an_absent_oracle_is_told():
    with pytest.raises(UserError, match="no oracle_action: set config.data_labels to imitation"):
        relabelled(LOG, "oracle", FAMILY)
    with pytest.raises(UserError, match="did you mean 'imitation'"):
        relabelled(LOG, "imitate", FAMILY)
    labelled = dataclasses.replace(LOG, label=np.zeros_like(LOG.label))
    assert relabelled(labelled, "oracle", FAMILY) is labelled
