"""The real commands in processes of their own."""

import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).parent.parent
EXTRAS = [
    "grain",
    "pyarrow",
    "h5py",
    "icu_sepsis",
    "tokenizers",
    "gguf",
    "tensorboardX",
    "pytest",
    "hypothesis",
    "chex",
]


def run(module, *arguments, timeout=300, devices=1):
    """Runs `python -m MODULE ...`, with so many devices."""
    command = [sys.executable, "-m", module, *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=timeout, env=environment(devices))


def start(module, *arguments, devices=1, **variables):
    """Starts `python -m MODULE ...`, with so many devices and further variables of the environment."""
    command = [sys.executable, "-m", module, *map(str, arguments)]
    return subprocess.Popen(
        command,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment(devices) | variables,
    )


def environment(devices=1):
    return os.environ | {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(devices)}


def without_extras(*arguments):
    """Runs a module in a process in which nothing but the core dependencies can be imported."""
    code = f"""
import importlib.abc, runpy, sys
class Refuse(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {EXTRAS!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name.split(".")[0])
sys.meta_path.insert(0, Refuse())
sys.argv = ["x", *{list(map(str, arguments[1:]))!r}]
sys.path.insert(0, {str(ROOT)!r})
runpy.run_module({arguments[0]!r}, run_name="__main__", alter_sys=True)
"""
    return subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=500, env=environment()
    )
