"""Work directories: one process at a time, claimed late, never taken from another, damage said in one line."""

import json
import pathlib
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
from commands import ROOT, environment
from recorded_files import GOOD, write

from experiments.configs import base
from experiments.experiment import run
from experiments.sweep import Grid, sweep
from experiments.sweep_report import pool
from icdm.errors import UserError
from icdm.evaluation.summary import summarize
from icdm.evaluation.table import columns_of, print_table
from icdm.files import checksum, locked, read_arrays, read_json, write_text
from icdm.runs.data import open_data
from icdm.runs.monitor import Monitor, read_metrics
from icdm.runs.run import SWEEP, Run
from icdm.sharding import make_mesh

OLD = pathlib.Path(__file__).parent / "data" / "old_run"


def python(code):
    return subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def test_a_second_process_is_refused_and_the_lock_ends_with_the_first(tmp_path):
    hold = f"import pathlib, time; from icdm.files import locked\nwith locked(pathlib.Path({str(tmp_path)!r})):\n"
    first = python(hold + "    print('here', flush=True); time.sleep(600)")
    assert first.stdout.readline() == b"here\n"
    with (
        pytest.raises(UserError, match=f"another process is at work in {tmp_path}: wait for its end"),
        locked(tmp_path),
    ):
        raise AssertionError("both are at work")
    first.send_signal(signal.SIGKILL)
    first.communicate()
    with locked(tmp_path):
        pass


