"""Files that are written whole or not at all: a reader never sees half of one."""

import contextlib
import json
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np


@contextlib.contextmanager
def whole(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """A path to write to inside the block; the file takes its place only if the block ends without an exception."""
    fresh = path.with_name(path.name + ".partial")
    try:
        yield fresh
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)


def write_text(path: pathlib.Path, text: str) -> None:
    """Writes a text in UTF-8."""
    with whole(path) as fresh:
        fresh.write_text(text, encoding="utf-8")


def write_json(path: pathlib.Path, content: Any, indent: int = 2) -> None:
    """Writes one JSON value."""
    write_text(path, json.dumps(content, indent=indent) + "\n")


def write_arrays(path: pathlib.Path, arrays: dict[str, np.ndarray]) -> None:
    """Writes arrays as an .npz file; its directory is made if it is not there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole(path) as fresh, fresh.open("wb") as file:
        np.savez(file, **arrays)
