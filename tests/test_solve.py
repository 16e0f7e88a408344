"""`icdm solve`: what it prints, and what it says when it is used wrongly."""

import functools
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest
from commands import ROOT, environment, start
from small_problems import random_pomdp, tiger

from icdm.cli import main
from icdm.families.cassandra import NamedPOMDP, write_pomdp
from icdm.oracles import solve
from icdm.oracles.alpha_meu import committed
from icdm.oracles.alpha_vectors import alpha_vectors

DATA = pathlib.Path(__file__).parent / "data" / "pomdp"
NAMES = (("left", "right"), ("listen", "open-left", "open-right"), ("hear-left", "hear-right"))


@pytest.fixture
def icdm(monkeypatch, capsys, tmp_path):
    """Runs the command on files in a folder; returns (exit code, standard output, standard error)."""
    monkeypatch.chdir(tmp_path)
    for name, accuracy in (("tiger", 0.85), ("worse", 0.65)):
        write_pomdp(NamedPOMDP(tiger(accuracy), *NAMES), f"{name}.POMDP")
    large = random_pomdp(n_states=6, n_actions=4, n_observations=5, first_emission=None)
    write_pomdp(NamedPOMDP(large, *(tuple(map(str, range(n))) for n in (6, 4, 5))), "large.POMDP")

    def run(line):
        monkeypatch.setattr(sys, "argv", ["icdm", *line.split()])
        code = 0
        try:
            main()
        except SystemExit as stop:
            code = stop.code or 0
        return code, *capsys.readouterr()

    return run


@pytest.mark.parametrize(
    "line, value",
    [
        ("--horizon 10", 6.6933684318),
        ("--horizon 6 --method alpha-vectors", 4.4285313150),
        ("--horizon 5 --discount 1", 3.60915),
        ("--horizon 5 --discount 1 --method bounds", 3.60915),
        ("--infinite --discount 0.75 --tolerance 5e-7", 1.93343899),
        ("--horizon 5 --discount 1 --pessimism 0.5 --models worse.POMDP", -1.91505),
        ("--horizon 5 --discount 1 --pessimism 0.5", 3.60915),
        ("--horizon 5 --discount 1 --pessimism 1 --models worse.POMDP --form recursive", -4.52205),
    ],
)
def test_json(icdm, line, value):
    code, out, _ = icdm(f"solve tiger.POMDP --json {line}")
    assert code == 0
    found = json.loads(out)
    assert set(found) == {"lower", "upper", "action", "horizon", "discount", "method", "seconds"}
    assert found["lower"] - 1e-6 <= value <= found["upper"] + 1e-6
    assert found["upper"] - found["lower"] <= 1e-6
    assert found["action"] == "listen"
    assert found["horizon"] == (None if "--infinite" in line else int(line.split()[1]))


def test_the_report_says_which_objective_it_shows(icdm):
    for form in ("committed", "recursive"):
        _, out, _ = icdm(f"solve tiger.POMDP --horizon 3 --pessimism 1 --models worse.POMDP --form {form}")
        assert f"{form} alpha-maxmin" in out
    _, out, _ = icdm("solve tiger.POMDP --horizon 2")
    assert "-1.95" in out and "listen" in out and "exact" in out


def test_an_open_bracket_is_said(icdm):
    code, out, error = icdm("solve large.POMDP --horizon 9 --time-limit 0.01")
    assert code == 0 and "between" in out
    assert "the bracket is still" in error and error.count("\n") == 1


@pytest.mark.slow
def test_large_clouds_are_interpolated_with_their_error(icdm):
    write = "solve large.POMDP --models large.POMDP --pessimism 0.5"
    code, out, _ = icdm(f"{write} --horizon 8 --form recursive --json")
    found = json.loads(out)
    assert code == 0 and "error estimated" in found["method"]
    code, out, _ = icdm("solve large.POMDP --horizon 8 --method bounds --tolerance 0.003 --json")
    bracket = json.loads(out)
    assert found["lower"] <= bracket["upper"] and bracket["lower"] <= found["upper"] + 0.01


