"""`icdm ope`: policies valued from a log whose truth is known in closed form."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from experiments.configs import base
from icdm.cli import main
from icdm.errors import UserError
from icdm.evaluation.logged import episodes_with_contexts, model_probabilities
from icdm.logs.log import log_of
from icdm.runs.data import open_data
from icdm.runs.ope import ope
from icdm.runs.run import Run
from icdm.runs.task_rows import read_rows, run_codings
from icdm.sharding import make_mesh

HEADER = "task_id,episode_id,t,observation,action,reward"
RIGHT = 0.6  # how often the behaviour does what pays
T = 3
LONG = "".join(f"0,999,{t},calm,go,1,0.6\n" for t in range(T + 1))  # an episode of one step more


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    """Two kinds of weather by chance; the action `go` pays 1 in calm, `stay` in storm. The behaviour is right in 3 of 5
    steps, so its episodes are worth 1.8, uniform actions 1.5, and what is right with probability p, 3 p."""
    rng = np.random.default_rng(0)
    lines = [HEADER + ",pscore"]
    for episode in range(600):
        for t in range(T):
            storm, right = rng.random() < 0.5, rng.random() < RIGHT
            action = "stay" if storm == right else "go"
            chance = RIGHT if right else 1 - RIGHT
            lines.append(f"0,{episode},{t},{'storm' if storm else 'calm'},{action},{int(right)},{chance}")
    path = tmp_path_factory.mktemp("log") / "log.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def policy_file(path, p):
    rows = [f"calm,go,{p}", f"calm,stay,{1 - p}", f"storm,stay,{p}", f"storm,go,{1 - p}", "snow,stay,1"]
    path.write_text("observation,action,probability\n" + "\n".join(rows) + "\n")
    return path


@pytest.mark.parametrize("policy,truth", [("uniform", 1.5), ("behavior", None), (0.75, 2.25)])
@pytest.mark.parametrize("recorded", [True, False])
def test_policies_are_worth_what_they_earn(policy, truth, recorded, log, tmp_path):
    if not recorded:
        text = log.read_text().replace("pscore", "spare")
        (tmp_path / "log.csv").write_text(text)
    path = log if recorded else tmp_path / "log.csv"
    name = policy if isinstance(policy, str) else policy_file(tmp_path / "policy.csv", policy)
    found = ope(path, name)
    assert found["behavior_probabilities"] == ("recorded" if recorded else "estimated")
    assert ("column pscore is read as behavior_probability" in found["notes"]) == recorded
    assert found["warnings"] == [] and found["untried"] == 0 and found["clipped"] == 0
    assert found["behavior"]["mean"] == pytest.approx(1.8, abs=0.15)
    assert 30 < found["effective_sample_size"] <= found["episodes"] == 600
    assert found["mean_weight"] == pytest.approx(1, abs=0.15)
    truth = truth or found["behavior"]["mean"]  # the frequencies are those of the log
    for name, estimate in found["estimates"].items():
        low, high = estimate["ci95"]
        assert abs(estimate["mean"] - truth) <= 1.5 * (high - low) + 0.02, name  # 6 standard errors


def test_the_discount_and_the_clip_are_used(log, tmp_path, capsys):
    policy = str(policy_file(tmp_path / "policy.csv", 0.75))
    main(["ope", str(log), "--policy", policy, "--discount", "0.5", "--json"])
    half = json.loads(capsys.readouterr().out)
    assert half["estimates"]["dr"]["mean"] == pytest.approx(0.75 * 1.75, abs=0.2)
    main(["ope", str(log), "--policy", policy, "--clip", "1.2"])
    said = capsys.readouterr().out
    assert "of weights above 1.2, clipped" in said and "weighted doubly robust" in said
    assert 0 < ope(log, policy, clip=1.2)["clipped"] < 1


def test_what_the_log_says_nothing_of_is_refused_or_told(log, tmp_path):
    sure = policy_file(tmp_path / "sure.csv", 1)
    few = tmp_path / "few.csv"
    few.write_text("\n".join(log.read_text().splitlines()[: 1 + T * 40]) + "\n")
    with pytest.raises(UserError, match="of 40 episodes the weights for .* effective sample size of .* at least 30"):
        ope(few, sure)
    lines = [line for line in log.read_text().splitlines() if "calm,go" not in line or line.startswith("task")]
    episodes = [line.split(",") for line in lines[1:]]
    renamed = [",".join(["0", str(i), "0", *cells[3:6]]) for i, cells in enumerate(episodes)]
    (tmp_path / "one.csv").write_text("\n".join([HEADER, *renamed]) + "\n")
    weight, overlap = ope(tmp_path / "one.csv", policy_file(tmp_path / "most.csv", 0.75))["warnings"]
    assert "do not overlap" in overlap and "most in calm" in overlap
    assert "and should be 1" in weight and "goes where the log has few episodes" in weight


def test_probabilities_with_which_nobody_acted_are_told_by_the_mean_weight(log, tmp_path):
    """The log's policy is right in 3 of 5 steps; a column that says in 9 of 10 makes weights of 2/3 or 4."""
    text = log.read_text().replace(f",1,{RIGHT}", ",1,0.9").replace(f",0,{1 - RIGHT}", ",0,0.1")
    (tmp_path / "log.csv").write_text(text)
    (tell,) = ope(tmp_path / "log.csv", "behavior")["warnings"]
    assert "the mean weight is" in tell and "probabilities, recorded, are wrong" in tell


