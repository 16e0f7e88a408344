"""Exported examples: those that fine-tuning sees, exact round trips, exports that were stopped, and mistakes."""

import functools
import hashlib
import json
import os
import runpy

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.configs import base
from icdm.cli import main
from icdm.errors import UserError
from icdm.logs import supervised
from icdm.logs.convert import convert
from icdm.logs.describe import describe
from icdm.logs.log import load
from icdm.logs.table import NOTHING, open_table
from icdm.runs import examples, phases
from icdm.runs.export import export_examples
from icdm.runs.phases import Phases
from icdm.runs.run import Run
from icdm.trajectories.layouts.text import FORMS, phrases_of, text_layout
from icdm.trajectories.trajectory import Trajectories
from icdm.trajectories.writing import NO_LOSS, Messages, PromptCompletion, TokenIds, manifest_path

CONFIG = """
from experiments.configs import base

def get_config():
    c = base.get_config()
    c.horizon, c.query_behavior, c.text = 3, "uniform", "paper"
    c.context.episodes = 1
    c.pretrain.steps = 0
    c.fine_tune.update(steps=2, batch=8, labels="argmax", log_every=1)
    c.model.update(width=16, layers=1, heads=2, kv_heads=2, hidden=16)
    return c
"""


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    path = tmp_path_factory.mktemp("config") / "tiny.py"
    path.write_text(CONFIG)
    return path


@pytest.fixture(scope="module")
def exported(config, tmp_path_factory):
    """(The file of 20 rows of 8 a step, its manifest)."""
    out = tmp_path_factory.mktemp("exported") / "rows.jsonl"
    return out, export_examples(config, out, rows=20)


