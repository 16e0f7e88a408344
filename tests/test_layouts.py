"""Tokens: every position, mask and target pinned, since off-by-one errors are the classic defect here."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from icdm.errors import UserError
from icdm.problems.family import make_family
from icdm.problems.spaces import Box, Discrete, Grid
from icdm.trajectories.collect import ContextConfig, draw_tasks, record, record_with_context
from icdm.trajectories.layouts import LAYOUTS, make_layout
from icdm.trajectories.prompt import encode, side_by_side
from icdm.trajectories.trajectory import NOTHING, Step, Trajectories


def two_episodes():
    """Observations 10 * episode + t; the first episode ends after 2 of 3 steps."""
    return Trajectories(
        observation=jnp.array([[[0, 1, 2, 2], [3, 4, 5, 6]]], jnp.int32),
        action=jnp.array([[[0, 1, 0], [1, 0, 1]]], jnp.int32),
        reward=jnp.array([[[0.0, 1.0, 0.0], [1.0, 0.0, 1.0]]], jnp.float32),
        valid=jnp.array([[[True, True, False], [True, True, True]]]),
        q=jnp.zeros((1, 2, 3, 2)),
    )


class Family:
    n_actions, horizon, reward_range, observation_space = 2, 3, (0.0, 1.0), Discrete(7)


def test_interleaved_tokens():
    layout = make_layout("interleaved", Family, reward_bins=2)
    tokens = encode(layout, two_episodes()).tokens
    mark, o, a, r = 0, 1, 8, 10
    first = [NOTHING, mark, o + 0, a + 0, r + 0, o + 1, a + 1, r + 1, o + 2]
    second = [NOTHING, mark, o + 3, a + 1, r + 1, o + 4, a + 0, r + 0, o + 5, a + 1, r + 1, o + 6]
    np.testing.assert_array_equal(tokens.id[0, :9, 0], first)
    np.testing.assert_array_equal(tokens.id[0, 12:, 0], second)
    np.testing.assert_array_equal(tokens.valid[0, :12], [False] + [True] * 8 + [False] * 3)
    np.testing.assert_array_equal(tokens.valid[0, 12:], [False] + [True] * 11)


def test_transition_tokens():
    layout = make_layout("transition", Family, reward_bins=2)
    tokens = encode(layout, two_episodes()).tokens
    o, a, n, t = 0, 7, 9, 16
    expected = [
        [NOTHING, NOTHING, n + 0, t + 0],
        [o + 0, a + 0, n + 1, t + 1],
        [o + 1, a + 1, n + 2, t + 2],
    ]
    np.testing.assert_array_equal(tokens.id[0, :3], expected)
    np.testing.assert_array_equal(tokens.id[0, 7], [o + 5, a + 1, n + 6, t + 3])
    np.testing.assert_array_equal(tokens.number[0, :, 0], [0, 0, 1, 0, 0, 1, 0, 1])
    np.testing.assert_array_equal(tokens.valid[0], [True] * 3 + [False] + [True] * 4)


def test_the_context_ends_where_the_last_episode_begins():
    for name, positions in (("interleaved", 12), ("transition", 4)):
        prompt = encode(make_layout(name, Family, reward_bins=2), two_episodes())
        assert prompt.context == prompt.decisions.context == positions
        assert prompt.acting[0, -1] < prompt.context <= prompt.acting[1, 0]


def test_interleaved_targets_are_the_next_tokens():
    layout = make_layout("interleaved", Family, reward_bins=2)
    tokens = encode(layout, two_episodes()).tokens
    [(part, target)] = layout.targets(tokens)
    assert part == slice(0, layout.size)
    np.testing.assert_array_equal(target, tokens.id[..., 0])


def test_transition_targets_are_the_parts_of_the_next_transition():
    layout = make_layout("transition", Family, reward_bins=2)
    tokens = encode(layout, two_episodes()).tokens
    targets = {part.start: np.asarray(target[0]) for part, target in layout.targets(tokens)}
    np.testing.assert_array_equal(targets[layout.slices["action"].start], [NOTHING, 0, 1, 0, NOTHING, 1, 0, 1])
    np.testing.assert_array_equal(targets[layout.slices["reward"].start], [NOTHING, 0, 1, 0, NOTHING, 1, 0, 1])
    np.testing.assert_array_equal(targets[layout.slices["next_observation"].start], [0, 1, 2, 2, 3, 4, 5, 6])


def test_cells_of_a_grid_are_the_sum_of_their_coordinates():
    class Cells(Family):
        observation_space = Grid((2, 3))

    layout = make_layout("transition", Cells, reward_bins=2)
    row, column, a, next_row, next_column, t = 0, 2, 5, 7, 9, 12
    seen, end = jnp.array([4, 5]), jnp.array([2, 6])  # cell (1, 1), then (0, 2); (1, 2), then none
    later = layout.append(jnp.array([1, 2]), Step(seen, jnp.array([1, 0]), jnp.array([0.5, 1.0]), end), end)
    expected = [
        [row + 1, column + 1, a + 1, next_row + 0, next_column + 2, t + 1],
        [row + 1, column + 2, a + 0, NOTHING, NOTHING, t + 2],
    ]
    np.testing.assert_array_equal(later.id[:, 0], expected)
    first = layout.append(jnp.array([0, 0]), Step(seen, seen, jnp.array([0.0, 0.0]), seen), seen)
    np.testing.assert_array_equal(first.id[1, 0], [NOTHING] * 3 + [next_row + 1, next_column + 2, t + 0])
    targets = [(part, target[:, 0].tolist()) for part, target in layout.targets(later)]
    assert targets[2:] == [(slice(7, 9), [0, NOTHING]), (slice(9, 12), [2, NOTHING])]
    assert targets[:2] == [(slice(5, 7), [1, 0]), (slice(16, 18), [0, 1])]


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_model_acts_where_the_observation_of_the_step_stands(name):
    layout = make_layout(name, Family, reward_bins=2)
    prompt = encode(layout, two_episodes())
    kind, component = ("observation", 0) if name == "interleaved" else ("next_observation", 2)
    observed = np.asarray(prompt.tokens.id)[:, prompt.acting, component] - layout.slices[kind].start
    np.testing.assert_array_equal(observed, two_episodes().observation)
    assert prompt.acting.shape == (2, 4) and prompt.decisions.acting.shape == (2, 3)
    valid = np.asarray(prompt.tokens.valid)[0, prompt.decisions.acting]
    np.testing.assert_array_equal(valid[0], [True, True, True])  # the last was observed, though not acted upon
    assert (valid >= np.asarray(two_episodes().valid[0])).all()


@pytest.mark.parametrize("name", LAYOUTS)
def test_acting_step_by_step_appends_what_training_encodes(name):
    layout = make_layout(name, Family, reward_bins=2)
    episode = jax.tree.map(lambda x: x[:, 1:], two_episodes())
    whole = encode(layout, episode).tokens
    nothing = jnp.array([NOTHING])
    before = Step(nothing, nothing, jnp.array([0.0]), nothing)
    pieces = []
    for t in range(4):
        observation = episode.observation[:, 0, t]
        pieces.append(layout.append(jnp.array([t]), before._replace(arrival=observation), observation))
        if t < 3:
            before = Step(observation, episode.action[:, 0, t], episode.reward[:, 0, t], nothing)
    joined = jax.tree.map(lambda *x: jnp.concatenate(x, 1), *pieces)
    np.testing.assert_array_equal(joined.valid, whole.valid)
    np.testing.assert_array_equal(joined.number[joined.valid], whole.number[whole.valid])
    np.testing.assert_array_equal(joined.id[joined.valid], whole.id[whole.valid])


def test_single_steps_are_episodes_of_one_step():
    """Every step ends an episode that is shown as the transition layout shows it, and begins another."""
    single, transition = (make_layout(name, Family, reward_bins=2) for name in ("single_steps", "transition"))
    episode = jax.tree.map(lambda x: x[:, 1:], two_episodes())
    tokens = encode(single, episode).tokens
    np.testing.assert_array_equal(tokens.valid[0], [False] + [True] * 7)
    observation, action, reward = (np.asarray(x)[0, 0] for x in (episode.observation, episode.action, episode.reward))
    for t in range(3):
        one = Trajectories(
            *(jnp.asarray(x)[None, None] for x in (observation[t : t + 2], action[[t]], reward[[t]], [True]))
        )
        alone = encode(transition, one).tokens
        np.testing.assert_array_equal(tokens.id[0, 2 * t + 1], alone.id[0, 0])
        np.testing.assert_array_equal(tokens.id[0, 2 * t + 2], alone.id[0, 1])
        np.testing.assert_array_equal(tokens.number[0, 2 * t + 2], alone.number[0, 1])


def test_independent_steps_keep_their_own_ends_and_the_queries_between_them():
    layout = make_layout("single_steps", Family, reward_bins=2)
    o, a, n, t = 0, 7, 9, 16
    episode = Trajectories(
        observation=jnp.array([[[5, 6, NOTHING]]]),
        action=jnp.array([[[1, 0]]]),
        reward=jnp.array([[[1.0, 0.0]]]),
        valid=jnp.array([[[True, True]]]),
        origin=jnp.array([[[0, 2]]]),
        arrival=jnp.array([[[1, 3]]]),
    )
    tokens = encode(layout, episode).tokens
    np.testing.assert_array_equal(tokens.valid[0], [False, True, True, True, True, False])
    beginning = [[NOTHING, NOTHING, n + q, t] for q in (5, 6)]
    np.testing.assert_array_equal(tokens.id[0, [1, 3]], beginning)
    np.testing.assert_array_equal(tokens.id[0, [2, 4]], [[o + 0, a + 1, n + 1, t + 1], [o + 2, a + 0, n + 3, t + 1]])


@pytest.mark.parametrize("name", LAYOUTS)
def test_an_observation_that_is_nothing_does_not_exist(name):
    layout = make_layout(name, Family, reward_bins=2)
    episodes = two_episodes()
    nothing = np.asarray(episodes.observation).copy()
    nothing[0, 1, 0] = NOTHING
    tokens = encode(layout, Trajectories(jnp.asarray(nothing), episodes.action, episodes.reward, episodes.valid)).tokens
    assert not tokens.valid[0, encode(layout, episodes).acting[1, 0]]


def test_spaces():
    assert Grid((2, 3)).n == 6 and Discrete(4).contains([-1, 0, 3, 4]).tolist() == [False, True, True, False]
    assert Grid((2, 3)).contains([5, 6]).tolist() == [True, False]
    box = Box((0.0, -1.0), (1.0, 1.0))
    assert box.contains([[0.5, 0.0], [0.5, 2.0]]).tolist() == [True, False]
    with pytest.raises(UserError, match="no codes"):
        _ = box.n
    with pytest.raises(UserError, match="none above its high"):
        Box((1.0,), (0.0,))

    class Real(Family):
        observation_space = box

    with pytest.raises(UserError, match="no codes"):
        make_layout("transition", Real, reward_bins=2)


def test_only_the_familys_own_actions_are_read():
    class Small(Family):
        n_actions, observation_space = 1, Discrete(2)

    for name in LAYOUTS:
        layout = make_layout(name, Small, [Family], reward_bins=2)
        assert layout.n_actions == 2 and layout.action_ids.tolist() == [layout.slices["action"].start]


def test_recorded_steps_hold_the_oracles_values():
    family = make_family("random_mdp", horizon=4)
    tasks = draw_tasks(family, jax.random.key(0), 5)
    trajectories = record_with_context(
        family, tasks, jnp.arange(5), jax.random.key(1), ContextConfig(3, "oracle"), "uniform"
    )
    assert trajectories.action.shape == (5, 4, 4)
    q = np.asarray(tasks.oracle.table)
    for b in range(5):
        for e in range(4):
            for t in range(4):
                state = int(trajectories.observation[b, e, t])
                np.testing.assert_array_equal(trajectories.q[b, e, t], q[b, t, state])
    taken = jnp.take_along_axis(trajectories.q, trajectories.action[..., None], -1)[..., 0]
    best = trajectories.q.max(-1)
    assert (taken[:, :3] == best[:, :3]).all()  # the context is the oracle's
    assert (taken[:, 3] < best[:, 3]).any()


@pytest.mark.parametrize("behavior, share", [("oracle", 1.0), ("uniform", 1 / 3), ("epsilon_greedy", 0.8 + 0.2 / 3)])
def test_behaviors_follow_the_oracle_as_often_as_they_say(behavior, share):
    family = make_family("random_mdp", horizon=5)
    tasks = draw_tasks(family, jax.random.key(0), 300)
    shown = record(family, tasks, jnp.arange(300), jax.random.key(1), behavior, 4, 0.2)
    agree = np.asarray(shown.action == jnp.argmax(shown.q, -1)).mean()
    assert abs(agree - share) < 4 * np.sqrt(share * (1 - share) / 6000) + 1e-9


def test_families_of_other_sizes_share_a_batch():
    small, large = make_family("random_mdp", states=2, actions=2, horizon=3), make_family("energy", horizon=5)
    layout = make_layout("transition", small, [large], reward_bins=4)
    members = [
        record(f, draw_tasks(f, jax.random.key(0), 4), jnp.arange(4), jax.random.key(1), "uniform", 2, 0.0)
        for f in (small, large)
    ]
    tokens = side_by_side([encode(layout, trajectories) for trajectories in members])
    assert tokens.valid.shape == (8, 12)
    assert tokens.valid[:4].sum() == 4 * 8 and tokens.valid[4:].all()
