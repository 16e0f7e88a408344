"""Memory of a training step, kept for the next one."""

import ctypes
import sys

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
