"""How much memory there is, how much a reader may ask for, and that of a training step, kept for the next one."""

import contextlib
import ctypes
import os
import pathlib
import sys
from collections.abc import Iterator

from icdm.errors import UserError

TRIM_THRESHOLD, MMAP_MAX, ARENA_MAX = -1, -4, -8  # parameters of glibc's mallopt


def keep_freed_memory() -> None:
    """Has the C library keep what is freed for the next request, for the rest of the process.

    XLA asks for the working memory of a step on CPU anew in every step. glibc would answer large requests with
    fresh pages, which the kernel clears one by one: a quarter of the time of a step that takes hundreds of
    megabytes. To be called before JAX starts its threads; without glibc it does nothing.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt:
        mallopt(ARENA_MAX, 1)
        mallopt(MMAP_MAX, 0)
        mallopt(TRIM_THRESHOLD, -1)


@contextlib.contextmanager
def at_most(size: int) -> Iterator[None]:
    """Inside, requests for memory fail once the process has `size` bytes more than now, in all its threads.

    For libraries in C that trust the sizes in a file. Without Linux it does nothing.
    """
    if sys.platform != "linux":
        yield
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    held = int(pathlib.Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    limits = [held + size] + [limit for limit in (soft, hard) if limit != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_AS, (min(limits), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def check_fits(what: str, size: int, remedy: str) -> None:
    """Refuses a size before anything is allocated.

    Args:
      what: the fields that the size comes from.
      size: bytes that are needed at the least.

    Raises:
      UserError: this machine, or all its accelerators where they have more, has less memory.
    """
    import jax  # is slow to import, and this file is imported before there is work

    devices = sum((device.memory_stats() or {}).get("bytes_limit", 0) for device in jax.local_devices())
    limit = max(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), devices)
    if size > limit:
        sizes = f"at least {size / 2**30:,.4g} GiB, the limit is the memory of this machine, {limit / 2**30:,.4g} GiB"
        raise UserError(f"{what}: would take {sizes}: {remedy}")
