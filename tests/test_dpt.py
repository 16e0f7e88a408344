"""Learning from recorded sequences, and the traps of the field: each has a test here."""

import dataclasses
import json

import grain
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from experiments.configs import dpt_bandit, dpt_dark_room
from experiments.experiment import run
from experiments.sweep import Grid, sweep
from icdm.errors import Stopped, UserError
from icdm.evaluation.logged import label_losses
from icdm.learning.log_source import LogSource
from icdm.logs.dpt import arrays_of, bandit_rows, dark_room_rows, shifted
from icdm.logs.log import load
from icdm.logs.sequences import as_one_episode, assemble, sequences
from icdm.logs.table import plain_codings, write_table
from icdm.models.policy import TransformerPolicy
from icdm.models.transformer import ModelConfig, Transformer
from icdm.problems.family import make_family
from icdm.runs.phases import Phases
from icdm.runs.run import Run
from icdm.sharding import make_mesh
from icdm.trajectories.layouts import make_layout
from icdm.trajectories.prompt import action_logits, encode
from icdm.trajectories.trajectory import NOTHING

BANDIT, ROOM = make_family("bandit", horizon=6), make_family("dark_room", size=3, horizon=5)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def bandit_arrays(rng, n, steps=6):
    means = rng.uniform(size=(n, 5))
    actions = rng.integers(0, 5, (n, steps))
    rewards = np.take_along_axis(means, actions, 1) + 0.3 * rng.normal(size=(n, steps))
    return {
        "means": means,
        "actions": actions,
        "rewards": rewards.astype(np.float32),
        "optimal": means.argmax(1),
    }


def room_arrays(rng, n, steps=4):
    goal, state, action = (
        rng.integers(0, 3, (n, 2)),
        rng.integers(0, 3, (n, steps, 2)),
        rng.integers(0, 5, (n, steps)),
    )
    after = ROOM.next_state[state[..., 0] * 3 + state[..., 1], action]
    paid = (after == (goal[:, 0] * 3 + goal[:, 1])[:, None]).astype(np.int8)
    after = np.stack(np.divmod(after, 3), -1)
    query = rng.integers(0, 3, (n, 2))
    return {
        "states": state,
        "actions": action,
        "next_states": after,
        "rewards": paid,
        "query": query,
        "optimal": rng.integers(0, 5, n),
        "goal": goal,
    }


@pytest.fixture
def bandit_log(tmp_path, rng):
    return load(write_table(tmp_path / "b.parquet", [bandit_rows(bandit_arrays(rng, 40))], plain_codings(1, 5)))


@pytest.fixture
def room_log(tmp_path, rng):
    return load(write_table(tmp_path / "d.parquet", [dark_room_rows(room_arrays(rng, 40))], plain_codings(9, 5)))


def small_model(family, name="transition", heads=1, **changes):
    layout = make_layout(name, family, reward_bins=2, marks_end=True)
    config = ModelConfig(width=16, layers=2, heads=heads, kv_heads=heads, hidden=32, rotary_base=0.0, **changes)
    return Transformer(config, layout.size, nnx.Rngs(0)), layout


def test_the_file_is_read_as_it_is(tmp_path, rng):
    arrays = bandit_arrays(rng, 7)
    np.savez(tmp_path / "x.npz", **{f"test_{name}": x for name, x in arrays.items()})
    rows = bandit_rows(arrays_of(tmp_path / "x.npz", "test"))
    assert rows.n == 7 * 7
    np.testing.assert_array_equal(rows.action.reshape(7, 7)[:, :6], arrays["actions"])
    np.testing.assert_array_equal(rows.oracle_action.reshape(7, 7), arrays["optimal"][:, None].repeat(7, 1))
    with pytest.raises(UserError, match="unknown split"):
        arrays_of(tmp_path / "x.npz", "train")


def test_the_empty_context_is_trained(bandit_log, room_log, rng):
    for log, family, name, K in ((bandit_log, BANDIT, "transition", 0), (room_log, ROOM, "single_steps", 4)):
        model, layout = small_model(family, name)
        batch = sequences(log, np.arange(8), K, rng, independent_steps=layout.independent_steps)
        losses = jax.jit(lambda model, batch, layout=layout: label_losses(model, layout, batch))(model, batch)
        assert (batch.label[:, 0, 0] != NOTHING).all() and (losses[:, 0, 0] > 0).all()
        assert (batch.label != NOTHING).sum((1, 2)).tolist() == [7 if family is BANDIT else 5] * 8