@pytest.mark.parametrize(
    "line, message",
    [
        ("solve none.POMDP --horizon 3", "none.POMDP: cannot be read"),
        ("solve tiger.POMDP", "give either --horizon or --infinite"),
        ("solve tiger.POMDP --horizon 3 --infinite", "give either --horizon or --infinite"),
        ("solve tiger.POMDP --horizon 0", "horizon 0"),
        ("solve tiger.POMDP --horizon 3 --discount 2", "discount 2.0: give a number"),
        ("solve tiger.POMDP --infinite --discount 1", "needs a discount below 1"),
        ("solve tiger.POMDP --horizon 3 --pessimism 1.5", "pessimism 1.5: give alpha"),
        ("solve tiger.POMDP --horizon 3 --models worse.POMDP", "need --pessimism"),
        ("solve tiger.POMDP --horizon 3 --models large.POMDP --pessimism 0", "make them agree"),
        ("solve tiger.POMDP --infinite --pessimism 0", "give --horizon"),
        ("solve tiger.POMDP --infinite --method tree", "needs a finite horizon"),
        ("solve tiger.POMDP --horizon 3 --tolerance 0", "positive"),
        ("solve tiger.POMDP --horizon 3 --tolerance nan", "positive"),
        ("solve tiger.POMDP --horizon 3 --time-limit nan", "positive"),
        ("solve tiger.POMDP --horizon 3 --time-limit -1", "positive"),
        ("solve tiger.POMDP --horizon 3 --discount nan", "discount nan: give a number"),
        ("solve tiger.POMDP --horizon 3 --pessimism nan", "pessimism nan: give alpha"),
        ("solve tiger.POMDP --horizon 1000000000", "horizon 1,000,000,000: the limit is 1,000,000; give --infinite"),
        ("solve tiger.POMDP --horizon 3 --policy x.alpha", "give --infinite"),
        ("solve tiger.POMDP --infinite --policy tiger.POMDP", "tiger.POMDP: exists already"),
        ("solve tiger.POMDP --infinite --policy none/x.alpha", "none/x.alpha: there is no such folder"),
        ("solve tiger.POMDP --infinite --evaluate none.alpha", "none.alpha: cannot be read"),
        ("solve tiger.POMDP --infinite --evaluate none.alpha --policy x.alpha", "--evaluate takes neither"),
        ("solve large.POMDP --horizon 12 --method tree", "use the bounds of the point-based oracle (--method bounds)"),
        ("slove tiger.POMDP", "did you mean 'solve'"),
    ],
)
def test_mistakes_are_one_line(icdm, line, message):
    code, out, error = icdm(line)
    assert code == 2 and not out
    assert message in error and error.count("\n") == 1


@pytest.mark.parametrize(
    "line, oracle, advice",
    [
        ("--method alpha-vectors", alpha_vectors, "use the bounds of the point-based oracle (--method bounds)"),
        ("--pessimism 0 --form committed", committed, "use the recursive objective (--form recursive)"),
    ],
)
def test_a_refusal_by_size_names_the_flag_of_another_method(icdm, monkeypatch, line, oracle, advice):
    monkeypatch.setattr(solve, oracle.__name__, functools.partial(oracle, most=2))
    code, out, error = icdm(f"solve large.POMDP --horizon 3 {line}")
    assert code == 2 and not out
    assert "too large" in error and "the limit is" in error and advice in error and error.count("\n") == 1


def test_models_of_a_set_are_matched_by_name(icdm):
    first, other = DATA / "clinic.POMDP", DATA / "clinic_in_another_order.POMDP"
    for form in ("committed", "recursive"):
        for pessimism in (0, 0.5, 1):
            options = f"--horizon 3 --form {form} --pessimism {pessimism} --json"
            code, out, _ = icdm(f"solve {first} --models {other} {options}")
            answer = json.loads(out)
            assert code == 0 and answer["lower"] == pytest.approx(-2.451170449998991, abs=1e-10)
            assert answer["action"] == "treat"
    pathlib.Path("renamed.POMDP").write_text(first.read_text().replace("wait", "watch"))
    code, _, error = icdm(f"solve {first} --models renamed.POMDP --pessimism 1 --horizon 3")
    assert code == 2 and "actions are matched by name" in error and error.count("\n") == 1


def test_reset_goes_to_the_start_that_the_file_gives_later(icdm):
    _, out, _ = icdm(f"solve {DATA / 'reset_before_start.POMDP'} --horizon 3 --json")
    assert json.loads(out)["lower"] == pytest.approx(-2.840892499998741, abs=1e-10)


@pytest.mark.parametrize(
    "line, values", [("--horizon 3", (0.14218, 0.14218)), ("--infinite", (1.46788990, 1.46788991))]
)
def test_a_file_without_observations_is_an_mdp(icdm, line, values):
    code, out, _ = icdm(f"solve {DATA / 'clinic.MDP'} {line} --json")
    answer = json.loads(out)
    assert code == 0 and answer["action"] == "treat in sick, wait in well"
    assert (answer["lower"], answer["upper"]) == pytest.approx(values, abs=1e-8)
    code, _, error = icdm(f"solve {DATA / 'clinic.MDP'} --horizon 3 --pessimism 1")
    assert code == 2 and "need files with observations" in error


