"""The log of a run at work: metrics.jsonl and a progress line."""

import json
import os
import pathlib
import signal
import sys
import time
from collections.abc import Callable
from typing import Any, TextIO

from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from icdm.errors import UserError
from icdm.files import write_text
from icdm.processes import Agreement, is_first

NUMBERS = ("step", "loss", "seconds")  # of every line of metrics.jsonl
UNSAID = ("grad_norm", "tflops_per_s")  # in the progress line
QUIET_SECONDS = 15  # between two progress lines when the output is not a terminal


class Lasting:
    """A stream that outlives its reader: what is printed once that has gone (`| head -1`) is dropped."""

    def __init__(self, stream: TextIO):
        self.stream = stream

    def write(self, text: str) -> int:
        return self._tried(lambda: self.stream.write(text))

    def flush(self) -> None:
        self._tried(self.stream.flush)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def _tried(self, step: Callable[[], Any]) -> Any:
        try:
            return step()
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.stream.fileno())
            return step()


def outlive_readers() -> None:
    """From now on no print ends the work: a reader that has gone is missed by nobody, and characters that the
    terminal's encoding lacks are replaced."""
    if sys.stdout is sys.__stdout__:
        sys.stdout.reconfigure(errors="replace")
        sys.stdout = Lasting(sys.stdout)


class StopRequest:
    """Turns SIGTERM, SIGINT and the signals by which a cluster announces an end, SIGUSR1 and SIGUSR2, into a question
    that long work asks: `if stop(): ...`. In a run of several processes all ask equally often, and get the same answer
    each time, whichever of them the signal has reached."""

    def __init__(self):
        self.asked, self.agreed = False, Agreement()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2):
            signal.signal(number, self._ask)

    def __call__(self) -> bool:
        return self.agreed(self.asked)

    def _ask(self, *_):
        self.asked = True


class Monitor:
    """The log of one phase: `monitor(step)` says where it begins, and then that the first step is compiled;
    `monitor(step, loss=...)` goes on. In a run of several processes only the first writes metrics.jsonl.

    Lines of metrics.jsonl that a killed run wrote after its last checkpoint are taken back when the
    phase begins at that checkpoint. `seconds` counts the time spent in the phase over all starts.

    Args:
      events: a directory for TensorBoard's event files with the same numbers; None for none.
    """

    def __init__(self, path: pathlib.Path, phase: str, steps: int, events: pathlib.Path | None = None):
        self.path, self.phase, self.steps, self.events = path, phase, steps, events
        self.seconds = 0.0
        self.file = self.writer = None

    def __enter__(self):
        self.terminal = sys.stdout.isatty()
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed}/{task.total}"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[numbers]}"),
            disable=not self.terminal,
        )
        self.progress.start()
        self.task = self.progress.add_task(self.phase, total=self.steps, numbers="")
        self.said = time.monotonic()
        return self

    def __exit__(self, *_):
        self.progress.stop()
        if self.file:
            self.file.close()
        if self.writer:
            self.writer.close()

    def __call__(self, step: int, **numbers: float) -> None:
        if self.file is None:
            self._begin(step)
        if numbers:
            now = time.monotonic()
            self.seconds, self.since = self.seconds + now - self.since, now
            line = {"phase": self.phase, "step": step, **numbers, "seconds": self.seconds}
            self.file.write(json.dumps(line) + "\n")
            self.file.flush()
            for name, value in numbers.items() if self.writer else ():
                self.writer.add_scalar(f"{self.phase}/{name}", value, step)
        self._show(step, numbers)

    def _begin(self, step: int):
        kept = []
        for line in read_metrics(self.path):
            if line["phase"] != self.phase or line["step"] <= step:
                kept.append(json.dumps(line) + "\n")
            if line["phase"] == self.phase and line["step"] <= step:
                self.seconds = line["seconds"]
        write_text(self.path, "".join(kept))
        self.file = (self.path if is_first() else pathlib.Path(os.devnull)).open("a")
        if self.events and is_first():
            from tensorboardX import SummaryWriter  # the extra `tensorboard`

            self.writer = SummaryWriter(str(self.events), purge_step=step + 1)
        self.since = time.monotonic()
        if step:
            print(f"{self.phase}: going on from step {step} of {self.steps}", flush=True)
        self.first = step

    def _show(self, step: int, numbers: dict[str, float]):
        text = "  ".join(f"{name} {value:,.4g}" for name, value in numbers.items() if name not in UNSAID)
        if step == self.first < self.steps:
            text = "compiling"
            if not self.terminal:
                print(f"{self.phase} {step}/{self.steps}  {text}", flush=True)
        self.progress.update(self.task, completed=step, numbers=text)
        due = time.monotonic() - self.said > QUIET_SECONDS or step >= self.steps
        if not self.terminal and numbers and due:
            self.said = time.monotonic()
            left = self.seconds / step * (self.steps - step)
            print(f"{self.phase} {step}/{self.steps}  {text}  about {left:.0f} s left", flush=True)


def read_metrics(path: pathlib.Path) -> list[dict]:
    """The lines of metrics.jsonl; the last is left out if a kill cut it short.

    Raises:
      UserError: another line is damaged.
    """
    if not path.exists():
        return []
    lines, texts = [], path.read_bytes().split(b"\n")
    for i, text in enumerate(texts, 1):
        try:
            line = json.loads(text)
            if not (isinstance(line["phase"], str) and all(isinstance(line[name], (int, float)) for name in NUMBERS)):
                raise ValueError
            lines.append(line)
        except (ValueError, TypeError, KeyError):
            if i < len(texts):
                raise UserError(
                    f"{path}, line {i}, is damaged: delete that line (it is only drawn, no result depends on it)"
                ) from None
    return lines
