"""The ledger: verdicts, files, exit codes, one-line errors."""

import json
import pathlib
import subprocess
import sys

import pytest

from icdm.errors import UserError
from icdm.intervals import mean_interval, share_interval
from theory import ledger, verify
from theory.configs import quick
from theory.statistics import log_slope

ROOT = pathlib.Path(__file__).parent.parent
CONFIG = "--config=theory/configs/quick.py"


def run(*arguments):
    command = [sys.executable, "-m", "theory.verify", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)


def claim(**changes):
    fields = dict(
        id="x",
        claim="c",
        source="s",
        metric="m",
        measured={"a": 1.0, "b": 3},
        ci95={"a": [0.9, 1.1]},
        control={"z": 2.0},
        threshold={"a": "<= 1"},
        config={"seed": 0},
    )
    return ledger.Claim(**(fields | changes))


@pytest.mark.parametrize(
    "value, threshold, expected",
    [
        (1.0, "<= 1", True),
        (1.1, "<= 1", False),
        (0.9, ">= 0.9", True),
        (0.8, ">= 0.9", False),
        (-1.0, "-1.02 .. -0.98", True),
        (-1.1, "-1.02 .. -0.98", False),
        (float("nan"), "<= 1", False),
        (float("nan"), ">= 1", False),
        (float("nan"), "0 .. 1", False),
    ],
)
def test_thresholds(value, threshold, expected):
    assert claim(measured={"a": value}, threshold={"a": threshold}, ci95={}).holds is expected


@pytest.mark.parametrize(
    "interval, threshold, expected",
    [
        ([0.91, 0.95], ">= 0.9", "holds"),
        ([0.85, 0.95], ">= 0.9", "undecided"),
        ([0.80, 0.89], ">= 0.9", "undecided"),  # the number itself, 0.93, meets it
        ([0.80, 0.89], ">= 0.94", "fails"),
        ([0.91, 0.95], "<= 0.94", "undecided"),
        ([0.91, 0.95], "0.92 .. 0.94", "undecided"),
        ([0.91, 0.95], "0.9 .. 1", "holds"),
        ([0.91, 0.95], "0 .. 0.9", "fails"),
        ([0.91, float("nan")], "<= 1", "fails"),
    ],
)
def test_the_whole_interval_decides(interval, threshold, expected):
    found = claim(measured={"a": 0.93}, threshold={"a": threshold}, ci95={"a": interval})
    assert found.verdict == expected and found.holds is (expected == "holds")
    assert f"a ({threshold})" in ledger.sentence(found) or found.holds


def test_a_number_that_fails_outweighs_one_that_is_undecided():
    found = claim(threshold={"a": "<= 1", "b": ">= 4"})
    assert found.verdicts == {"a": "undecided", "b": "fails"} and found.verdict == "fails"
    assert ledger.sentence(found) == "Outside the threshold: b (>= 4)."


def test_json_has_the_documented_keys(tmp_path):
    ledger.write(tmp_path / "claims.json", [claim()])
    (entry,) = json.loads((tmp_path / "claims.json").read_text())
    keys = ["id", "claim", "source", "metric", "measured", "ci95", "control", "threshold", "verdict", "holds"]
    assert list(entry) == [*keys, "seconds", "config", "made_with"]
    assert entry["holds"] is False and entry["verdict"] == "undecided"
    assert not (tmp_path / "claims.partial").exists()


def test_command_writes_ledger_report_and_figures(tmp_path):
    result = run(CONFIG, f"--workdir={tmp_path}", "--only=linear_q", "--config.linear_q.problems=4", "--seed=3")
    assert result.returncode == 0, result.stderr
    (entry,) = json.loads((tmp_path / "claims.json").read_text())
    assert entry["id"] == "linear_q" and entry["holds"] and entry["config"]["problems"] == 4 and entry["seconds"] > 0
    assert entry["config"]["seed"] == 3
    page = (tmp_path / "report.html").read_text()
    assert "data:image/png;base64," in page and 'src="http' not in page and "linear_q" in page
    assert {p.name for p in (tmp_path / "figures").iterdir()} == {"linear_q.png", "linear_q.pdf"}
    assert "linear_q: holds" in result.stdout


