"""Acting from a trained run: the object, the command, and agreement with the model's forward pass."""

import json
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.configs import base
from icdm.cli import main
from icdm.errors import UserError
from icdm.runs.decide import decide
from icdm.runs.decider import Decider
from icdm.runs.phases import Phases
from icdm.runs.run import Run
from icdm.trajectories.prompt import action_logits, encode
from icdm.trajectories.trajectory import Trajectories

CASES = pathlib.Path(__file__).parent / "data" / "cases" / "D_decide"
HEADER = "task_id,episode_id,t,observation,action,reward\n"
CONTEXT = HEADER + "0,0,0,5,1,0.55\n0,0,1,4,0,-0.02\n0,0,2,5,2,-0.02\n0,0,3,6,,\n"
HISTORY = HEADER + "0,0,0,5,1,0.55\n0,0,1,4,,\n"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run that was trained for two steps; (directory, its models)."""
    c = base.get_config()
    c.horizon = 3
    c.model.update(width=16, layers=1, heads=2, kv_heads=2, hidden=16)
    c.context.episodes = 1
    for phase in (c.pretrain, c.fine_tune):
        phase.update(steps=2, batch=8, log_every=1, checkpoint_every=2)
    c.pretrain.mixture = ("energy:horizon=3",)
    directory = tmp_path_factory.mktemp("run")
    return directory, Phases(Run.claim(directory, c)).train_all()


def test_the_decider_is_the_trained_model(trained):
    directory, models = trained
    decider = Decider.from_run(directory)
    jax.tree.map(np.testing.assert_array_equal, decider.policy.model, models["fine_tuned"])


@pytest.mark.parametrize("family, seen", [("energy", True), ("energy_pomdp", False), ("energy_apomdp", False)])
def test_rewards_that_the_problem_hides_are_not_read_from_a_log(family, seen, tmp_path):
    """Two histories that differ in what was paid lead to other logits only where payments are shown."""
    c = base.get_config()
    c.horizon, c.family = 3, family
    c.model.update(width=16, layers=1, heads=2, kv_heads=2, hidden=16)
    c.pretrain.steps = c.fine_tune.steps = 0
    decider, found = Decider(Run.claim(tmp_path, c)), []
    for reward in (-0.1, 0.9):
        decider.reset(rows=1)
        decider.act([3])
        decider.observe([1], [reward])
        found.append(decider.act([2]).probability)
    assert np.array_equal(*found) != seen


def test_decisions_are_those_of_the_forward_pass(trained):
    directory, models = trained
    decider = Decider.from_run(directory)
    rng = np.random.default_rng(0)
    shape = (4, 2)  # a context episode and the one that is acted in
    episodes = Trajectories(
        jnp.asarray(rng.integers(0, 10, (*shape, 4)), jnp.int32),
        jnp.asarray(rng.integers(0, 3, (*shape, 3)), jnp.int32),
        jnp.asarray(rng.random((*shape, 3)), jnp.float32),
        jnp.ones((*shape, 3), bool),
        jnp.zeros((*shape, 3, 3)),
    )
    layout = decider.run.layout
    expected = action_logits(models["fine_tuned"], layout, encode(layout, episodes))[:, 1]
    decider.reset(jax.tree.map(lambda x: x[:, :1], episodes))
    for t in range(3):
        decision = decider.act(episodes.observation[:, 1, t])
        np.testing.assert_allclose(decision.probability, jax.nn.softmax(expected[:, t]), atol=1e-5)
        centred = expected[:, t] - expected[:, t].mean(-1, keepdims=True)
        np.testing.assert_allclose(decision.value, 0.1 * centred, atol=1e-5)
        own = jax.tree.map(lambda x: x[:, 1:], episodes)
        begun = Trajectories(own.observation[..., : t + 1], *(x[..., :t] for x in (own.action, own.reward, own.valid)))
        at_once = decider.decide(jax.tree.map(lambda x: x[:, :1], episodes), begun)
        np.testing.assert_allclose(at_once.value, decision.value, atol=1e-5)
        decider.observe(episodes.action[:, 1, t], episodes.reward[:, 1, t])
    with pytest.raises(UserError, match="over after 3 steps"):
        decider.act(episodes.observation[:, 1, 0])
    with pytest.raises(UserError, match="over after 3 steps, 3 are given"):
        decider.decide(None, own)


def test_command(trained, tmp_path, capsys):
    directory, _ = trained
    (tmp_path / "context.csv").write_text(CONTEXT)
    (tmp_path / "history.csv").write_text(HISTORY)
    arguments = ["decide", "--run", str(directory), "--context", str(tmp_path / "context.csv")]
    main([*arguments, "--history", str(tmp_path / "history.csv"), "--json"])
    found = json.loads(capsys.readouterr().out)
    assert found["step"] == 1 and found["context_episodes"] == 1
    assert sum(found["probabilities"].values()) == pytest.approx(1)
    assert found["action"] == max(found["probabilities"], key=found["probabilities"].get)
    assert sum(found["values"].values()) == pytest.approx(0, abs=1e-6)
    main([*arguments, "--observation", "5"])
    assert "step 0" in capsys.readouterr().out


def test_mistakes_are_told(trained, tmp_path):
    directory, _ = trained
    context = tmp_path / "context.csv"
    context.write_text(CONTEXT)
    with pytest.raises(UserError, match="what is observed now"):
        decide(directory, context)
    with pytest.raises(UserError, match="is not a run"):
        decide(tmp_path, context, observation="5")
    with pytest.raises(UserError, match="--observation 12: not among the 10 values known"):
        decide(directory, context, observation="12")
    context.write_text(CONTEXT.replace("0,0,0,5", "0,0,0,77"))
    with pytest.raises(UserError, match="row 1, column observation: 77 is not among the 10 values known"):
        decide(directory, context, observation="5")
    context.write_text(CONTEXT + "1,1,0,5,1,0.5\n")
    with pytest.raises(UserError, match="holds 2 tasks"):
        decide(directory, context, observation="5")
    assert decide(directory, context, observation="5", task="1")["context_episodes"] == 1
    (tmp_path / "history.csv").write_text(HISTORY.replace("0,0,1,4,,", "0,0,1,4,1,0"))
    with pytest.raises(UserError, match="last row has an action"):
        decide(directory, context, history=tmp_path / "history.csv", task="0")
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "config.json").write_text((directory / "config.json").read_text())
    with pytest.raises(UserError, match="has not got there yet"):
        decide(tmp_path / "half", context, observation="5")


REFUSED = {  # the episodes of the run have 3 steps, and the families of its mixture have up to 6
    "h3": "row 1, column observation: 1.9 is not an integer from 0",
    "h4b": "row 1, column action: 0.9 is not an integer from 0",
    "h12": "holds 5 steps: the run's episodes are over after 3",
    "h14": "row 1, column terminal: the episode is over",
    "h15": "holds 2 episodes",
    "h17b": "row 1, column reward: .* not a finite number of 32 bits",
}


@pytest.fixture(scope="module")
def short(tmp_path_factory):
    """A run that was not trained; its pretraining mixture has longer episodes."""
    c = base.get_config()
    c.horizon, c.context.episodes = 3, 1
    c.model.update(width=16, layers=1, heads=2, kv_heads=2, hidden=16)
    c.pretrain.steps = c.fine_tune.steps = 0
    c.pretrain.mixture = ("energy:horizon=6",)
    return Run.claim(tmp_path_factory.mktemp("short"), c)


@pytest.mark.parametrize("history", REFUSED)
def test_nothing_is_rounded_and_nothing_is_decided_after_the_end(history, short, tmp_path, capsys):
    (tmp_path / "context.csv").write_text(CONTEXT)
    arguments = ["--run", str(short.directory), "--context", str(tmp_path / "context.csv"), "--json"]
    with pytest.raises(SystemExit):
        main(["decide", *arguments, "--history", str(CASES / f"{history}.csv")])
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1 and re.search(REFUSED[history], said.err)


def test_contexts_that_the_run_cannot_have_recorded_are_refused(short, tmp_path):
    context = tmp_path / "context.csv"
    with pytest.raises(UserError, match="has 4 steps or more: the run's episodes have 3"):
        decide(short.directory, CASES / "ctx.csv", observation="1")
    context.write_text(CONTEXT.replace("0.55", "1e39"))
    with pytest.raises(UserError, match="row 1, column reward"):
        decide(short.directory, context, observation="1")
    context.write_text(CONTEXT.replace("0,0,0,5,1", "0,0,0,5,left"))
    with pytest.raises(UserError, match="row 1, column action: 'left' is not a number"):
        decide(short.directory, context, observation="1")
    context.write_text(CONTEXT)
    (tmp_path / "late.csv").write_text(HEADER + "0,0,1,5,1,0.55\n0,0,2,4,,\n")
    with pytest.raises(UserError, match="t begins at 1, in the context at 0"):
        decide(short.directory, context, tmp_path / "late.csv")
    for observation in ("2.9", "1_0", "1e39", "nan", "9" * 30, "", "-1"):
        with pytest.raises(UserError, match="not among the 10 values known"):
            decide(short.directory, context, observation=observation)


def test_the_decider_takes_codes_and_finite_rewards_alone(short):
    decider = Decider(short)
    decider.reset(rows=1)
    for observation in ([2.0], [10], [-1], [2**40], ["a"], [True]):
        with pytest.raises(UserError, match="^observation .*codes"):
            decider.act(observation)
    decider.act([2])
    for action, reward in (([0.0], [0.1]), ([3], [0.1]), ([0], [1e39]), ([0], [np.nan]), ([0], ["a"])):
        with pytest.raises(UserError, match="^(action|reward) "):
            decider.observe(action, reward)
    for _ in range(3):
        decider.observe([1], [0.5])
    with pytest.raises(UserError, match="the episode is over after 3 steps"):
        decider.act([2])
    long = Trajectories(
        np.zeros((1, 1, 5), int), np.zeros((1, 1, 4), int), np.zeros((1, 1, 4)), np.ones((1, 1, 4), bool)
    )
    with pytest.raises(UserError, match="a context episode has 4 steps: the run's episodes have 3"):
        decider.reset(long)
