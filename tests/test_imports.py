"""Stations import earlier stations only; the library imports neither experiments nor theory."""

import ast
import json
import pathlib
import subprocess
import sys
import time

import pytest
from commands import EXTRAS, without_extras
from small_problems import tiger

from icdm.families.cassandra import NamedPOMDP, write_pomdp

ROOT = pathlib.Path(__file__).parent.parent
# From left to right; models and readers stand side by side.
STATIONS = [
    *("problems", "families", "oracles", "trajectories", "logs", "readers", "models", "published"),
    *("learning", "evaluation", "runs"),
]
DATA = "shipped"  # a folder of weights
GROUND_FLOOR = {
    *("chips", "compiled", "errors", "files", "intervals", "memory"),
    *("pages", "processes", "provenance", "sharding"),
}


def imported_modules(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


@pytest.mark.parametrize("station", STATIONS)
def test_no_station_imports_a_later_one(station):
    later = STATIONS[STATIONS.index(station) + 1 :]
    files = list((ROOT / "icdm" / station).rglob("*.py"))
    assert files
    for path in files:
        for module in imported_modules(path):
            assert not any(module.startswith(f"icdm.{name}") for name in later), f"{path} imports {module}"


def test_every_folder_is_a_station_and_the_ground_floor_imports_none():
    package = ROOT / "icdm"
    assert {path.name for path in package.iterdir() if path.is_dir() and path.name != "__pycache__"} == {
        *STATIONS,
        DATA,
    }
    assert {path.stem for path in package.glob("*.py")} == GROUND_FLOOR | {"__init__", "__main__", "cli"}
    for name in GROUND_FLOOR:
        for module in imported_modules(package / f"{name}.py"):
            assert not module.startswith("icdm.") or module.split(".")[1] in GROUND_FLOOR, f"{name} imports {module}"


def test_readers_do_not_know_of_models_nor_models_of_readers():
    for one, other in (("readers", "models"), ("models", "readers")):
        for path in (ROOT / "icdm" / one).rglob("*.py"):
            assert not any(module.startswith(f"icdm.{other}") for module in imported_modules(path)), path


def test_the_library_imports_neither_experiments_nor_theory():
    for path in (ROOT / "icdm").rglob("*.py"):
        for module in imported_modules(path):
            assert module.split(".")[0] not in ("experiments", "theory"), f"{path} imports {module}"


def test_solve_and_theory_run_with_the_core_dependencies_alone(tmp_path):
    write_pomdp(NamedPOMDP(tiger(), ("l", "r"), ("listen", "left", "right"), ("l", "r")), tmp_path / "tiger.POMDP")
    done = without_extras("icdm", "solve", tmp_path / "tiger.POMDP", "--horizon", "3", "--json")
    assert done.returncode == 0 and json.loads(done.stdout)["lower"] > 0, done.stderr
    quick = "theory.verify", "--config=theory/configs/quick.py", f"--workdir={tmp_path}", "--only=linear_q"
    done = without_extras(*quick)
    assert done.returncode == 0, done.stderr
    for claim in (ROOT / "theory" / "claims").glob("*.py"):  # the others at least import
        assert not {module.split(".")[0] for module in imported_modules(claim)} & set(EXTRAS), claim


def test_an_extra_that_is_missing_is_named(tmp_path):
    (tmp_path / "log.csv").write_text("task_id,episode_id,t,observation,action,reward\n0,0,0,1,1,0.5\n")
    for command in (
        ("icdm", "describe", tmp_path / "log.csv"),
        (
            "experiments.run",
            "--config=experiments/configs/dpt_bandit.py",
            f"--workdir={tmp_path / 'run'}",
            f"--config.data={tmp_path / 'log.csv'}",
        ),
    ):
        done = without_extras(*command)
        assert done.returncode == 2 and "pip install 'icdm[data]'" in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1, done.stderr


@pytest.mark.parametrize("name", ["convert", "describe"])
def test_modules_that_have_moved_name_the_new_command(name):
    done = subprocess.run(
        [sys.executable, "-m", f"icdm.trajectories.{name}", "x"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 1 and done.stderr == f"python -m icdm.trajectories.{name} has moved: use icdm {name}\n"


@pytest.mark.parametrize("command", ["icdm", "experiments.run", "experiments.sweep"])
def test_help_answers_without_importing_jax(command):
    code = f"import runpy, sys; sys.argv = ['x', '--help']\ntry: runpy.run_module({command!r}, run_name='__main__')\n"
    code += "except SystemExit: pass\nassert 'jax' not in sys.modules"
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout
    if command != "icdm":
        assert "Some 12 minutes of two cores." in done.stdout and "checkpoint_every=250" in done.stdout
    assert time.monotonic() - began < 10