@pytest.mark.slow
def test_other_claims_stay_in_the_ledger_and_unchanged_ones_are_not_computed_again(tmp_path, monkeypatch):
    config = quick.get_config()
    config.linear_q.problems = 4
    config.shift.prompts = 1000
    verify.verify(config, tmp_path, ["shift"])
    other = json.dumps(json.loads((tmp_path / "claims.json").read_text())[0])
    verify.verify(config, tmp_path, ["linear_q"])
    first, second = json.loads((tmp_path / "claims.json").read_text())
    assert (first["id"], json.dumps(second)) == ("linear_q", other), "in the order of the config"
    page = (tmp_path / "report.html").read_text()
    assert "linear_q" in page and "shift" in page

    def computed(name, *_):
        raise UserError(f"{name} is computed")

    monkeypatch.setattr(verify, "check", computed)
    assert [claim.id for claim in verify.verify(config, tmp_path, ["linear_q", "shift"])] == ["linear_q", "shift"]
    config.linear_q.problems = 5
    with pytest.raises(UserError, match="linear_q is computed"):
        verify.verify(config, tmp_path, ["linear_q"])
    assert len(json.loads((tmp_path / "claims.json").read_text())) == 2
    (tmp_path / "claims.json").write_text('[{"id": 1}]')
    with pytest.raises(UserError, match="claims.json is damaged: delete it"):
        verify.verify(config, tmp_path, ["linear_q"])


def test_help_shows_the_flag_of_the_config():
    result = run("--help")
    assert result.returncode == 0 and "--config" in result.stdout and "--only" in result.stdout


def test_a_failing_claim_is_reported_and_only_strict_fails(tmp_path):
    changes = ("stickiness=(0.0,)", "trajectories=2000", "tables=10")
    overrides = [f"--config.trajectory_data.{change}" for change in changes]
    weak = [CONFIG, f"--workdir={tmp_path}", "--only=trajectory_data", *overrides]
    result = run(*weak)
    assert result.returncode == 0 and "trajectory_data: fails" in result.stdout
    assert "0 of 1 claims hold; fails: trajectory_data" in result.stdout
    assert not json.loads((tmp_path / "claims.json").read_text())[0]["holds"]
    assert run(*weak, "--strict").returncode == 1


@pytest.mark.parametrize(
    "arguments, words",
    [
        ([CONFIG, "--config.slopes.promptz=3"], ["promptz", "slopes.prompts"]),
        ([CONFIG, "--only=slope"], ["unknown claim 'slope'", "'slopes'"]),
        (
            [CONFIG, "--only=slopes", "--config.slopes.dimension=30"],
            ["dimension 30 exceeds the prompt length 20"],
        ),
        (
            [CONFIG, "--config.slopes.prompts=1000000000000"],
            ["slopes.prompts 1000000000000: would take at least", "GiB"],
        ),
        (["--config=nowhere.py"], ["nowhere.py"]),
        ([CONFIG, "--only=linear_q", "--workdir=/dev/null/x"], ["/dev/null/x", "choose another directory"]),
    ],
)
def test_mistakes_are_one_line(arguments, words, tmp_path):
    arguments = [*arguments] if any("workdir" in a for a in arguments) else [*arguments, f"--workdir={tmp_path}"]
    result = run(*arguments)
    assert result.returncode == 2
    message = result.stderr.strip().splitlines()
    assert len(message) == 1 and message[0].startswith("theory.verify: ")
    assert all(word in message[0] for word in words)


def test_help_does_not_import_jax():
    script = "import sys; import theory.verify; sys.exit('jax' in sys.modules or 'matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], cwd=ROOT, timeout=60).returncode == 0


def test_intervals():
    mean, (low, high) = mean_interval([1.0, 2.0, 3.0])
    assert mean == 2.0 and low < 2.0 < high
    share, (low, high) = share_interval(20, 20)
    assert share == 1.0 and 0.8 < low < 1 and high == 1.0
    assert abs(log_slope([1, 10, 100], [1, 100, 10_000]) - 2) < 1e-12
