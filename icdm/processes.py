"""Several processes that work on one run, each with devices of its own (`jax.distributed`).

All of them compute the same programs in the same order, and each holds its part of the arrays. They share a file
system, and only the first writes: `is_first()`.

On CPU they must also start the collective operations of a program in the same order, since gloo tells messages apart
by their order alone. XLA starts them in the order of the program, but may go on as soon as a loop has begun, since its
turns may be spread over threads: a collective operation that comes after a loop with others, and needs nothing of it,
runs among those of the loop, sooner in one process than in another (jaxlib 0.10.2 to 0.12.0). No program may have such
a pair: what rows look up in loops lies on every device (`icdm.sharding.everywhere`), and layers, whose weights may be
split, are no loop (`icdm.models.transformer`). tests/test_processes.py reads what was compiled.
"""

import contextlib
import ctypes
import functools
import os
import pathlib
import signal
import socket
import sys
import time
import traceback
import zlib
from collections.abc import Iterator, Mapping

import numpy as np

from icdm.errors import STOPPED, UserError, one_line_errors

SECONDS_TO_JOIN = 180  # until every process has come
SECONDS_OF_SILENCE = 30  # after which a process counts as dead
AUTO, OFF = "auto", "off"
LOST = "another process of the run has ended (its own output says why): start the same command again in all of them"
GPUS = pathlib.Path("/proc/driver/nvidia/gpus")  # one entry for each GPU of the host

_several, _index = False, 0
_last_words = LOST


def is_first() -> bool:
    """Whether this process is the one that writes and prints; a process that works alone is."""
    return _index == 0


def are_several() -> bool:
    """Whether this process works with others."""
    return _several


def asked_for(environ: Mapping[str, str]) -> str:
    """What says that this is one of several processes: a variable of the environment, or nothing.

    These are JAX_COORDINATOR_ADDRESS, more than one task of a Slurm step or of Open MPI, and the workers of a TPU pod.
    """
    is_step = "SLURM_PROCID" in environ  # and not a batch script that has not called srun
    says_so = {
        "JAX_COORDINATOR_ADDRESS": bool(environ.get("JAX_COORDINATOR_ADDRESS")),
        "SLURM_NTASKS": is_step and int(environ.get("SLURM_NTASKS") or 1) > 1,
        "OMPI_COMM_WORLD_SIZE": int(environ.get("OMPI_COMM_WORLD_SIZE") or 1) > 1,
        "TPU_WORKER_HOSTNAMES": "," in environ.get("TPU_WORKER_HOSTNAMES", ""),
    }
    return next((name for name, several in says_so.items() if several), "")


class Agreement:
    """Whether any process has said yes, the same answer in all of them.

        agreed = Agreement()
        agreed(yes)  # True or False

    In a run of several processes the answer is that of the call before, which the devices have computed meanwhile: no
    call waits for what they compute now.
    """

    def __init__(self):
        self.before = None

    def __call__(self, yes: bool) -> bool:
        if not _several:
            return yes
        import jax

        said = np.full(jax.local_device_count(), yes)
        said_D = jax.make_array_from_process_local_data(self._by_device, said)
        before, self.before = self.before, jax.numpy.any(said_D)
        return before is not None and bool(before)

    @functools.cached_property
    def _by_device(self):
        """One number on each device of all processes."""
        import jax

        everywhere = jax.make_mesh((jax.device_count(),), ("device",), (jax.sharding.AxisType.Auto,))
        return jax.NamedSharding(everywhere, jax.P("device"))


def gather(x: np.ndarray) -> np.ndarray:
    """The arrays of all processes along a new first axis; all have come to this point."""
    if not _several:
        return x[None]
    from jax.experimental import multihost_utils

    return multihost_utils.process_allgather(x)


@contextlib.contextmanager
def joined(which: str, program: str) -> Iterator[None]:
    """Inside the block the process works with the others of its run, if the environment says that there are others
    (`asked_for`) and `which` is AUTO. It must begin before JAX is first used.

    A process that fails inside the block ends at once, with one line if it can be said in one (`one_line_errors`), and
    the others end after it.

    Raises:
      UserError: the others cannot be found, or do not come in time; or GPUs of this machine would lie idle.
    """
    told_by = asked_for(os.environ) if which == AUTO else ""
    if not told_by:
        yield
        return
    _join(told_by)
    import jax

    try:
        with one_line_errors(program):
            _refuse_idle_gpus()
            yield
    except SystemExit as end:
        if end.code == STOPPED:  # all of them have stopped
            jax.distributed.shutdown()
            raise
        _end(end.code)
    except Exception as error:
        if is_loss(error):
            print(f"{LOST} ({str(error).splitlines()[0][:160]})", file=sys.stderr)
            _end(2)
        traceback.print_exc()
        _end(1)
    jax.distributed.shutdown()