def test_a_policy_is_written_and_evaluated(icdm):
    code, out, _ = icdm("solve tiger.POMDP --infinite --tolerance 1e-3 --policy tiger.alpha --json")
    solved = json.loads(out)
    assert code == 0 and solved["lower"] <= 19.37136838 <= solved["upper"]
    code, out, _ = icdm("solve tiger.POMDP --infinite --tolerance 1e-3 --evaluate tiger.alpha --json")
    value = json.loads(out)
    assert code == 0 and "exact" in value["method"] and value["action"] == "listen"
    assert solved["lower"] - 1e-9 <= value["upper"] and value["lower"] <= 19.37136838


@pytest.mark.parametrize("line", ["--horizon 6", "--infinite"])
def test_the_time_limit_bounds_the_first_sweep_too(icdm, line):
    """400 states, 9 actions, 27 observations, all of them possible."""
    head = "discount: 0.95\nvalues: reward\nstates: 400\nactions: 9\nobservations: 27\n"
    pathlib.Path("wide.POMDP").write_text(
        head + "T: * uniform\nO: * uniform\nR: 3 : 5 : * : * 1\nO: 2 : 5 : 0 1\nO: 2 : 5 : * 0\nO: 2 : 5 : 1 1\n"
    )
    began = time.process_time()
    code, out, _ = icdm(f"solve wide.POMDP --time-limit 1 --json {line}")
    assert code == 0 and time.process_time() - began < 8  # of this process: others may be busy
    assert 0 < json.loads(out)["upper"] < 0.2


def test_long_lists_of_names_are_read_in_time(icdm):
    names = " ".join(f"s{i}" for i in range(30_000))
    head = f"discount: 0.9\nvalues: reward\nstates: {names}\nactions: 1\nobservations: 1\n"
    pathlib.Path("names.POMDP").write_text(head + "T: * identity\nO: * uniform\nstart: s1\nR: * : s1 : * : * 1\n")
    began = time.process_time()
    code, out, _ = icdm("solve names.POMDP --horizon 3 --json")
    assert code == 0 and json.loads(out)["lower"] == pytest.approx(2.71)
    assert time.process_time() - began < 5


@pytest.mark.parametrize(
    "sizes, rest, what",
    [
        ((200_000, 1, 1), "T: * uniform", "40,000,000,000 entries in one statement"),
        ((200_000, 200_000, 1), "T: * identity", "rows of a table"),
        ((1000, 1, 1000), "T: * uniform\nO: * uniform\nR: * : * : 1 : 1 5", "1,000,000,000 rewards by transition"),
        ((10**9, 1, 1), "", "no usable count"),
        ((200_000, 1, 200), "T: * identity\nO: * : * : 0 1", "40,000,000 probabilities of an observation"),
    ],
)
def test_sizes_are_refused_before_anything_is_allocated(icdm, sizes, rest, what):
    text = "discount: 0.9\nvalues: reward\nstates: {}\nactions: {}\nobservations: {}\n".format(*sizes)
    pathlib.Path("large_counts.POMDP").write_text(text + rest + "\n")
    code, out, error = icdm("solve large_counts.POMDP --infinite --time-limit 5")
    assert code == 2 and not out and what in error and error.count("\n") == 1, error


@pytest.mark.slow
def test_an_interrupt_ends_in_one_line(icdm):
    file = pathlib.Path("large.POMDP").resolve()
    running = start("icdm", "solve", file, "--infinite", "--tolerance", "1e-12", "--time-limit", "300")
    time.sleep(20)
    running.send_signal(signal.SIGINT)
    assert running.communicate(timeout=60)[0] == "icdm solve: interrupted\n"
    assert running.returncode == 130


def test_a_closed_pipe_ends_without_a_word(icdm):
    read, write = os.pipe()
    os.close(read)
    line = [sys.executable, "-m", "icdm", "solve", str(DATA / "clinic.MDP"), "--horizon", "2"]
    done = subprocess.run(
        line, cwd=ROOT, stdout=write, stderr=subprocess.PIPE, text=True, timeout=120, env=environment()
    )
    os.close(write)
    assert done.returncode == 141 and done.stderr == ""


def test_help_lists_the_commands(icdm):
    code, out, _ = icdm("--help")
    assert code == 0 and "solve" in out
    code, out, _ = icdm("solve --help")
    assert code == 0 and "--pessimism" in out