def lines_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_examples_are_the_decisions_that_fine_tuning_sees(config, exported, tmp_path, monkeypatch):
    seen = []

    def watched(model, layout, lessons):
        [lesson] = lessons
        trajectories, target = lesson.trajectories, lesson.target
        shown = (trajectories.observation, trajectories.action, target.action)
        jax.debug.callback(lambda *arrays: seen.append([np.asarray(x) for x in arrays]), *shown, ordered=True)
        return jnp.square(model.norm[...]).mean(), trajectories.valid.sum()

    monkeypatch.setattr(phases, "action_loss", watched)
    Phases(Run.claim(tmp_path, runpy.run_path(str(config))["get_config"]())).train_all()
    jax.effects_barrier()
    convert(exported[0], tmp_path / "rows.parquet")
    log = load(open_table(tmp_path / "rows.parquet"))
    for row in range(16):
        observation, action, label = (x[row % 8] for x in seen[row // 8])
        for e, episode in enumerate(log.contexts[row]):
            rows = slice(log.first[episode], log.first[episode + 1])
            n = log.steps[episode]
            np.testing.assert_array_equal(log.observation[rows], observation[e, : len(log.observation[rows])])
            np.testing.assert_array_equal(log.action[rows][:n], action[e, :n])
            np.testing.assert_array_equal(log.label[rows][:3], label[e, : len(log.label[rows][:3])])


def test_an_example_is_the_text_before_a_decision_and_the_oracles_action(exported):
    out, manifest = exported
    lines = lines_of(out)
    assert len(lines) == manifest["lines"] == 20 * 2 * 3 and set(lines[0]) == {"prompt", "completion"}
    assert lines[0]["prompt"].startswith(" <O_t> ") and lines[0]["completion"] in ("0", "1", "2")
    assert lines[5]["prompt"].startswith(lines[0]["prompt"]) and lines[5]["prompt"].endswith(", <A_t> ")
    assert manifest["sha256"] == hashlib.sha256(out.read_bytes()).hexdigest()
    assert manifest["family"] == "energy" and manifest["rows"] == 20 and manifest["context"]["episodes"] == 1
    assert sorted(path.name for path in out.parent.iterdir()) == ["rows.jsonl", "rows.manifest.json"]


def test_described_and_converted_like_any_log(exported, tmp_path):
    found = describe(exported[0])
    assert found["tasks"] == 20 and found["episodes"] == 40 and found["defects"] == {}
    assert found["rows_with_oracle_action"] == 120 and found["length"]["max"] == 3
    convert(exported[0], tmp_path / "steps.csv")
    assert len((tmp_path / "steps.csv").read_text().splitlines()) == found["rows"] + 1


@pytest.mark.parametrize("moment", ["before the first step", "after a step", "within a line", "before the end"])
def test_a_stopped_export_ends_with_the_identical_file(moment, config, exported, tmp_path, monkeypatch):
    out = tmp_path / "rows.jsonl"
    write_json, calls = examples.write_json, []

    def stops(path, content):
        calls.append(path)
        if (
            len(calls)
            > {"before the first step": 0, "after a step": 1, "within a line": 1, "before the end": 3}[moment]
        ):
            raise KeyboardInterrupt
        write_json(path, content)

    with monkeypatch.context() as patched:
        patched.setattr(examples, "write_json", stops)
        with pytest.raises(KeyboardInterrupt):
            export_examples(config, out, rows=20)
    assert not out.exists() and not manifest_path(out).exists()
    if moment == "within a line":
        partial = out.with_name("rows.jsonl.partial")
        os.truncate(partial, partial.stat().st_size - 7)
    assert export_examples(config, out, rows=20) == exported[1]
    assert out.read_bytes() == exported[0].read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rows.jsonl", "rows.manifest.json"]


def test_the_beginning_of_another_export_is_refused(config, tmp_path, monkeypatch):
    out = tmp_path / "rows.jsonl"
    with monkeypatch.context() as patched:
        patched.setattr(examples, "manifest_path", lambda out: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            export_examples(config, out, rows=8)
    with pytest.raises(UserError, match=r"begun with another seed \(1 now, 0 there\)"):
        export_examples(config, out, rows=8, seed=1)
    with pytest.raises(UserError, match="begun with another rows"):
        export_examples(config, out, rows=16)


def random_row(rng, unrecorded=False, horizon=4):
    """Three episodes of one row, some of which end early; labels beside them. What was observed last in the second may
    be unrecorded."""
    steps = rng.integers(1, horizon + 1, 3)
    observation = rng.integers(0, 12, (3, horizon + 1))
    if unrecorded:
        observation[1, steps[1]] = 12
    valid = np.arange(horizon) < steps[:, None]
    trajectories = Trajectories(
        observation=jnp.asarray(observation[None], jnp.int32),
        action=jnp.asarray(rng.integers(0, 3, (1, 3, horizon)), jnp.int32),
        reward=jnp.asarray(rng.uniform(-1, 1, (1, 3, horizon)), jnp.float32),
        valid=jnp.asarray(valid)[None],
    )
    label = np.where(valid, rng.integers(0, 3, (3, horizon)), NOTHING)
    label = label.astype(np.int32)[None]
    return trajectories, label


@functools.cache
def writers(form, shows_reward):
    family = dict(n_observations=12, n_actions=3, reward_range=(-1.0, 1.0), shows_reward=shows_reward)
    phrases = phrases_of(form, words="Words.", **family)
    layout = text_layout(form, phrases, lambda text: [ord(c) for c in text], 256, 7, horizon=4)
    texts = [PromptCompletion(phrases)] + ([] if form == "chat" else [Messages(phrases)])
    return [*texts, TokenIds(layout)]


@settings(max_examples=8)
@given(st.integers(0, 2**32 - 1), st.sampled_from(sorted(FORMS)), st.booleans())
def test_what_an_example_shows_comes_back_exactly(seed, form, shows_reward):
    unrecorded = form != "paper"  # which has no mark between episodes
    trajectories, label = random_row(np.random.default_rng(seed), unrecorded)
    for writer in writers(form, shows_reward):
        [lines] = writer.examples(trajectories, label)
        fields = supervised.Fields(json.loads(json.dumps(writer.fields)))
        [shown] = fields.shown(json.loads(json.dumps(lines)))
        rows = fields.steps(shown, 5, 7)
        assert set(rows.task_id) == {5} and sorted(set(rows.episode_id)) == [7, 8, 9]
        for e in range(3):
            of_episode = rows[rows.episode_id == 7 + e]
            n, whole = int(trajectories.valid[0, e].sum()), isinstance(writer, TokenIds) or e < 2
            n_done = n if whole else n - 1  # the text of decisions ends where the last one is made
            n_seen = n if e == 1 and unrecorded else n_done + 1
            assert of_episode.t.tolist() == list(range(n_seen))
            observation, action, reward = (
                np.asarray(x)[0, e] for x in (trajectories.observation, trajectories.action, trajectories.reward)
            )
            np.testing.assert_array_equal(of_episode.observation, observation[:n_seen])
            np.testing.assert_array_equal(of_episode.action, [*action[:n_done], NOTHING][:n_seen])
            np.testing.assert_array_equal(of_episode.oracle_action[:n], label[0, e, :n])
            unit = writer.fields["reward_unit"]
            if shows_reward:
                assert np.abs(of_episode.reward[:n_done] - reward[:n_done]).max(initial=0) <= unit / 2 + 1e-6
                steps = (of_episode.reward[:n_done] - writer.fields["reward_low"]) / unit
                np.testing.assert_allclose(steps, steps.round(), atol=1e-6)


def test_labels_of_token_ids_stand_where_the_action_follows():
    trajectories, label = random_row(np.random.default_rng(1))
    writer = writers("paper", True)[-1]
    [[example]] = writer.examples(trajectories, label)
    ids, labels = example["input_ids"], example["labels"]
    assert ids[0] == 7 and len(ids) == len(labels)
    marked = [i for i, id in enumerate(labels) if id != NO_LOSS]
    assert len(marked) == int(trajectories.valid.sum())
    assert all("".join(map(chr, ids[i - 7 : i])) == "<A_t> "[-7:] or chr(ids[i - 1]) == " " for i in marked)
    done = np.asarray(trajectories.action)[np.asarray(trajectories.valid)]
    assert [int(chr(ids[i])) for i in marked] == done.tolist()
    assert [int(chr(labels[i])) for i in marked] == label[label != NOTHING].tolist()


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["CONFIG"], "say what to write"),
        (["nowhere", "OUT"], "nowhere is not a run"),
        (["nothing.py", "OUT"], "no such config"),
        (["CONFIG", "out.txt"], "ends in .jsonl"),
        (["CONFIG", "OUT", "--rows", "0"], "--rows 0: give at least 1"),
        (["CONFIG", "OUT", "--text", "papr"], "did you mean 'paper'"),
        (["CONFIG", "OUT", "--format", "tokens"], "no language model"),
        (["CONFIG", "OUT", "--text", "chat", "--format", "messages"], "marks of messages itself"),
        (["nowhere", "--adapter", "DIR"], "is not a run"),
    ],
)
def test_a_mistake_is_told_in_one_line(arguments, message, config, tmp_path, capsys):
    places = {"CONFIG": str(config), "OUT": str(tmp_path / "out.jsonl"), "DIR": str(tmp_path / "dir")}
    with pytest.raises(SystemExit) as stopped:
        main(["export", *(places.get(a, a) for a in arguments)])
    error = capsys.readouterr().err
    assert stopped.value.code == 2 and message in error and error.count("\n") == 1, error
    assert not list(tmp_path.iterdir())


def test_examples_that_were_changed_are_not_read(exported, tmp_path):
    out = tmp_path / "rows.jsonl"
    out.write_bytes(exported[0].read_bytes()[:-9])
    with pytest.raises(UserError, match="rows.manifest.json is missing"):
        describe(out)
    manifest_path(out).write_text(json.dumps(exported[1]))
    with pytest.raises(UserError, match="changed or cut short"):
        describe(out)
    manifest_path(out).write_text("{}")
    with pytest.raises(UserError, match="damaged"):
        describe(out)


def test_a_run_without_a_language_model_has_no_adapters(tmp_path):
    c = base.get_config()
    Run.claim(tmp_path, c)
    for flag in ("--adapter", "--merged"):
        with pytest.raises(SystemExit):
            main(["export", str(tmp_path), flag, str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()
