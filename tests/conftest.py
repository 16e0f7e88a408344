"""Every test runs on CPU, with silent broadcasting of ranks refused; those of several devices start processes.

Programs that were compiled once are kept beside pytest's own cache: the tests start many processes
that compile the same ones.
"""

import ctypes
import os
import pathlib
import sys

CACHE = pathlib.Path(__file__).parent.parent / ".pytest_cache" / "compiled"
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(CACHE))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import hypothesis  # noqa: E402
import jax  # noqa: E402 (it reads the environment when it is imported)
import pytest  # noqa: E402

jax.config.update("jax_numpy_rank_promotion", "raise")
hypothesis.settings.register_profile("icdm", deadline=None)  # the first example imports and compiles
hypothesis.settings.load_profile("icdm")


@pytest.fixture(autouse=True, scope="module")
def programs_of_one_file():
    """What a file has compiled is given back after it: a process that keeps all of it grows to several gigabytes."""
    yield
    jax.clear_caches()
    if sys.platform == "linux":  # glibc keeps what is freed
        ctypes.CDLL(None).malloc_trim(0)
