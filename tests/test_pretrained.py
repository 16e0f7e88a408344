"""Models for problems of any size: trained on a mixture, exported, and acting on records without training."""

import json
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.configs import base
from experiments.evaluate import evaluate
from experiments.experiment import run
from icdm.cli import main
from icdm.errors import UserError
from icdm.oracles.backward_induction import backward_induction
from icdm.problems.mdp import make_mdp
from icdm.runs import pretrained
from icdm.runs.decide_by_model import decide_by_model
from icdm.runs.decider import Decider
from icdm.runs.export import export_examples
from icdm.runs.phases import Phases
from icdm.runs.pretrained import SHIPPED, pretrained_run
from icdm.runs.run import Run
from icdm.runs.settings import Settings
from icdm.trajectories.trajectory import Step

HEADER = "task_id,episode_id,t,observation,action,reward,terminal\n"
MIXTURE = dict(
    small=dict(
        family="random_mdp:states=3,actions=2,horizon=3",
        context="uniform:4",
        teacher="posterior_mean_replanned",
        rows=4,
    ),
    other=dict(family="tabular:states=6,actions=3,horizon=5", context="mixture:2", rows=2),
)


def config(**fine_tune):
    c = base.get_config()
    c.family, c.horizon = "random_mdp", 3
    c.problem = dict(states=3, actions=2)
    c.context.update(episodes=2, behavior="uniform")
    c.reward_bins = 2
    c.model.update(width=16, layers=2, heads=2, kv_heads=2, hidden=16, rotary_base=0.0, prefix=True, max_length=200)
    c.pretrain.update(steps=0, mixture=())
    c.fine_tune.update(steps=2, batch=6, labels="advantage", iterates=True, names=9, mixture=MIXTURE, log_every=1)
    c.fine_tune.update(**fine_tune)
    c.evaluation.update(tasks=4, episodes=1)
    return c


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    found = Run.claim(tmp_path_factory.mktemp("mixture"), config())
    Phases(found).train_all()
    return found


@pytest.fixture(scope="module")
def model(trained, tmp_path_factory):
    out = tmp_path_factory.mktemp("models") / "model"
    main(["export", str(trained.directory), "--model", str(out)])
    return out


def test_one_vocabulary_and_the_last_steps_are_named_alike(trained):
    other, small = (part.layout for part in trained.settings.mixture)
    assert small.n_observations == other.n_observations == 9 and small.n_actions == 3
    assert (small.family_actions, other.family_actions) == (2, 3)
    assert (small.family_horizon, other.family_horizon) == (3, 5)
    nothing = Step(jnp.array(0), jnp.array(0), jnp.array(0.0), jnp.array(0))
    before = small.append(jnp.array(0), nothing, jnp.array(0))
    assert before.id[0, -1] - small.slices["step"].start == 2, "three steps to come, as in step 2 of 5"


def test_a_mixture_goes_on_from_an_exported_model(model, trained, tmp_path):
    ours = Run.claim(tmp_path / "next", config(start=str(model), steps=0))
    start = Phases(ours).train_all()["fine_tuned"].named_weights()
    for name, weight in trained.model("fine_tuned").named_weights().items():
        np.testing.assert_allclose(start[name], weight, rtol=2**-8)
    wider = config(start=str(model))
    wider.model.width = 32
    for c, message in [
        (config(start=str(model), names=12), "has n_observations 9, this mixture 12"),
        (wider, "has a model of another shape"),
        (config(start=str(tmp_path)), "is no exported model"),
    ]:
        with pytest.raises(UserError, match=message):
            run(c, tmp_path / "refused")
    assert not (tmp_path / "refused" / "config.json").exists()


@pytest.mark.slow
def test_a_trained_model_is_measured_in_other_families(trained):
    changes = ["family=tabular", "problem.states=7", "problem.actions=3", "horizon=9", "evaluation.tasks=3"]
    results = evaluate(trained.directory, "tabular", changes)
    assert results["family"] == "tabular"
    assert results["policies"]["fine_tuned"]["value"]["n_tasks"] == 3  # in some of which nothing is at stake


def test_problems_that_are_too_large_are_refused(trained):
    with pytest.raises(UserError, match="10 states, the model has names for 9"):
        evaluate(trained.directory, "too_large", ["problem.states=10"])


def test_exported_weights_are_the_models_in_bfloat16(trained, model):
    read = pretrained_run(model, 4, 3, 11, 0.0, 2.0).model("fine_tuned").named_weights()
    for name, weight in trained.model("fine_tuned").named_weights().items():
        assert read[name].dtype == jnp.float32
        np.testing.assert_allclose(read[name], weight, rtol=2**-8)


def test_values_are_in_the_units_of_the_rewards(model):
    """Rewards that are a hundred times as large lead to the same action, and to values a hundred times as large."""
    found = []
    for unit in (1.0, 100.0):
        decider = Decider.pretrained(model, states=4, actions=3, horizon=11, rewards=(0.0, unit))
        decider.reset(rows=1)
        decider.act([0])
        decider.observe([1], [0.5 * unit])
        found.append(decider.act([2]))
    np.testing.assert_allclose(found[0].probability, found[1].probability, rtol=1e-5)
    np.testing.assert_allclose(100 * found[0].value, found[1].value, rtol=1e-5)


