"""The benchmark command runs, writes and compares; no test depends on how fast anything is."""

import json
import platform
import subprocess
import sys

import jax
import pytest

from benchmarks import brackets, gpu, off_policy
from benchmarks.cases import row
from benchmarks.run import main
from benchmarks.timing import alternating


def test_bounds():
    assert row("x", 2.0, "s", required=3.0)["holds"] is True
    assert row("x", 2.0, "tokens/s", reference=4.0, required=0.6, at_most=False)["holds"] is False
    assert row("x", 2.0, "tokens/s", reference=4.0)["ratio"] == 0.5


def test_brackets_are_kept_by_version(tmp_path, monkeypatch):
    monkeypatch.setattr(brackets, "MODELS", {"tiger": brackets.MODELS["tiger"]})
    out = tmp_path / "brackets.json"
    for name in ("before", "now"):
        brackets.main(["--name", name, "--out", str(out)])
    for found in json.loads(out.read_text()).values():
        lower, upper = found["problems"]["tiger"]["bracket"]
        assert lower <= 19.3713684 <= upper and upper - lower < 1e-4


def test_runs_take_turns():
    order = []
    taken = alternating({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, repeats=2, warmups=1)
    assert order == ["a", "b", "a", "b", "a", "b"] and set(taken) == {"a", "b"}


def test_a_benchmark_is_written_and_compared(tmp_path, capsys):
    main(["--only", "start_up", "--quick", "--json", str(tmp_path / "x.json")])
    found = json.loads((tmp_path / "x.json").read_text())
    assert found["rows"][0]["value"] > 0 and "cores" in found["made_with"]["machine"]
    main(["--only", "start_up", "--quick", "--compare", str(tmp_path / "x.json")])
    assert "ratio to earlier" in capsys.readouterr().out


@pytest.mark.skipif(jax.default_backend() == "gpu", reason="there is a GPU")
@pytest.mark.parametrize(("arguments", "message"), [([], "no GPU here"), (["--only", "lage"], "large")])
def test_what_needs_a_gpu_says_so_in_one_line(arguments, message, capsys):
    with pytest.raises(SystemExit) as stopped:
        gpu.main(arguments)
    said = capsys.readouterr().err
    assert stopped.value.code == 2 and said.count("\n") == 1 and message in said


def test_a_part_that_fails_is_a_row_and_no_end(monkeypatch):
    monkeypatch.setitem(gpu.PARTS, "torch", (gpu.torch, 0.01))
    [found] = gpu.part("torch")
    assert found["name"] == "torch failed: more than 0.01 s" and found["holds"] is False


def test_mistakes_are_told(tmp_path, capsys):
    for arguments in (["--only", "trainig"], ["--compare", str(tmp_path / "none.json")]):
        with pytest.raises(SystemExit) as stopped:
            main(arguments)
        assert stopped.value.code == 2 and capsys.readouterr().err.count("\n") == 1


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries are left as they are")
def test_freed_memory_is_kept_for_the_next_step():
    code = """
import resource, sys, threading
if sys.argv[1] == "keep":
    from icdm.memory import keep_freed_memory
    keep_freed_memory()
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    worker = threading.Thread(target=lambda: b"x" * 64_000_000)  # as JAX does, in another thread
    worker.start()
    worker.join()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()
print(faults())
"""
    kept, given_back = (
        int(subprocess.run([sys.executable, "-c", code, how], capture_output=True, text=True, check=True).stdout)
        for how in ("keep", "")
    )
    assert kept < 100 < 1000 < given_back


@pytest.mark.slow
def test_the_study_of_off_policy_estimates_keeps_what_it_has_found(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(off_policy, "SIZES", (1000,))
    monkeypatch.setattr(off_policy, "STRENGTHS", {"random_mdp": off_policy.STRENGTHS["random_mdp"]})
    monkeypatch.setattr(sys, "argv", ["off_policy", "--minutes", "0.1", "--out", str(tmp_path / "x.json")])
    off_policy.main()
    (recorded, estimated) = json.loads((tmp_path / "x.json").read_text())["tables"].values()
    for table in (recorded, estimated):
        assert table["1000"]["logs"] >= 1 and 0 < table["1000"]["refused"] < 1  # the strongest policy is too far away
        assert table["1000"]["wdr"]["absolute_error"] < 0.5 and table["1000"]["wdr"]["rank_correlation"] > 0.5
    assert "| 1000 |" in capsys.readouterr().out