def _join(told_by: str) -> None:
    """Finds the other processes, and says how many there are."""
    global _several, _index, _last_words
    import jax

    address = os.environ.get("JAX_COORDINATOR_ADDRESS")
    given = {} if address is None else _given(os.environ)
    where = f"the coordinator at {address}" if address else f"the coordinator that {told_by} names"
    _last_words = f"the processes of the run have not all come to {where} within {SECONDS_TO_JOIN} s: start all of them"
    if given:
        _look_ahead(address, given["process_id"])
    _say_last_words()
    try:
        jax.distributed.initialize(
            **given, initialization_timeout=SECONDS_TO_JOIN, heartbeat_timeout_seconds=SECONDS_OF_SILENCE
        )
    except (ValueError, TypeError, RuntimeError) as error:
        line = str(error).splitlines()[0]
        raise UserError(
            f"{told_by} asks for several processes, but they cannot be joined ({line}): set JAX_COORDINATOR_ADDRESS, "
            "JAX_NUM_PROCESSES and JAX_PROCESS_ID, or give --distributed=off"
        ) from None
    _several, _index, _last_words = jax.process_count() > 1, jax.process_index(), LOST
    if not is_first():
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 (it lasts as long as the process)
    print(f"{jax.process_count()} processes with {jax.device_count()} devices in all, as {told_by} says", flush=True)


def _given(environ: Mapping[str, str]) -> dict[str, str | int]:
    """What the variables JAX_... say of processes that were started by hand; nothing if a cluster says it.

    Raises:
      UserError: they say only a part, or nonsense.
    """
    names = {"num_processes": "JAX_NUM_PROCESSES", "process_id": "JAX_PROCESS_ID"}
    found = {field: environ.get(name, "") for field, name in names.items()}
    if not any(found.values()):
        return {}
    for field, text in found.items():
        if not text.isdecimal():
            raise UserError(f"{names[field]}={text!r} beside JAX_COORDINATOR_ADDRESS: give a number")
    n, i = int(found["num_processes"]), int(found["process_id"])
    if i >= n:
        raise UserError(f"JAX_PROCESS_ID={i} of JAX_NUM_PROCESSES={n}: number the processes from 0 to {n - 1}")
    address = environ["JAX_COORDINATOR_ADDRESS"]
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise UserError(f"JAX_COORDINATOR_ADDRESS={address!r}: give HOST:PORT of process 0")
    return {"coordinator_address": address, "num_processes": n, "process_id": i}


def _look_ahead(address: str, process_id: int) -> None:
    """Refuses in one line what JAX ends the process for: a port in use, and a coordinator that never answers."""
    host, _, port = address.rpartition(":")
    if process_id == 0:
        try:
            socket.create_server(("", int(port))).close()
        except OSError as error:
            raise UserError(f"JAX_COORDINATOR_ADDRESS={address}: {error.strerror}; choose another port") from None
        return
    deadline = time.monotonic() + SECONDS_TO_JOIN
    while True:
        try:
            socket.create_connection((host, int(port)), timeout=5).close()
            return
        except OSError as error:
            if time.monotonic() > deadline:
                raise UserError(
                    f"no coordinator answers at {address} within {SECONDS_TO_JOIN} s ({error.strerror or error}): "
                    "start process 0 there"
                ) from None
        time.sleep(0.2)


@ctypes.CFUNCTYPE(None, ctypes.c_int)
def _on_abort(_: int) -> None:
    os.write(2, f"{_last_words}\n".encode())
    os._exit(2)


def _say_last_words() -> None:
    """JAX ends the process by SIGABRT, from a thread of its own, when it misses another: one line then says so."""
    ctypes.CDLL(None).signal(int(signal.SIGABRT), _on_abort)


def is_loss(error: Exception) -> bool:
    """Whether a collective operation failed because another process has gone."""
    return any(sign in str(error) for sign in ("Gloo", "NCCL", "coordination service", "Connection reset"))


def _end(code: int) -> None:
    """Ends the process without a word to the others, for which an orderly end would wait."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _refuse_idle_gpus() -> None:
    import jax

    if jax.default_backend() != "gpu":
        return
    host = zlib.crc32(socket.gethostname().encode())
    mine = np.array([host, gpus_allowed(os.environ), jax.local_device_count()])
    host_P, allowed_P, used_P = gather(mine).T
    here_P = host_P == host
    check_no_idle_gpus(int(allowed_P[here_P].max()), int(used_P[here_P].sum()))


def gpus_allowed(environ: Mapping[str, str]) -> int:
    """How many GPUs of this machine a process may use."""
    visible = environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([name for name in visible.split(",") if name])
    return len(list(GPUS.iterdir())) if GPUS.is_dir() else 0


def check_no_idle_gpus(allowed: int, used: int) -> None:
    """Raises UserError where the processes of a machine use fewer of its GPUs than they may.

    Under Slurm JAX gives each process one GPU, so that one process a node leaves the others of the node idle.
    """
    if used < allowed:
        raise UserError(
            f"{allowed - used} of {allowed} GPUs of {socket.gethostname()} would lie idle: start one process for each "
            "GPU (srun --ntasks-per-node), or name those of each process in JAX_LOCAL_DEVICE_IDS"
        )
