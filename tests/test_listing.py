"""icdm list and icdm compare, on the directories that the commands leave."""

import argparse
import json
import shutil

import numpy as np
import pytest
from test_runs import OLD as OLD_RUN

from icdm import cli
from icdm.files import write_json
from icdm.problems.family import families
from icdm.runs import compare
from icdm.runs.run import Run


def test_families_configs_and_runs_are_named(capsys, tmp_path):
    shutil.copytree(OLD_RUN, tmp_path / "finished")
    shutil.copytree(OLD_RUN, tmp_path / "broken")
    (tmp_path / "broken/results.json").write_text("{")
    (tmp_path / "begun").mkdir()
    shutil.copy(OLD_RUN / "config.json", tmp_path / "begun")
    cli.main(["list", "--runs", str(tmp_path)])
    said = capsys.readouterr().out
    for name in families():
        assert f"\n  {name}:" in said
    assert "tabular\n      One model for small problems" in said and "Some 12 minutes of two cores." in said
    assert "finished: energy, finished, normalized gap" in said
    assert "begun: energy, not begun, stopped" in said and "broken: " in said and "is damaged" in said


def test_configs_are_not_run_to_be_listed(capsys, tmp_path):
    (tmp_path / "danger.py").write_text('"""It asks nothing.\n\n    a command of 9 minutes of one core.\n"""\n1 / 0\n')
    cli.main(["list", "configs", "--configs", str(tmp_path)])
    assert capsys.readouterr().out == "configs:\n  danger\n      It asks nothing.\n\n"


@pytest.fixture()
def two(tmp_path):
    """A run and another that differs in a field and does worse by .25 of what can be won, in every task."""
    one, other = tmp_path / "one", tmp_path / "other"
    shutil.copytree(OLD_RUN, one)
    shutil.copytree(OLD_RUN, other)
    config = json.loads((other / "config.json").read_text())
    write_json(other / "config.json", config | {"seed": 5})
    values = dict(np.load(other / "values.npz"))
    values["policy/fine_tuned"] = values["policy/fine_tuned"] - 0.25 * (values["optimal"] - values["random"])
    np.savez(other / "values.npz", **values)
    return one, other


def test_what_differs_and_by_how_much(two, capsys, tmp_path):
    cli.main(["compare", *map(str, two), "--figure", str(tmp_path / "gaps.png")])
    said = capsys.readouterr().out
    assert "seed" in said and "25.0 [25.0," in said and (tmp_path / "gaps.png").stat().st_size > 1000
    cli.main(["compare", *map(str, two), "--json"])
    found = json.loads(capsys.readouterr().out)
    assert list(found["config"]) == ["seed"] and found["config"]["seed"][1] == 5
    np.testing.assert_allclose(found["normalized_gap"]["fine_tuned"]["difference"]["mean"], 0.25, atol=1e-6)
    assert found["normalized_gap"]["random"]["difference"]["mean"] == 0


def test_other_tasks_are_not_paired(two, capsys):
    values = dict(np.load(two[1] / "values.npz"))
    np.savez(two[1] / "values.npz", **values | {"optimal": values["optimal"] + 1})
    assert not any("difference" in own for own in compare.compared(*map(Run.open, two))[1].values())
    compare.main(argparse.Namespace(one=two[0], other=two[1], json=False, figure=None))
    assert "not met the same tasks" in capsys.readouterr().out


def test_runs_without_a_common_policy_differ_in_their_configs_alone(two, capsys):
    np.savez(two[1] / "values.npz")
    cli.main(["compare", *map(str, two)])
    said = capsys.readouterr().out
    assert "seed" in said and "of no policy in both runs" in said
    with pytest.raises(SystemExit) as stopped:
        cli.main(["compare", *map(str, two), "--figure", "gaps.png"])
    assert stopped.value.code == 2 and "there is nothing to draw" in capsys.readouterr().err


def test_a_directory_of_runs_that_is_none_is_refused(capsys, tmp_path):
    (tmp_path / "file").touch()
    for name in ("file", "none"):
        with pytest.raises(SystemExit) as stopped:
            cli.main(["list", "runs", "--runs", str(tmp_path / name)])
        assert stopped.value.code == 2 and "give that of the runs with --runs" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "message"),
    [("results.json", "has no results yet"), ("config.json", "is not a run"), ("", "ends in .png")],
)
def test_runs_that_cannot_be_compared(two, change, message, capsys):
    if change:
        (two[1] / change).unlink()
    with pytest.raises(SystemExit) as stopped:
        cli.main(["compare", *map(str, two), "--figure", "gaps.txt"])
    assert stopped.value.code == 2 and message in capsys.readouterr().err
