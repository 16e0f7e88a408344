"""From a log to a decision in three commands: describe, train, decide; then its value from the log."""

import json
import shutil

import numpy as np
import pytest

from experiments.configs import log as log_config
from experiments.experiment import run
from icdm.cli import main
from icdm.errors import UserError
from icdm.learning.log_source import LogSource
from icdm.runs.decide import decide
from icdm.runs.decide_by_model import decide_by_model
from icdm.runs.monitor import read_metrics
from icdm.runs.ope import ope
from icdm.runs.run import Run
from icdm.runs.sizes import with_sizes_of_data

COLUMNS = ["observation=HR", "action=dose", "reward=gain", "t=hour", "episode_id=stay"]
T = 3


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    """Doses by chance, in columns of the hospital's own names: `none` pays 2 where the heart rate is low, else `some`
    does, and everything else costs 1. Once a dose of `much` paid 2."""
    rng = np.random.default_rng(0)
    lines = ["stay;hour;HR;dose;gain;ward"]
    for stay in range(240):
        for hour in range(T):
            rate, dose = rng.choice(["low", "high"]), rng.choice(["none", "some"])
            right = dose == ("none" if rate == "low" else "some")
            lines.append(f"{stay};{hour};{rate};{dose};{2 if right else -1};A")
    lines.append("240;0;low;much;2;A")
    path = tmp_path_factory.mktemp("log") / "log.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="module")
def trained(log, tmp_path_factory):
    c = log_config.get_config()
    c.data, c.columns = str(log), " ".join(COLUMNS)
    c.model.update(width=16, layers=1, heads=2, kv_heads=2, hidden=32)
    c.fine_tune.update(steps=60, batch=16, learning_rate=1e-2, warmup=5)
    workdir = tmp_path_factory.mktemp("run")
    return c, workdir, run(c, workdir)


def test_a_log_of_random_actions_teaches_the_good_ones(log, trained, tmp_path, capsys):
    main(["describe", str(log), "--columns", *COLUMNS])
    said = capsys.readouterr().out
    assert "not read: ward" in said and "defects: none" in said
    _, workdir, results = trained
    policies = {name: policy["value"]["mean"] for name, policy in results["policies"].items()}
    assert policies["fine_tuned_sampled"] > policies["behavior"] + 1
    for rate, dose in (("low", "none"), ("high", "some")):
        main(["decide", "--run", str(workdir), "--observation", rate, "--json"])
        found = json.loads(capsys.readouterr().out)
        assert found["action"] == dose and found["context_episodes"] == 0
        assert found["probabilities"]["much"] < 0.2  # it was tried once
    (tmp_path / "history.csv").write_text("stay;hour;HR;dose;gain\n9;0;low;none;2\n9;1;high;;\n")
    (tmp_path / "context.csv").write_text("\n".join(log.read_text().splitlines()[: 1 + T]) + "\n")
    found = decide(workdir, tmp_path / "context.csv", history=tmp_path / "history.csv")
    assert (found["action"], found["step"], found["context_episodes"]) == ("some", 1, 1)


def test_values_of_each_episode_are_kept_and_two_runs_of_a_log_can_be_compared(trained, tmp_path, capsys):
    _, workdir, results = trained
    values = np.load(workdir / "values.npz")
    for name, policy in results["policies"].items():
        assert values[f"policy/{name}"].mean() == pytest.approx(policy["value"]["mean"])
        assert len(values[f"policy/{name}"]) == policy["value"]["n_tasks"]
    shutil.copytree(workdir, tmp_path / "other")
    main(["compare", str(workdir), str(tmp_path / "other"), "--json"])
    found = json.loads(capsys.readouterr().out)
    assert found["value"]["fine_tuned_sampled"]["difference"]["mean"] == 0
    main(["compare", str(workdir), str(tmp_path / "other"), "--figure", str(tmp_path / "values.png")])
    assert "value [95 % interval]" in capsys.readouterr().out


def test_training_on_a_log_ends_where_held_out_episodes_say_so(trained, tmp_path, monkeypatch):
    c = trained[0].copy_and_resolve_references()
    c.fine_tune.update(steps=400, learning_rate=1.0, validation=0.25, validate_every=5, patience=2, log_every=5)
    seen = []
    batch = LogSource.batch
    monkeypatch.setattr(LogSource, "batch", lambda self, step: seen.append(self.log.contexts[0]) or batch(self, step))
    monkeypatch.setattr("icdm.runs.phases.VALIDATION_BATCHES", 1)
    run(c, tmp_path / "run")
    steps = [line for line in read_metrics(tmp_path / "run" / "metrics.jsonl") if "validation_loss" in line]
    best = min(steps, key=lambda line: line["validation_loss"])
    assert steps[-1]["step"] == best["step"] + 2 * 5 < 400
    learned, held = ({tuple(own) for own in seen if len(own) // 100 == n} for n in (1, 0))
    [learned], [held] = learned, held
    assert len(held) == 54 and len(learned) == 163 and not set(held) & set(learned)
    c.fine_tune.validation = 0.0
    with pytest.raises(UserError, match="fine_tune.validation and fine_tune.validate_every go together"):
        run(c, tmp_path / "other")


def test_sizes_that_a_config_lacks_are_the_files(log, trained):
    c, workdir, _ = trained
    family = Run.open(workdir).family
    assert (family.n_states, family.n_actions, family.horizon, family.reward_range) == (2, 3, T, (-1.0, 2.0))
    given = c.copy_and_resolve_references()
    with given.unlocked():
        given.problem.states = 7
    given.horizon = 5
    sized = with_sizes_of_data(given)
    assert sized["horizon"] == 5 and sized["problem"]["states"] == 7 and sized["problem"]["actions"] == 3
    assert run(c, workdir)["policies"]  # the same command goes on, from the same sizes


def test_mistakes_in_what_a_config_says_of_its_log_are_told(log, tmp_path):
    c = log_config.get_config()
    c.data, c.columns = str(log), "observation=HR 'action=dose"
    with pytest.raises(UserError, match="columns .*no closing quotation"):
        run(c, tmp_path / "run")
    c.columns = "observation=heart"
    with pytest.raises(UserError, match="unknown column of .* 'heart'"):
        run(c, tmp_path / "run")
    c.data = str(tmp_path / "none.csv")
    with pytest.raises(UserError, match="none.csv: no such file"):
        run(c, tmp_path / "run")
    c.data = ""
    with pytest.raises(UserError, match="takes its sizes from a log: give --config.data=FILE"):
        run(c, tmp_path / "run")
    c.horizon = 3
    with pytest.raises(UserError, match="columns names those of a data file"):
        c.family = "energy"
        run(c, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    with pytest.raises(UserError, match="give a record of this one, --context FILE"):
        decide_by_model("tabular", None, observation="low")


def test_the_run_is_valued_in_the_columns_that_it_learned_from(log, trained):
    _, workdir, _ = trained
    with pytest.raises(UserError, match="of 24 episodes the weights for .* effective sample size"):
        ope(log, str(workdir))  # the held-out tenth is small