def test_temporary_files_do_not_follow_links(tmp_path):
    (tmp_path / "elsewhere").write_text("kept")
    (tmp_path / "file.partial").symlink_to(tmp_path / "elsewhere")
    write_text(tmp_path / "file", "new")
    assert (tmp_path / "file").read_text() == "new" and (tmp_path / "elsewhere").read_text() == "kept"
    (tmp_path / ".lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="cannot use"), locked(tmp_path):
        pass


def test_runs_and_sweeps_keep_out_of_one_anothers_directories(tmp_path):
    config = base.get_config()
    shutil.copytree(OLD, tmp_path / "run")
    before = (tmp_path / "run" / "results.json").read_bytes()
    with pytest.raises(UserError, match="belongs to a run and not to a sweep"):
        sweep(Grid(config, tmp_path / "run", {"horizon": [2]}, 1))
    assert (tmp_path / "run" / "results.json").read_bytes() == before
    for name in (SWEEP, "results.json"):
        directory = tmp_path / name
        directory.mkdir()
        (directory / name).write_text("{}")
        with pytest.raises(UserError, match=f"holds a sweep \\({name}\\) and not a run"):
            run(config, directory)
        assert not (directory / "config.json").exists()


def test_every_run_of_a_sweep_is_checked_before_the_first_begins(tmp_path):
    with pytest.raises(UserError, match="evaluation.tasks: would take at least"):
        sweep(Grid(base.get_config(), tmp_path / "sweep", {"evaluation.tasks": [10, 10**9]}, 1))
    assert not (tmp_path / "sweep").exists()


@pytest.fixture
def recorded():
    pytest.importorskip("pyarrow")
    config = base.get_config()
    config.data_labels = "imitation"
    return config


def test_a_directory_is_claimed_only_once_the_data_have_been_checked(recorded, tmp_path, monkeypatch):
    monkeypatch.setattr("experiments.experiment.StopRequest", lambda: None)  # it takes SIGINT from pytest
    recorded.data = str(write(tmp_path / "log.csv", GOOD.replace("0.25", "often")))
    with pytest.raises(UserError, match="log.csv"):
        run(recorded, tmp_path / "run")
    assert not (tmp_path / "run" / "config.json").exists()


def test_data_that_have_changed_are_refused_when_a_run_goes_on(recorded, tmp_path):
    path = write(tmp_path / "log.csv", GOOD)
    recorded.data = str(path)
    directory = tmp_path / "run"
    directory.mkdir()
    open_data(Run.prepared(directory, recorded), make_mesh())
    assert read_json(directory / "data.json", "")["sha256"] == checksum(path)
    path.write_text(GOOD.replace("0.25", "0.75"))
    open_data(Run.prepared(directory, recorded), make_mesh())  # no run has begun
    claimed = Run.claim(directory, recorded)
    open_data(claimed, make_mesh())
    path.write_text(GOOD)
    with pytest.raises(UserError, match=r"log.csv has changed since .* began: restore it"):
        open_data(claimed, make_mesh())


def test_a_directory_has_one_checksum_of_all_its_files(tmp_path):
    (tmp_path / "a").mkdir()
    write(tmp_path / "a" / "one", "1")
    first = checksum(tmp_path / "a")
    write(tmp_path / "a" / "two", "2")
    assert checksum(tmp_path / "a") != first
    (tmp_path / "a" / "two").unlink()
    assert checksum(tmp_path / "a") == first != checksum(tmp_path / "a" / "one")


@pytest.mark.parametrize("content", [b"", b"{", b"5", b"\xff\xfe", b"PK\x03\x04" + b"x" * 40, b"\x93NUMPY" + b"x" * 40])
def test_damaged_results_are_one_line_with_the_remedy(tmp_path, content):
    for name in ("results.json", "values.npz"):
        shutil.rmtree(tmp_path / "run", ignore_errors=True)
        shutil.copytree(OLD, tmp_path / "run")
        (tmp_path / "run" / name).write_bytes(content)
        with pytest.raises(UserError, match=f"{name} is damaged: delete it and start the same command again"):
            pool({"seed": 0}, [tmp_path / "run"])


def test_results_that_lack_a_field_are_one_line_with_the_remedy(tmp_path):
    shutil.copytree(OLD, tmp_path / "run")
    (tmp_path / "run" / "results.json").write_text('{"family": "energy", "seeds": [0], "seconds": {}}')
    with pytest.raises(UserError, match="results.json lacks config_hash, policies: delete it and start"):
        pool({"seed": 0}, [tmp_path / "run"])


def test_arrays_that_are_cut_short_or_corrupted_are_damaged(tmp_path):
    whole = (OLD / "values.npz").read_bytes()
    for part in (whole[:-10], whole[: len(whole) // 2], whole[:200] + b"????" + whole[204:]):
        (tmp_path / "values.npz").write_bytes(part)
        with pytest.raises(UserError, match="is damaged: delete it"):
            read_arrays(tmp_path / "values.npz", "delete it")
    assert read_arrays(OLD / "values.npz", "")["optimal"].size


def test_a_damaged_line_of_the_metrics_is_named_and_one_cut_short_is_left_out(tmp_path):
    path, line = tmp_path / "metrics.jsonl", json.dumps({"phase": "pretrain", "step": 1, "loss": 2.0, "seconds": 0.5})
    path.write_text(f"{line}\n{line}\n{line[:20]}")
    assert len(read_metrics(path)) == 2
    for damaged in (b"\xff", b"[]", b"5", b'{"phase": "pretrain", "step": "one", "loss": 1, "seconds": 2}'):
        path.write_bytes(line.encode() + b"\n" + damaged + b"\n" + line.encode() + b"\n")
        with pytest.raises(UserError, match="line 2, is damaged: delete that line"):
            read_metrics(path)


def test_the_progress_says_compiling_until_the_first_step_is_done(tmp_path, capsys):
    with Monitor(tmp_path / "metrics.jsonl", "pretrain", 10) as monitor:
        monitor(0)
        assert capsys.readouterr().out == "pretrain 0/10  compiling\n"
        monitor(1)
        assert capsys.readouterr().out == ""
    with Monitor(tmp_path / "metrics.jsonl", "pretrain", 10) as monitor:
        monitor(10)
        assert "compiling" not in capsys.readouterr().out


def test_the_same_numbers_go_to_tensorboard(tmp_path):
    pytest.importorskip("tensorboardX")
    from tensorboardX.proto.event_pb2 import Event

    with Monitor(tmp_path / "metrics.jsonl", "pretrain", 10, tmp_path / "events") as monitor:
        monitor(0)
        monitor(5, loss=2.5, tokens_per_s=100.0)
    [file] = (tmp_path / "events").iterdir()
    found, content = {}, file.read_bytes()
    while content:  # records: length (8 bytes), checksum (4), event, checksum (4)
        length = int.from_bytes(content[:8], "little")
        event, content = Event.FromString(content[12 : 12 + length]), content[16 + length :]
        found |= {(value.tag, event.step): value.simple_value for value in event.summary.value}
    assert found == {("pretrain/loss", 5): 2.5, ("pretrain/tokens_per_s", 5): 100.0}


def test_work_outlives_the_reader_of_its_output(tmp_path):
    """As in `... | head -1`, in an ASCII locale."""
    code = f"""
import sys, time
from icdm.runs.monitor import outlive_readers
outlive_readers()
print("gr\\u00fcn", flush=True)
sys.stdin.read()
for i in range(5):
    print("\\u2500" * 10_000, flush=True)
open({str(tmp_path / "results")!r}, "w").write("done")
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=environment() | {"PYTHONIOENCODING": "ascii"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout.readline() == b"gr?n\n"
    process.stdout.close()
    process.stdin.close()
    assert process.wait(timeout=60) == 0 and process.stderr.read() == b""
    process.stderr.close()
    assert (tmp_path / "results").read_text() == "done"


def policies(optimal, shift):
    """Two policies in tasks of these optimal values; the random policy gets `shift` less."""
    optimal = np.array(optimal)
    values = {"fine_tuned": optimal - 0.1, "certainty_equivalence": optimal - 0.2}
    return {name: summarize(value, optimal, optimal - shift) for name, value in values.items()}


def test_a_gap_is_shown_only_where_every_optimum_is_clearly_positive():
    assert columns_of(policies([1.0, 2.0], 1.5))[:3] == ["normalized_gap", "gap", "value"]
    for optimal in ([0.1, 2.0], [0.0, 2.0], [-1.0, 2.0], [-1.0, -2.0]):
        assert columns_of(policies(optimal, 1.5))[:2] == ["normalized_gap", "value"]
        assert "gap" not in columns_of(policies(optimal, 1.5))


def test_tables_fit_80_columns_and_wide_shows_all(capsys):
    for optimal in ([1.0, 2.0], [123.456, 234.567]):
        shown = policies(optimal, 1.0)
        print_table(shown, {"fine_tuned": "1.2"}, "title", {"mean": 0.1})
        narrow = capsys.readouterr().out
        assert max(map(len, narrow.splitlines())) <= 80 and "normalized gap" in narrow and "--wide" in narrow
        assert "certainty_equivalence" in narrow and "regret" not in narrow.split("--wide")[0]
        print_table(shown, {}, "title", wide=True)
        assert "regret" in capsys.readouterr().out
