"""`icdm solve`: what it prints, and what it says when it is used wrongly."""

import functools
import json
import sys

import pytest
from small_problems import random_pomdp, tiger

from icdm.cli import main
from icdm.families.cassandra import NamedPOMDP, write_pomdp
from icdm.oracles import solve
from icdm.oracles.alpha_meu import committed
from icdm.oracles.alpha_vectors import alpha_vectors

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


def test_help_lists_the_commands(icdm):
    code, out, _ = icdm("--help")
    assert code == 0 and "solve" in out
    code, out, _ = icdm("solve --help")
    assert code == 0 and "--pessimism" in out