@pytest.mark.parametrize(
    "text,said",
    [
        ("observation,action\ncalm,go\n", "column probability is missing"),
        ("observation,action,probability\ncalm,go,0.5\n", "row 1, column probability: .* add up to 1"),
        ("observation,action,probability\ncalm,fly,1\n", "row 1, column action: the log does not have this action"),
        ("observation,action,probability\ncalm,go,much\n", "row 1, column probability: 'much' is not a number"),
        ("observation,action,probability\ncalm,go,1\n", "no probabilities for observation storm"),
        ("observation,action,probability\n", "holds no rows: give observation, action, probability"),
    ],
)
def test_a_policy_that_is_none_is_refused(text, said, log, tmp_path):
    (tmp_path / "policy.csv").write_text(text)
    with pytest.raises(UserError, match=said):
        ope(log, tmp_path / "policy.csv")


def test_a_policy_of_vectors_is_refused(log, tmp_path):
    pq.write_table(
        pa.table({"observation": [[0], [1]], "action": [0, 1], "probability": [1.0, 1.0]}), tmp_path / "p.parquet"
    )
    with pytest.raises(UserError, match="column observation holds vectors"):
        ope(log, tmp_path / "p.parquet")


def test_other_mistakes_are_told(log):
    for policy in ("unifrom", ""):
        with pytest.raises(UserError, match="neither a run, uniform, behavior, nor a file"):
            ope(log, policy)
    with pytest.raises(UserError, match="--discount 0"):
        ope(log, "uniform", discount=0.0)
    with pytest.raises(UserError, match="--clip 0.5"):
        ope(log, "uniform", clip=0.5)
    with pytest.raises(UserError, match="no such file"):
        ope(log.parent / "none.csv", "uniform")


@pytest.fixture(scope="module")
def untrained(log, tmp_path_factory):
    """A run that has opened the log, but learned nothing from it."""
    c = base.get_config()
    c.family, c.horizon, c.problem = "recorded", T, {"states": 2, "actions": 2}
    c.data, c.data_labels, c.context.episodes = str(log), "imitation", 2
    c.model.update(width=16, layers=1, heads=2, kv_heads=2, hidden=16)
    c.pretrain.steps = c.fine_tune.steps = 0
    run = Run.claim(tmp_path_factory.mktemp("run"), c)
    open_data(run, make_mesh())
    return run


def test_a_run_is_valued_from_the_episodes_that_it_has_not_learned_from(untrained, log, tmp_path, monkeypatch):
    monkeypatch.setattr("icdm.runs.ope.LEAST_SAMPLE", 2)  # random weights may act far from the log's policy
    found = ope(log, str(untrained.directory))
    assert found["episodes"] == 60 and any("held-out episodes" in note for note in found["notes"])
    assert 0 < found["estimates"]["fqe"]["mean"] < T
    (tmp_path / "long.csv").write_text(log.read_text() + LONG)
    with pytest.raises(UserError, match="horizon 3"):
        ope(tmp_path / "long.csv", str(untrained.directory))


def test_every_episode_is_valued_once_behind_others_of_its_task(untrained, log):
    rows = read_rows(log, run_codings(untrained), None).rows
    part = log_of([rows[: 3 * T]], 2)
    row_BE = episodes_with_contexts(part, 3, np.random.default_rng(0))
    assert row_BE[:, -1].tolist() == [0, 1, 2]
    assert [sorted(row) for row in row_BE.tolist()] == [[-1, 0, 1, 2]] * 3  # one context episode is missing
    chance = model_probabilities(untrained.model(), untrained.layout, part, row_BE)
    whole = model_probabilities(untrained.model(), untrained.layout, part, row_BE[:, 1:])
    np.testing.assert_allclose(chance, whole, atol=1e-5)  # what is absent changes nothing
    assert chance.shape == (3, T, 2) and np.allclose(chance.sum(-1), 1)
