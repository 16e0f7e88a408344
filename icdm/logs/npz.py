"""Arrays of .npz files: their sizes are added up from the headers before any array is read."""

import math
import pathlib
import zipfile

import numpy as np

from icdm.errors import UserError

MOST_BYTES = 2**30  # of all arrays of a file
MOST_PACKED = 1100  # bytes that one compressed byte can stand for (zlib)


def read_npz(path: pathlib.Path) -> dict[str, np.ndarray]:
    """The arrays of numbers of a file, by name.

    Raises:
      UserError: the file is no .npz, is encrypted, holds something else than arrays of numbers, or claims to be larger
        than it is or than 2**30 bytes.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            sizes = {info.filename: _size(path, archive, info) for info in members}
            if len(sizes) < len(members):
                raise UserError(f"{path} holds two arrays of one name")
            if sum(sizes.values()) > MOST_BYTES:
                raise UserError(f"{path} takes {sum(sizes.values()):,} bytes: at most {MOST_BYTES:,}, split the file")
            return {info.filename.removesuffix(".npy"): _array(archive, info) for info in members}
    except UserError:
        raise
    except Exception as error:  # NumPy, zipfile and zlib raise some ten kinds of exceptions on damaged files
        said = (str(error).splitlines() or [type(error).__name__])[0][:80]
        raise UserError(f"{path} cannot be read as .npz ({said})") from None


def _size(path: pathlib.Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> int:
    """The bytes of an array, from its header."""
    if info.flag_bits & 1:
        raise UserError(f"{path}: {info.filename} is encrypted")
    if not info.filename.endswith(".npy"):
        raise UserError(f"{path}: {info.filename} is no array: arrays of numbers (.npy) are supported")
    with archive.open(info) as file:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(file)
    if dtype.kind not in "biuf":
        raise UserError(f"{path}: {info.filename} has the type {dtype}: arrays of numbers are supported")
    size = math.prod(shape) * dtype.itemsize
    if min(shape, default=0) < 0 or size > min(info.file_size, MOST_PACKED * (info.compress_size + 1)):
        raise UserError(f"{path}: {info.filename} claims {size:,} bytes, the file holds fewer")
    return size


def _array(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> np.ndarray:
    with archive.open(info) as file:
        return np.lib.format.read_array(file, allow_pickle=False)
