"""Checkpoints: any pytree of arrays, saved whole or not at all, verified when read (Orbax)."""

import logging
import pathlib
import re
import sys
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from icdm.errors import UserError
from icdm.processes import gather, is_first, is_loss

BLOCK = 2**18  # numbers of an array that are summed at a time
KEPT = 2  # so that one cut short or corrupted leaves another
NO_DAMAGE = ("PERMISSION_DENIED", "RESOURCE_EXHAUSTED")  # in what TensorStore and XLA raise


class Damaged(Exception):
    """A file of a checkpoint is missing, cut short or corrupted."""


class Checkpoints:
    """The checkpoints of one phase of a run."""

    def __init__(self, directory: pathlib.Path, say: Callable[[str], None] = print):
        self.directory, self.say = directory.resolve(), say
        self.manager = _manager(self.directory, max_to_keep=KEPT, enable_async_checkpointing=False)

    def save(self, step: int, tree: Any) -> None:
        """Saves the pytree; an earlier checkpoint is removed only after this one is complete.

        Raises:
          UserError: it could not be written (a full disk, say); the earlier ones are still there.
        """
        arrays = _flatten(tree)
        args = _orbax().args
        parts = args.Composite(state=args.StandardSave(arrays), digest=args.JsonSave({"sums": _checksums(arrays)}))
        try:
            self.manager.save(step, args=parts)
            self.manager.wait_until_finished()
        except Exception as error:
            if is_loss(error):
                raise
            raise UserError(
                f"could not save the checkpoint of step {step} in {self.directory} ({_first_line(error)}): "
                f"make room and start again; the run goes on from {self._latest_name()}"
            ) from error

    def restore(self, like: Any):
        """The newest checkpoint that is whole, as (step, pytree like `like`); (0, like) if there is none.

        One that is cut short or corrupted is moved aside, which is said, and the one before it is taken.

        Raises:
          UserError: the newest whole one has arrays of other shapes, or cannot be read though it is not damaged.
        """
        places = _flatten(like)
        for step in sorted(self.manager.all_steps(), reverse=True):
            try:
                arrays = _arrays(self.manager, step, places)
            except Damaged as damage:
                self._set_aside(step, damage)
            else:
                check_shapes(self.directory / str(step), arrays, places)
                return step, _unflatten(arrays, like)
        return 0, like

    def close(self) -> None:
        self.manager.close()

    def _set_aside(self, step: int, damage: Damaged):
        self.say(f"checkpoint {self.directory / str(step)} is damaged ({damage}): taking the one before it")
        damaged = self.directory / str(step)
        if is_first() and damaged.exists():
            damaged.rename(self.directory.parent / f"{self.directory.name}-{step}.damaged")
        gather(np.int32(step))  # until it is moved
        self.manager.reload()

    def _latest_name(self):
        self.manager.reload()
        latest = self.manager.latest_step()
        return "the start" if latest is None else f"step {latest}"


def read(directory: pathlib.Path) -> tuple[int, dict[str, np.ndarray]]:
    """The newest checkpoint that is whole, as (step, {path of a leaf: array}); (0, {}) if there is none.

    Nothing is written, moved or created: a damaged checkpoint is skipped, which is said on stderr.

    Raises:
      UserError: one cannot be read though it is not damaged.
    """
    if not directory.is_dir():
        return 0, {}
    with _manager(directory.resolve(), read_only=True) as manager:
        for step in sorted(manager.all_steps(), reverse=True):
            try:
                return step, jax.device_get(_arrays(manager, step, {}))
            except Damaged as damage:
                print(f"checkpoint {directory / str(step)} is damaged ({damage}): it is skipped", file=sys.stderr)
    return 0, {}


