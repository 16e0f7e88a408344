"""Compiled programs, kept on disk for the next start."""

import os
import pathlib

import jax


def keep_programs(directory: pathlib.Path | None = None, seconds: float = 0.3) -> None:
    """Keeps the programs that this process compiles, and takes those that are there; JAX's own setting
    (JAX_COMPILATION_CACHE_DIR) has precedence, and nothing is kept where nothing can be written.

    Args:
      directory: icdm/compiled in the user's cache directory by default.
      seconds: a program that takes less to compile is not kept.
    """
    if jax.config.jax_compilation_cache_dir:
        return
    home = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache")
    directory = (directory or home / "icdm" / "compiled").absolute()
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError:
        return
    jax.config.update("jax_compilation_cache_dir", str(directory))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", seconds)
