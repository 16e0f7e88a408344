"""With what results were made: the commit, the versions of the packages, and the machine."""

import importlib.metadata
import os
import pathlib
import platform
import subprocess
from typing import Any

import jax

PACKAGES = ("icdm", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


def provenance() -> dict[str, Any]:
    """What a file of results says of its making: {"commit", "versions": {name: version}, "machine": {...}}."""
    return {"commit": commit(), "versions": versions(), "machine": machine()}


def commit() -> str | None:
    """The commit of the checkout that is imported, with `-dirty` if its files differ; None outside of a checkout."""
    root = pathlib.Path(__file__).parent.parent
    try:
        if pathlib.Path(_git(root, "rev-parse", "--show-toplevel")) != root.resolve():
            return None  # installed somewhere inside a repository of the user's
        return _git(root, "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty")
    except (OSError, subprocess.SubprocessError):
        return None


def versions() -> dict[str, str]:
    return {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in PACKAGES}


def machine() -> dict[str, Any]:
    """The kind of the system, its cores, and the devices that JAX computes on."""
    devices = f"{jax.device_count()} x {jax.devices()[0].device_kind}"
    return {"system": f"{platform.system()} {platform.machine()}", "cores": os.cpu_count(), "devices": devices}


def in_words() -> str:
    """The same as a line for a page."""
    found = commit()
    parts = [f"commit {found}"] if found else []
    parts += [f"{name} {version}" for name, version in versions().items()]
    about = machine()
    return ", ".join([*parts, about["system"], f"{about['cores']} cores", about["devices"]])


def _git(root: pathlib.Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, timeout=10, check=True)
    return done.stdout.strip()
