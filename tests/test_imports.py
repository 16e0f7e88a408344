"""Stations import earlier stations only; the library imports neither experiments nor theory."""

import ast
import pathlib
import subprocess
import sys
import time

import pytest

ROOT = pathlib.Path(__file__).parent.parent
STATIONS = [
    "problems",
    "families",
    "oracles",
    "trajectories",
    "logs",
    "readers",
    "models",
    "learning",
    "evaluation",
    "runs",
]


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


def test_the_library_imports_neither_experiments_nor_theory():
    for path in (ROOT / "icdm").rglob("*.py"):
        for module in imported_modules(path):
            assert module.split(".")[0] not in ("experiments", "theory"), f"{path} imports {module}"


@pytest.mark.parametrize("command", ["icdm", "experiments.run", "experiments.sweep"])
def test_help_answers_without_importing_jax(command):
    code = f"import runpy, sys; sys.argv = ['x', '--help']\ntry: runpy.run_module({command!r}, run_name='__main__')\n"
    code += "except SystemExit: pass\nassert 'jax' not in sys.modules"
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout
    assert time.monotonic() - began < 10
