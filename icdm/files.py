"""Files that are written whole or not at all, so that a reader never sees half of one; what is read may be damaged."""

import contextlib
import fcntl
import hashlib
import json
import os
import pathlib
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import safetensors.numpy

from icdm.errors import UserError
from icdm.processes import is_first

LOCK = ".lock"  # the file that a process holds locked while it works in a directory


@contextlib.contextmanager
def whole(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """A path to write to inside the block; the file takes its place only if the block ends without an exception.

    What stands at that path is removed first: it may be a link to a file elsewhere. In a run of several processes
    (`icdm.processes`) the file of the first takes its place, and those of the others are thrown away.
    """
    if not is_first():
        with tempfile.TemporaryDirectory() as elsewhere:
            yield pathlib.Path(elsewhere) / path.name
        return
    fresh = path.with_name(path.name + ".partial")
    fresh.unlink(missing_ok=True)
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


def write_tensors(path: pathlib.Path, tensors: dict[str, np.ndarray], metadata: dict[str, str] | None = None) -> None:
    """Writes arrays as a safetensors file."""
    with whole(path) as fresh:
        fresh.write_bytes(safetensors.numpy.save(tensors, metadata))


def file_checksum(path: pathlib.Path) -> str:
    """SHA-256 of a file, in hexadecimal digits, as sha256sum prints it."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def checksum(path: pathlib.Path) -> str:
    """SHA-256 of a file, or of all files of a directory with their names, in hexadecimal digits."""
    digest = hashlib.sha256()
    for each in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if each.is_file():
            digest.update(str(each.relative_to(path)).encode() + b"\0")
            digest.update(bytes.fromhex(file_checksum(each)))
    return digest.hexdigest()


def read_json(path: pathlib.Path, remedy: str, kind: type = dict) -> Any:
    """The JSON value of a file, which is of one kind.

    Raises:
      UserError: the file is damaged; the message ends with the remedy.
      OSError: it cannot be opened.
    """
    try:
        found = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, kind):
        raise UserError(f"{path} is damaged: {remedy}")
    return found


def read_arrays(path: pathlib.Path, remedy: str) -> dict[str, np.ndarray]:
    """All arrays of an .npz file.

    Raises:
      UserError: the file is damaged; the message ends with the remedy.
      OSError: it cannot be opened.
    """
    try:
        with path.open("rb") as file, np.load(file) as arrays:  # NumPy would leave a damaged file open
            return dict(arrays)
    except (ValueError, EOFError, KeyError, AttributeError, zipfile.BadZipFile, zlib.error):
        raise UserError(f"{path} is damaged: {remedy}") from None


@contextlib.contextmanager
def locked(directory: pathlib.Path) -> Iterator[None]:
    """The directory, which is made if it is not there, is this process's alone inside the block.

    The lock ends with the process, however that ends; the file that carries it stays. In a run of several processes
    the first holds it for all.

    Raises:
      UserError: another process holds the directory, or it cannot be used.
    """
    if not is_first():
        yield
        return
    try:
        directory.mkdir(parents=True, exist_ok=True)
        file = os.open(directory / LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    except OSError as error:
        raise UserError(f"cannot use {directory}: {error.strerror}; choose another directory") from None
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            message = f"another process is at work in {directory}: wait for its end, or choose another directory"
            raise UserError(message) from None
        yield
    finally:
        os.close(file)


def is_locked(directory: pathlib.Path) -> bool:
    """Whether a process of this machine holds the directory (`locked`); nothing is changed."""
    try:
        file = os.open(directory / LOCK, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return False
    except BlockingIOError:
        return True
    finally:
        os.close(file)