def test_order_is_kept(bandit_log, rng):
    """The steps of a behaviour that learns must not be shuffled."""
    batch = sequences(bandit_log, np.arange(40), 0, rng)
    recorded = bandit_log.action.reshape(40, 7)[:, :6]
    np.testing.assert_array_equal(batch.trajectories.action[:, 0], recorded)


def test_arms_are_permuted_with_their_labels(bandit_log, rng):
    batch = sequences(bandit_log, np.arange(40), 0, rng, BANDIT.symmetry)
    plain = sequences(bandit_log, np.arange(40), 0, rng)
    best, plain_best = batch.label[:, 0, 0], plain.label[:, 0, 0]
    assert (best != plain_best).any()
    same = batch.trajectories.action[:, 0] == best[:, None]
    np.testing.assert_array_equal(same, plain.trajectories.action[:, 0] == plain_best[:, None])
    np.testing.assert_array_equal(batch.trajectories.reward, plain.trajectories.reward)


def test_contexts_grow_within_an_episode(bandit_log, rng):
    """What one pull paid changes the next decision, and none before it."""
    model, layout = small_model(BANDIT)
    batch = jax.tree.map(jnp.asarray, sequences(bandit_log, np.arange(4), 0, rng))

    def hidden(reward):
        changed = dataclasses.replace(batch.trajectories, reward=reward)
        return model(encode(layout, changed).tokens).hidden

    reward = batch.trajectories.reward
    change = jnp.abs(hidden(reward.at[:, 0, 2].add(1.0)) - hidden(reward)).max(-1)
    assert (change[:, :3] == 0).all() and (change[:, 3:] > 1e-6).all()


def test_heads_count(bandit_log, rng):
    """The same weights read as one head or as two give different outputs."""
    one, layout = small_model(BANDIT)
    two, _ = small_model(BANDIT, heads=2)
    nnx.update(two, nnx.state(one))
    tokens = encode(layout, sequences(bandit_log, np.arange(4), 0, rng).trajectories).tokens
    assert jnp.abs(one(tokens).hidden - two(tokens).hidden).max() > 1e-3


def test_independent_steps_are_one_episode(room_log, rng):
    """Queries, steps and labels are those of the episodes that were recorded, with queries and without."""
    task = np.arange(8)
    found = sequences(room_log, task, 4, np.random.default_rng(1))
    one = sequences(room_log, task, 4, np.random.default_rng(1), independent_steps=True)
    shown, episode = found.trajectories, one.trajectories
    assert episode.observation.shape == (8, 1, 5)
    np.testing.assert_array_equal(episode.observation[:, 0], shown.observation[:, ::2, 0])
    np.testing.assert_array_equal(one.label[:, 0], found.label[:, ::2, 0])
    for name, here, there in (("origin", slice(None), 0), ("arrival", slice(None), 1)):
        np.testing.assert_array_equal(getattr(episode, name)[:, 0, here], shown.observation[:, 1::2, there])
    np.testing.assert_array_equal(episode.reward[:, 0], shown.reward[:, 1::2, 0])
    context = assemble(room_log, np.stack([room_log.contexts[i] for i in task]))
    alone = as_one_episode(context, asks=False).trajectories
    np.testing.assert_array_equal(alone.observation[:, 0, :-1], context.trajectories.observation[..., 0])
    assert (alone.observation[:, 0, -1] == NOTHING).all()


def context_of(log, layout, rows=4):
    """The recorded steps of some tasks as a context."""
    found = assemble(log, np.stack([log.contexts[i] for i in range(rows)]))
    found = as_one_episode(found, asks=False) if layout.independent_steps else found
    return jax.tree.map(jnp.asarray, found.trajectories)


