"""The log of a run at work: metrics.jsonl and a progress line."""

import json
import pathlib
import signal
import sys
import time

from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from icdm.files import write_text

QUIET_SECONDS = 15  # between two progress lines when the output is not a terminal


class StopRequest:
    """Turns SIGTERM and SIGINT into a question that long work asks: `if stop(): ...`."""

    def __init__(self):
        self.asked = False
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._ask)

    def __call__(self) -> bool:
        return self.asked

    def _ask(self, *_):
        self.asked = True


class Monitor:
    """The log of one phase: `monitor(step)` says where it begins, `monitor(step, loss=...)` goes on.

    Lines of metrics.jsonl that a killed run wrote after its last checkpoint are taken back when the
    phase begins at that checkpoint. `seconds` counts the time spent in the phase over all starts.
    """

    def __init__(self, path: pathlib.Path, phase: str, steps: int):
        self.path, self.phase, self.steps = path, phase, steps
        self.seconds = 0.0
        self.file = None

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

    def __call__(self, step: int, **numbers: float) -> None:
        if self.file is None:
            self._begin(step)
        if numbers:
            now = time.monotonic()
            self.seconds, self.since = self.seconds + now - self.since, now
            line = {"phase": self.phase, "step": step, **numbers, "seconds": self.seconds}
            self.file.write(json.dumps(line) + "\n")
            self.file.flush()
        self._show(step, numbers)

    def _begin(self, step: int):
        kept = []
        for line in read_metrics(self.path):
            if line["phase"] != self.phase or line["step"] <= step:
                kept.append(json.dumps(line) + "\n")
            if line["phase"] == self.phase and line["step"] <= step:
                self.seconds = line["seconds"]
        write_text(self.path, "".join(kept))
        self.file = self.path.open("a")
        self.since = time.monotonic()
        if step:
            print(f"{self.phase}: going on from step {step} of {self.steps}", flush=True)

    def _show(self, step: int, numbers: dict[str, float]):
        text = "  ".join(f"{name} {value:,.4g}" for name, value in numbers.items() if name != "grad_norm")
        self.progress.update(self.task, completed=step, numbers=text)
        due = time.monotonic() - self.said > QUIET_SECONDS or step >= self.steps
        if not self.terminal and numbers and due:
            self.said = time.monotonic()
            left = self.seconds / step * (self.steps - step)
            print(f"{self.phase} {step}/{self.steps}  {text}  about {left:.0f} s left", flush=True)


def read_metrics(path: pathlib.Path) -> list[dict]:
    """The lines of metrics.jsonl; one that was cut short by a kill is left out."""
    lines = []
    if path.exists():
        for text in path.read_text().splitlines():
            try:
                lines.append(json.loads(text))
            except json.JSONDecodeError:
                continue
    return lines