def check_shapes(path: pathlib.Path, arrays: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Raises UserError unless the file or checkpoint holds every wanted array, of as many numbers."""
    for name, leaf in wanted.items():
        if name not in arrays or arrays[name].size != leaf.size:
            there = arrays[name].shape if name in arrays else "nothing"
            raise UserError(
                f"{path} has other shapes than config.json asks for: {name.lstrip('.')} is {there} there, {leaf.shape} "
                "by the config; take back what was changed in config.json"
            )


def _orbax() -> Any:
    """The library; its import is slow, and who only reads a weights file does without."""
    import orbax.checkpoint

    return orbax.checkpoint


def _manager(directory: pathlib.Path, **options: Any) -> Any:
    logging.getLogger("absl").setLevel(logging.CRITICAL)  # Orbax logs what it raises, and what it was asked for
    ocp = _orbax()
    handlers = {"state": ocp.StandardCheckpointHandler(), "digest": ocp.JsonCheckpointHandler()}
    return ocp.CheckpointManager(directory, options=ocp.CheckpointManagerOptions(**options), item_handlers=handlers)


def _arrays(manager: Any, step: int, places: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """The verified arrays of a checkpoint, each where its namesake of `places` lies, others on the first device.

    The shapes are those of the checkpoint, so that a failure is one of its files, whatever the config says.

    Raises:
      Damaged: a file is missing, cut short or corrupted.
      UserError: it cannot be read for another reason.
    """
    first = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    try:
        saved = manager.item_metadata(step)["state"].tree
        wanted = {
            name: places[name]
            if name in places and places[name].shape == leaf.shape
            else jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=first)
            for name, leaf in saved.items()
        }
        args = _orbax().args
        parts = args.Composite(state=args.StandardRestore(wanted), digest=args.JsonRestore())
        found = manager.restore(step, args=parts)
    except Exception as error:  # Orbax raises Exception itself where a file of an array is missing
        line = _first_line(error)
        if isinstance(error, (MemoryError, PermissionError)) or any(code in str(error) for code in NO_DAMAGE):
            raise UserError(f"checkpoint {manager.directory / str(step)} cannot be read: {line}") from error
        raise Damaged(line) from error
    sums = found["digest"].get("sums")  # an older version wrote another checksum
    if sums is not None and _checksums(found["state"]) != sums:
        raise Damaged("its contents do not match its checksums")
    return found["state"]


def trainable(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The result of a `TrainState`, by the names of `named_weights`: blocks.q of a model, q.a of adapters."""
    prefix = ".best.trainable" if ".best.loss" in arrays else ".trainable"
    named = {path.removeprefix(prefix): array for path, array in arrays.items() if path.startswith(prefix)}
    return {re.sub(r"\['(\w+)'\]", r".\1", path).lstrip(".").removesuffix(".value"): x for path, x in named.items()}


def _flatten(tree: Any) -> dict[str, jax.Array]:
    return {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def _unflatten(arrays: dict[str, Any], like: Any):
    def leaf(path: tuple, old: Any):
        return jax.device_put(arrays[jax.tree_util.keystr(path)].reshape(old.shape), old.sharding)

    return jax.tree_util.tree_map_with_path(leaf, like)


def _checksums(arrays: dict[str, jax.Array]) -> dict[str, int]:
    """The checksum of every array, by name: that of all its shards, added up modulo 2^64.

    Every process reads the shards that it holds; of copies one is read. A sum does not depend on how an array is split,
    so that 1, 2 or 4 devices can verify what 8 have saved.
    """
    own = dict.fromkeys(arrays, 0)
    for name in arrays:
        for shard in arrays[name].addressable_shards:
            if shard.replica_id == 0:
                starts = [part.start or 0 for part in shard.index]
                own[name] += _checksum(np.asarray(shard.data), starts, arrays[name].shape)
    own_W = np.array([each % 2**64 for each in own.values()], np.uint64).view(np.uint32)  # JAX may know no 64 bits
    return dict(zip(arrays, gather(own_W).view(np.uint64).sum(0, dtype=np.uint64).tolist()))


def _checksum(shard: np.ndarray, starts: list[int], shape: tuple[int, ...]) -> int:
    """sum_i mix(bits of number i, place of i in the whole array), modulo 2^64.

    For one place mix is one-to-one, so that a change of one number is always seen.

    Args:
      starts, shape: where the shard begins in the whole array, and the shape of that.
    """
    bits, total = np.ascontiguousarray(shard).view(f"u{shard.itemsize}").reshape(-1), 0
    for start in range(0, bits.size, BLOCK):
        place = np.arange(start, min(start + BLOCK, bits.size))
        if shard.shape != shape:
            within = np.unravel_index(place, shard.shape)
            place = np.ravel_multi_index([i + first for i, first in zip(within, starts)], shape)
        mixed = bits[start : start + BLOCK] + place.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        mixed ^= mixed >> np.uint64(32)
        mixed *= np.uint64(0xD6E8FEB86659FD93)
        mixed ^= mixed >> np.uint64(32)
        total += int(mixed.sum(dtype=np.uint64))
    return total


def _first_line(error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:160]