@pytest.mark.parametrize("name", ["transition", pytest.param("single_steps", marks=pytest.mark.slow)])
def test_cached_acting_is_the_forward_pass_with_rows_at_different_positions(room_log, rng, name):
    model, layout = small_model(ROOM, name)
    context = context_of(room_log, layout)
    act = jax.jit(lambda policy, carry, observation: policy.act(carry, observation, jax.random.key(0)))
    init = jax.jit(lambda policy, task: policy.init(task))
    policy = TransformerPolicy(model, context, layout)
    # rows 2 and 3 have read less: they forget the last context steps, two positions each
    cache, t, before = init(policy, jnp.arange(4))
    carry = (cache._replace(length=cache.length - jnp.array([0, 0, 2, 4])), t, before)
    found = []
    for _ in range(3):
        observation = jnp.asarray(rng.integers(0, 9, 4), jnp.int32)
        _, logits, carry = act(policy, carry, observation)
        found.append((observation, logits))
        carry = policy.observe(carry, jnp.asarray([0, 1, 2, 3]), jnp.asarray([0.0, 1.0, 0.0, 1.0]))
    for row, kept in [(0, 4), (1, 4), (2, 3), (3, 2)]:
        alone = TransformerPolicy(model, first_steps(context, row, kept, layout), layout)
        carry_one = init(alone, jnp.zeros(1, jnp.int32))
        for observation, logits in found:
            _, one, carry_one = act(alone, carry_one, observation[row : row + 1])
            np.testing.assert_allclose(one[0], logits[row], atol=1e-5)
            carry_one = alone.observe(carry_one, jnp.asarray([row]), jnp.asarray([float(row % 2)]))


def first_steps(context, row, kept, layout):
    """The first steps of one row's context."""
    if not layout.independent_steps:
        return jax.tree.map(lambda x: x[row : row + 1, :kept], context)
    observation = context.observation[row : row + 1, :, : kept + 1].at[..., -1].set(NOTHING)
    own = jax.tree.map(lambda x: x[row : row + 1, :, :kept], context)
    return dataclasses.replace(own, observation=observation)


def test_acting_on_single_steps_is_what_was_trained(room_log, rng):
    """query, step, query, step, ...: the logits of training are those of acting step by step."""
    model, layout = small_model(ROOM, "single_steps")
    batch = sequences(room_log, np.arange(4), 4, rng, independent_steps=True)
    episode = jax.tree.map(lambda x: jnp.asarray(x[:, 0]), batch.trajectories)
    logits = action_logits(model, layout, encode(layout, batch.trajectories))[:, 0]
    policy = TransformerPolicy(model, None, layout)
    cache, t, before = policy.init(jnp.arange(4))
    for k in range(4):
        query = episode.observation[:, k]
        tokens = layout.append(t, before, query)
        output = model(tokens, cache)
        found = model.logits(output.hidden[:, -1], layout.action_ids)
        np.testing.assert_allclose(found, logits[:, k], atol=1e-5)
        step = jax.tree.map(lambda x, k=k: x[:, k], episode.steps)
        cache, t, before = output.cache, t + 1, step


def test_the_iterator_resumes_at_the_same_record(bandit_log):
    source, fresh = (LogSource(bandit_log, 0, 8, 3, make_mesh(), BANDIT.symmetry) for _ in range(2))
    iterator = iter(source.dataset.to_iter_dataset(grain.ReadOptions(num_threads=0)))
    for _ in range(4):
        next(iterator)
    state = iterator.get_state()
    expected = [next(iterator) for _ in range(3)]
    resumed = iter(fresh.dataset.to_iter_dataset(grain.ReadOptions(num_threads=0)))
    resumed.set_state(state)
    for i, batch in enumerate(expected):
        jax.tree.map(np.testing.assert_array_equal, batch, next(resumed))
        jax.tree.map(np.testing.assert_array_equal, batch, fresh.batch(4 + i))


def test_an_epoch_reads_every_task_once(bandit_log):
    source = LogSource(bandit_log, 0, 8, 0, make_mesh())
    first = np.concatenate([np.asarray(source.batch(i).trajectories.reward[:, 0, 0]) for i in range(5)])
    np.testing.assert_array_equal(np.sort(first), np.sort(bandit_log.reward.reshape(40, 7)[:, 0]))


def test_a_log_without_labels_teaches_nothing(bandit_log):
    silent = dataclasses.replace(bandit_log, label=np.full_like(bandit_log.label, NOTHING))
    with pytest.raises(UserError, match="there is nothing to learn"):
        LogSource(silent, 0, 8, 0, make_mesh())