def record(path, episodes):
    """Writes episodes of (observation, action, reward, terminal) as a CSV file."""
    lines = [
        f"0,{e},{t},{','.join(map(str, step))}\n" for e, steps in enumerate(episodes) for t, step in enumerate(steps)
    ]
    path.write_text(HEADER + "".join(lines))
    return path


PATHS = ("train", "city", 5), ("bus", "moor", 0), ("stay", "home", 0)
WARD = [
    [("home", "wait", 1, 0), ("ward", "treat", 5, 1)],
    [("home", "treat", 0, 0), ("ward", "wait", 2, 0), ("home", "wait", 3, 0)],
]


def test_a_record_with_words_is_decided_on_without_training(model, tmp_path, capsys):
    context = record(tmp_path / "ward.csv", WARD)
    main(["decide", "--model", str(model), "--context", str(context), "--observation", "ward", "--json"])
    answer = json.loads(capsys.readouterr().out)
    assert set(answer["probabilities"]) == {"wait", "treat"} and answer["context_episodes"] == 2
    assert sum(answer["values"].values()) == pytest.approx(0, abs=1e-5)
    main(["decide", "--model", str(model), "--context", str(context), "--observation", "ward", "--horizon", "9"])
    assert "certainty equivalence" in capsys.readouterr().out
    history = tmp_path / "now.csv"
    history.write_text(HEADER + "0,0,0,home,wait,2,0\n0,0,1,ward,,,0\n")
    assert decide_by_model(model, context, history=history)["step"] == 1


def test_the_model_of_the_package_decides_on_a_record(tmp_path, capsys):
    """Names that it has never seen: what pays at once, and what pays a step later."""
    at_once = [[("desk", action, reward, 1)] for action, reward in (("call", 1), ("mail", 0)) for _ in range(4)]
    later = [[("home", action, 0, 0), (to, "stay", reward, 1)] for action, to, reward in PATHS for _ in range(4)]
    for episodes, observation, best in ((at_once, "desk", "call"), (later, "home", "train")):
        context = record(tmp_path / f"{observation}.csv", episodes)
        main(["decide", "--model", "tabular", "--context", str(context), "--observation", observation, "--json"])
        answer = json.loads(capsys.readouterr().out)
        assert answer["action"] == best == answer["certainty_equivalence"]["action"]
    Decider.pretrained("tabular", states=64, actions=8, horizon=32).reset(rows=1)


def test_certainty_equivalence_is_the_plan_of_the_frequencies(model, tmp_path):
    """Against a problem written down by hand: state 2 stands for the end, which pays nothing more."""
    context = record(tmp_path / "ward.csv", WARD)
    answer = decide_by_model(model, context, observation="ward", horizon=3)
    home, ward, end, treat, wait = 0, 1, 2, 0, 1
    transition, reward = np.zeros((2, 3, 3)), np.zeros((3, 2))
    transition[wait, home, ward] = 1  # the last step of the second episode says nothing of what followed
    transition[treat, home, ward] = 1
    transition[treat, ward, end] = 1
    transition[wait, ward, home] = 1
    transition[:, end] = 1 / 3
    reward[home, wait], reward[home, treat], reward[ward, treat], reward[ward, wait] = 1, 0, 5, 2
    problem = make_mdp(transition, reward, [1, 0, 0], discount=1.0, horizon=3, terminal=[False, False, True])
    q = np.asarray(backward_induction(problem)[0])[0, ward]
    found = answer["certainty_equivalence"]
    np.testing.assert_allclose([found["values"][a] for a in ("treat", "wait")], q - q.mean(), atol=1e-6)
    assert found["action"] == ("treat", "wait")[q.argmax()]


def test_mistakes_are_one_line_each(trained, model, tmp_path, capsys):
    context = record(tmp_path / "ward.csv", WARD)
    large = record(tmp_path / "large.csv", [[(i, 0, 1, 0) for i in range(9)]])
    many = record(tmp_path / "many.csv", [[(0, i, 1, 0) for i in range(4)]])
    cut, altered, missing = (shutil.copytree(model, tmp_path / name) for name in ("cut", "altered", "missing"))
    weights = "weights.safetensors"
    (cut / weights).write_bytes((model / weights).read_bytes()[:-9])
    (altered / "config.json").write_text((model / "config.json").read_text().replace('"names": 9', '"names": 8'))
    (missing / weights).unlink()
    cases = [
        (["--model", str(tmp_path), "--context", str(context)], "is no exported model"),
        (["--model", str(model), "--context", str(large)], "10 states, the model has names for 9"),
        (["--model", str(model), "--context", str(many)], "4 actions, the model has names for 3"),
        (["--model", str(model), "--context", str(context), "--horizon", "2"], "an episode of 3 steps"),
        (
            ["--model", str(model), "--context", str(context), "--horizon", "9999"],
            "9,999 decisions in an episode: model",
        ),
        (["--model", str(cut), "--context", str(context)], "its checksum differs"),
        (["--model", str(altered), "--context", str(context)], "its checksum differs"),
        (["--model", str(missing), "--context", str(context)], "weights.safetensors is missing"),
        (["--run", str(trained.directory), "--context", str(context), "--horizon", "3"], "goes with --model"),
    ]
    for arguments, message in cases:
        with pytest.raises(SystemExit) as stopped:
            main(["decide", *arguments, "--observation", "0" if str(context) not in arguments else "ward"])
        said = capsys.readouterr().err
        assert stopped.value.code == 2 and said.count("\n") == 1 and message in said, said


