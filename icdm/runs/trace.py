"""A trace of some steps of a phase: what each operation took, on the host and on the devices."""

import pathlib
from typing import Any

import jax


class Trace:
    """Writes a trace of the steps from the first to before the end; without steps it does nothing.

        with Trace(directory, (10, 13)) as trace:
            ...
            trace(step, state)  # before each step

    The directory gets files for Perfetto (perfetto_trace.json.gz, https://ui.perfetto.dev) and for xprof (xplane.pb).
    """

    def __init__(self, directory: pathlib.Path, steps: tuple[int, int] | None):
        self.directory, self.steps = directory, steps
        self.is_running = False

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._end()

    def __call__(self, step: int, state: Any) -> None:
        if self.steps is None:
            return
        first, end = self.steps
        if step in (first, end):
            jax.block_until_ready(state)  # earlier steps stay out of the trace, and the last one in it
        if step == end:
            self._end()
        if step == first:
            jax.profiler.start_trace(self.directory, create_perfetto_trace=True)
            self.is_running = True

    def _end(self) -> None:
        if self.is_running:
            self.is_running = False
            jax.profiler.stop_trace()
            print(f"trace of the steps {self.steps[0]} to {self.steps[1] - 1}: {self.directory}", flush=True)
