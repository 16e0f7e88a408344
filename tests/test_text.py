"""Trajectories as text: every field, and that the tables agree with the tokenizer on whole texts."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from commands import run, start
from small_language_model import write_language_model

from experiments.configs import language_energy
from icdm.errors import UserError
from icdm.learning.sources import Labelled, TaskPool
from icdm.models.policy import TransformerPolicy
from icdm.published.model import open_published
from icdm.runs.run import Run
from icdm.runs.settings import Settings
from icdm.sharding import make_mesh
from icdm.trajectories.collect import draw_tasks, record
from icdm.trajectories.layouts.text import FORMS, phrases_of, text_layout
from icdm.trajectories.prompt import action_logits, encode
from icdm.trajectories.rollout import rollout
from icdm.trajectories.trajectory import Step


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "small.gguf"
    write_language_model(path)
    return path


def settings_of(weights, **fields):
    c = language_energy.get_config()
    c.weights = str(weights)
    c.update(fields)
    return Settings.from_config(c)


def episodes(family, n=3, k=2, behavior="mixture"):
    tasks = draw_tasks(family, jax.random.key(0), n)
    return tasks, record(family, tasks, jnp.arange(n), jax.random.key(1), behavior, k, 0.2)


def written(layout, tokenizer, trajectories, row=0):
    """The text of a row, decoded from its valid tokens."""
    tokens = encode(layout, trajectories).tokens
    return tokenizer.decode(np.asarray(tokens.id[row, np.asarray(tokens.valid[row]), 0]).tolist())


@pytest.mark.parametrize("form", FORMS)
def test_tables_write_what_the_tokenizer_reads(weights, form):
    """The ids of a row are those of its text as a whole, and the text says what was recorded."""
    s = settings_of(weights, text=form)
    tokenizer = open_published(str(weights)).tokenizer
    _, trajectories = episodes(s.family)
    tokens = encode(s.layout, trajectories).tokens
    for row in range(3):
        kept = np.asarray(tokens.id[row, np.asarray(tokens.valid[row]), 0]).tolist()
        assert tokenizer.encode(tokenizer.decode(kept), add_special_tokens=False).ids == kept
    text = written(s.layout, tokenizer, trajectories)
    first, f = jax.tree.map(lambda x: x[0, 0], trajectories), FORMS[form]
    for t in range(s.family.horizon):
        observation = f.observation.format(int(first.observation[t]))
        action = f.action.format(f.action_names[int(first.action[t])])
        assert observation + action in text


def test_the_paper_form_is_the_papers(weights):
    s = settings_of(weights, text="paper")
    trajectories = jax.tree.map(lambda x: x[:, :1], episodes(s.family)[1])
    text = written(s.layout, open_published(str(weights)).tokenizer, trajectories)
    o, a, r = (np.asarray(x)[0, 0] for x in (trajectories.observation, trajectories.action, trajectories.reward))
    assert text.startswith(f" <O_t> {o[0]}, <A_t> {a[0]}, <R_t> {r[0]:.2f}, <O_t> {o[1]}, <A_t> {a[1]}")


def test_rewards_are_rounded_to_the_nearest_text(weights):
    layout = settings_of(weights, text="terse").layout  # ten digits from -0.02 to 1
    reward = jnp.array([-0.02, 0.03, 0.04, 1.0, 5.0])
    nothing = jnp.zeros(5, jnp.int32)
    tokens = layout.append(jnp.ones(5, jnp.int32), Step(nothing, nothing, reward, nothing), nothing)
    digits = np.asarray(tokens.id[:, 1, 0]) - layout.reward_table[0][-1]
    np.testing.assert_array_equal(digits, [0, 0, 1, 9, 9])


@pytest.mark.parametrize("form", ["terse", pytest.param("words", marks=pytest.mark.slow)])
def test_acting_reads_what_training_reads(weights, form):
    """Logits along an episode, from the cache step by step, are those of the encoded rows; with and without context."""
    s = settings_of(weights, text=form)
    model = Run(weights.parent, _config(weights, form)).start()
    tasks, trajectories = episodes(s.family, k=3)
    context, query = (jax.tree.map(lambda x: x[:, part], trajectories) for part in (slice(2), slice(2, 3)))

    @jax.jit
    def step_by_step(context):
        policy, key = TransformerPolicy(model, context, s.layout), jax.random.key(0)
        carry, found = policy.init(jnp.arange(3)), []
        for t in range(s.family.horizon):
            _, logits_BA, carry = policy.act(carry, query.observation[:, 0, t], key)
            carry = policy.observe(carry, query.action[:, 0, t], query.reward[:, 0, t])
            found.append(logits_BA)
        return jnp.stack(found, 1)

    whole = jax.jit(lambda rows: action_logits(model, s.layout, encode(s.layout, rows).decisions))
    np.testing.assert_allclose(step_by_step(context), whole(trajectories)[:, 2], atol=1e-4)
    np.testing.assert_allclose(step_by_step(None), whole(query)[:, 0], atol=1e-4)
    assert rollout(tasks.problem, jnp.arange(3), TransformerPolicy(model, context, s.layout), jax.random.key(2))


def _config(weights, form):
    c = language_energy.get_config()
    c.weights, c.text = str(weights), form
    return c.to_dict()


def by_character(text):
    return [ord(character) for character in text]


@pytest.mark.parametrize(
    "encode, message",
    [
        (lambda text: by_character(text.replace("A", "A'")), "splits the action 'A' into 2 tokens"),
        (lambda text: by_character(text.replace("B", "A")), "gives two actions one token"),
        (lambda text: by_character(text.replace("; ", "_")), "joins the fields"),
        (lambda text: by_character(text.replace("2B", "_")), "joins the fields"),
    ],
)
def test_tokenizers_that_cannot_tell_fields_apart_are_refused(encode, message):
    family = dict(n_observations=3, n_actions=2, reward_range=(0.0, 1.0), shows_reward=True, words="")
    phrases = phrases_of("terse", **family)
    assert text_layout("terse", phrases, by_character, 300, None, horizon=2).action_table == (65, 66)
    with pytest.raises(UserError, match=message):
        text_layout("terse", phrases, encode, 300, None, horizon=2)


@pytest.mark.parametrize(
    "fields, message",
    [
        (dict(text="poem"), "unknown form of text 'poem'"),
        (dict(layout="transition"), "layout text is what a language model reads"),
        (dict(weights=""), "layout text is what a language model reads"),
        (dict(weights="nowhere"), "no language model at nowhere: give a Hugging Face directory"),
        (dict(weights="package:nowhere"), "no language model in the package nowhere"),
        (dict(model=dict(max_length=4096)), "reads at most 2048 tokens"),
        (dict(model=dict(max_length=50)), "the model's limit is 50"),
    ],
)
def test_language_models_that_cannot_be_used(weights, fields, message):
    with pytest.raises(UserError, match=message):
        settings_of(**({"weights": weights} | fields))


@pytest.mark.slow
def test_learners_see_the_same_rows(weights):
    """A small model and a language model with one seed are taught the same episodes and labels."""
    s = settings_of(weights)
    pools = [
        TaskPool(
            s.family,
            Labelled(s.context, s.query_behavior, s.labels),
            4,
            jax.random.key(3),
            make_mesh(),
            s.label_oracle,
            6,
        )
        for _ in range(2)
    ]
    first, second = (pool.lessons(pool.batch(5), jax.random.key(7))[0] for pool in pools)
    for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(second)):
        np.testing.assert_array_equal(a, b)
    taken = jnp.take_along_axis(first.trajectories.q, first.target.action[..., None], -1)[..., 0]
    np.testing.assert_array_equal(taken, first.trajectories.q.max(-1))  # every label is of its own row


def tiny(weights, workdir):
    return [
        "--config=experiments/configs/language_energy.py",
        f"--workdir={workdir}",
        f"--config.weights={weights}",
        "--config.horizon=2",
        "--config.fine_tune.steps=6",
        "--config.fine_tune.batch=2",
        "--config.fine_tune.pool=3",
        "--config.fine_tune.lora_rank=2",
        "--config.fine_tune.lora_dropout=0.1",
        "--config.fine_tune.checkpoint_every=2",
        "--config.fine_tune.log_every=1",
        "--config.evaluation.tasks=4",
        "--config.model.max_length=128",
    ]


@pytest.mark.slow
def test_a_language_model_is_tuned_killed_resumed_measured_and_asked(weights, tmp_path):
    whole = run("experiments.run", *tiny(weights, tmp_path / "whole"))
    assert whole.returncode == 0, whole.stderr
    with start("experiments.run", *tiny(weights, tmp_path / "killed")) as killed:
        for line in killed.stdout:
            if "fine_tune" in line:
                killed.kill()
                break
    assert run("experiments.run", *tiny(weights, tmp_path / "killed")).returncode == 0
    results = [json.loads((tmp_path / name / "results.json").read_text()) for name in ("whole", "killed")]
    assert results[0]["policies"] == results[1]["policies"]
    assert {"fine_tuned", "in_context", "copy", "no_context", "wrong_context"} <= results[0]["policies"].keys()
    assert results[0]["advantages"].keys() == results[0]["policies"].keys() - {"fine_tuned"}
    opened = Run.open(tmp_path / "whole")
    named = opened.model("fine_tuned").named_weights()
    assert set(named) == {f"{w}.{part}" for w in ("q", "k", "v", "o", "gate", "up", "down") for part in "ab"}
    (tmp_path / "whole" / "weights.safetensors").unlink()
    for name, weight in opened.model("fine_tuned").named_weights().items():  # from the checkpoint
        np.testing.assert_array_equal(weight, named[name])
    context = tmp_path / "context.csv"
    context.write_text("task_id,episode_id,t,observation,action,reward\n0,0,0,3,0,-0.02\n0,0,1,4,1,0.44\n")
    decided = run("icdm", "decide", "--run", tmp_path / "whole", "--context", context, "--observation", "3")
    assert decided.returncode == 0 and decided.stdout.startswith("action "), decided.stderr
    history = tmp_path / "history.csv"
    history.write_text("task_id,episode_id,t,observation,action,reward\n0,0,0,5,1,0.56\n0,0,1,4,,\n")
    arguments = "--run", tmp_path / "whole", "--context", context, "--history", history, "--show-prompt"
    shown = run("icdm", "decide", *arguments)
    assert shown.stdout.splitlines()[0] == "; 3A0 4B4; 5B5 4", shown.stderr
    changes = ["problem.lowest=0.3", "problem.highest=0.5", 'evaluation.contexts=["uniform:1"]']
    again = run("experiments.evaluate", tmp_path / "whole", "out_of_range", *changes)
    assert again.returncode == 0, again.stderr
    other = json.loads((tmp_path / "whole" / "evaluations" / "out_of_range" / "results.json").read_text())
    assert other["policies"]["oracle"]["value"]["mean"] != results[0]["policies"]["oracle"]["value"]["mean"]
    assert {"fine_tuned@uniform:1", "in_context@uniform:1", "copy@uniform:1"} <= other["policies"].keys()
    assert (tmp_path / "whole" / "evaluations" / "out_of_range" / "gap_against_support.png").exists()
    assert json.loads((tmp_path / "whole" / "results.json").read_text()) == results[0]
    for change, message in (("model.width=3", "others need training"), ("evaluation.task=3", "did you mean 'tasks'")):
        refused = run("experiments.evaluate", tmp_path / "whole", "x", change)
        assert refused.returncode == 2 and message in refused.stderr and len(refused.stderr.splitlines()) == 1