def test_a_damaged_model_of_the_package_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(pretrained, "SHIPPED", tmp_path)
    shutil.copytree(SHIPPED / "tabular", tmp_path / "tabular")
    (tmp_path / "tabular" / "weights.safetensors").write_bytes(b"")
    with pytest.raises(UserError, match="its checksum differs.: install the package again"):
        pretrained_run("tabular", 3, 2, 4, 0.0, 1.0)


def test_examples_are_of_one_family(trained, tmp_path):
    with pytest.raises(UserError, match="learns from several families"):
        export_examples(trained.directory, tmp_path / "examples.jsonl")


def test_configs_that_are_refused():
    alone = config(start="model")
    alone.fine_tune.mixture = {}
    with pytest.raises(UserError, match="fine_tune.start goes with fine_tune.mixture"):
        Settings.from_config(alone)
    part = MIXTURE["small"]
    cases = [
        (dict(batch=7), "has 6 rows, fine_tune.batch is 7"),
        (dict(names=5), "has 6 states: raise fine_tune.names"),
        (dict(labels="boltzmann"), "set advantage or argmax"),
        (dict(mixture=dict(a=part | dict(context="uniform"))), "mixture.a.context 'uniform': write BEHAVIOR:EPISODES"),
        (dict(mixture=dict(a=part | dict(context="uniform:0"))), "show at least 1"),
        (dict(mixture=dict(a=part | dict(teacher="me"))), "unknown fine_tune.mixture.a.teacher"),
        (dict(mixture=dict(a=part | dict(row=1))), "unknown config field 'fine_tune.mixture.a.row'"),
        (dict(mixture=dict(a=part | dict(family="tiger"))), "shows its state"),
        (dict(mixture=dict(a=part | dict(family="tabular:states=4"))), "computes no posterior"),
        (dict(mixture=dict(a=3)), "give family, context, teacher, rows for each part"),
        (dict(batch=10, mixture=dict(a=part | dict(context="uniform:60"))), "positions, the model's limit is 200"),
    ]
    for changes, message in cases:
        with pytest.raises(UserError, match=message):
            Settings.from_config(config(**changes))
    c = config()
    c.layout = "interleaved"
    with pytest.raises(UserError, match="set layout to transition"):
        Settings.from_config(c)


@pytest.mark.parametrize("labels", [pytest.param("advantage", marks=pytest.mark.slow), "argmax"])
def test_a_mixture_learns_from_a_pool_of_tasks(tmp_path, labels):
    """The rows are of the pool's tasks alone, held-out tasks say which weights are kept, and the memoriser knows the
    others; a part without rows lends its names."""
    mixture = dict(small=dict(rows=6), other=dict(rows=0))
    run = Run.claim(tmp_path, config(mixture=mixture, labels=labels, pool=4, validation=0.25, validate_every=1))
    assert (run.layout.n_actions, run.layout.horizon) == (3, 5)
    phases = Phases(run)
    learned, others = phases.data.sources(jax.random.key(0), 6)
    (part,), (held_out,) = learned.sources, others.sources
    assert (part.among, held_out.among) == ((0, 3), (3, 4))
    found, _ = phases.evaluate(phases.train_all())
    assert "memoriser" in found["policies"]
    assert "validation_loss" in (tmp_path / "metrics.jsonl").read_text()


def test_the_model_of_the_package_is_measured_without_training(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    changes = ["family=random_mdp", "problem.states=3", "problem.actions=2", "horizon=3", "context.episodes=2"]
    changes += ["evaluation.tasks=4", "evaluation.planners=[]"]
    with pytest.raises(UserError, match="say with --out where to write"):
        evaluate(Path("tabular"), "small", changes)
    found = evaluate(Path("tabular"), "small", changes, out=tmp_path / "measured")
    assert found == json.loads((tmp_path / "measured/small/results.json").read_text()) and not Path("tabular").exists()


def test_states_reached_are_states_acted_on_turned(trained):
    """Before training, embeddings of the two names of a state have the same angles to those of other states."""
    model, layout = trained.model("start"), trained.layout
    first, second = (np.asarray(model.embed[...])[part] for part in layout.twins)
    assert first.shape == second.shape == (9, 16) and np.abs(first - second).max() > 0.1
    np.testing.assert_allclose(first @ first.T, second @ second.T, atol=1e-4)
