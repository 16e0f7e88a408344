"""How much memory there is, and that of a training step, kept for the next one."""

import ctypes
import os
import sys

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