def test_moved_contexts_are_contexts_of_the_moved_goal(rng):
    def cell(x):
        return x[..., 0].astype(int) * 3 + x[..., 1]

    arrays, best = room_arrays(rng, 300), ROOM.first_best_action()
    arrays["optimal"] = best[cell(arrays["goal"]), cell(arrays["query"])]
    kept = np.flatnonzero((arrays["goal"] - arrays["query"]).sum(1) < 4)  # the way from (0, 0) to (2, 2) never
    arrays = {name: x[kept] for name, x in arrays.items()}
    arrays["rewards"] = cell(arrays["next_states"]) == cell(arrays["goal"])[:, None]
    moved = shifted(arrays, np.random.default_rng(0))
    goal, query = cell(moved["goal"]), cell(moved["query"])
    np.testing.assert_array_equal(cell(moved["next_states"]) == goal[:, None], arrays["rewards"])
    unknown = (goal == 8) & (query == 0)
    np.testing.assert_array_equal(moved["optimal"], np.where(unknown, NOTHING, best[goal, query]))
    assert unknown.any() and len(set(goal)) == 9
    still = (moved["goal"] == arrays["goal"]).all(1)
    np.testing.assert_array_equal(moved["states"][still], arrays["states"][still])


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["bandit", "dark_room"])
def test_an_experiment_on_dpts_file(kind, tmp_path, rng):
    module, arrays = {"bandit": (dpt_bandit, bandit_arrays), "dark_room": (dpt_dark_room, room_arrays)}[kind]
    splits = {split: arrays(rng, 300) for split in ("train", "test", "eval")}
    np.savez(tmp_path / "x.npz", **{f"{split}_{k}": x for split, found in splits.items() for k, x in found.items()})
    c = module.get_config()
    c.data, c.horizon = str(tmp_path / "x.npz"), 6
    c.problem = {"arms": 5, "noise": 0.3} if kind == "bandit" else {"size": 3}
    c.context.episodes = 0 if kind == "bandit" else 4
    c.model.update(width=16, layers=1)
    c.fine_tune.update(steps=4, batch=8, log_every=2)
    c.evaluation.episodes = 10
    results = run(c, tmp_path / "run")
    written = json.loads((tmp_path / "run" / "results.json").read_text())
    for name in ("test_cross_entropy", "online_regret", "bayes_cross_entropy"):
        assert set(written[name]) == {"mean", "ci95", "n_tasks"} and np.isfinite(written[name]["mean"])
    assert abs(written["test_cross_entropy"]["mean"] - np.log(5)) < 1
    assert {"oracle", "random", "fine_tuned", "fine_tuned_sampled"} <= set(results["policies"])
    answers = iter([False, True])
    with pytest.raises(Stopped, match="step 2 of 4"):
        Phases(Run.claim(tmp_path / "stopped", c), lambda: next(answers)).train_all()
    resumed = run(c, tmp_path / "stopped")  # goes on at the same record
    assert {**resumed, "seconds": None} == {**results, "seconds": None}
    c.data_labels = "nothing"
    with pytest.raises(UserError, match="unknown data_labels"):
        run(c, tmp_path / "other")


def test_a_log_without_a_simulator_is_learned_from_and_valued(tmp_path, rng):
    """States 0 and 1; action = state pays. The behaviour is right in 3 of 5 cases; imitation of the best is better."""
    n, T = 400, 4
    state = rng.integers(0, 2, (n, T))
    right = rng.random((n, T)) < 0.6
    action = np.where(right, state, 1 - state)
    lines = ["task_id,episode_id,t,observation,action,reward,behavior_probability"]
    names = np.array(["calm", "storm"])
    for e in range(n):
        for t in range(T):
            probability = 0.6 if right[e, t] else 0.4
            lines.append(f"0,{e},{t},{names[state[e, t]]},{action[e, t]},{int(right[e, t])},{probability}")
    (tmp_path / "log.csv").write_text("\n".join(lines) + "\n")
    c = dpt_bandit.get_config()
    c.family, c.horizon, c.problem = "recorded", T, {"states": 2, "actions": 2}
    c.data, c.data_labels, c.context.episodes = str(tmp_path / "log.csv"), "best_return", 1
    c.model.update(width=16, layers=1)
    c.fine_tune.update(steps=60, batch=16)
    results = run(c, tmp_path / "run")
    behavior, learned = (results["policies"][k]["value"]["mean"] for k in ("behavior", "fine_tuned_sampled"))
    assert learned > behavior + 0.3
    assert results["off_policy"]["behavior_probabilities"] == "recorded"
    estimates = {"is", "pdis", "wis", "pdwis", "dr", "wdr"}
    assert set(results["off_policy"]["estimates"]["fine_tuned_sampled"]) == estimates
    report = (tmp_path / "run" / "report.html").read_text()
    assert "learned from the recorded actions of the best quarter" in report
    assert "valued from the log (recorded behaviour probabilities)" in report and "effective sample size" in report
    with pytest.raises(UserError, match="family recorded has no simulator: start each run with experiments.run"):
        sweep(Grid(c, tmp_path / "sweep", {"fine_tune.steps": [60, 120]}, 1))
    assert not (tmp_path / "sweep").exists()
