"""The book of one claim: every number on one line, with its interval and its threshold; `close` makes it a Claim."""

from collections.abc import Callable

import numpy as np
from ml_collections import ConfigDict

from icdm.intervals import bootstrap_interval
from theory.ledger import Claim


class Book:
    """Collects what a claim measured and its controls, in the order of its lines.

    Attributes:
      config: the claim's settings; `config.seed` starts the bootstrap's generator where none is given.
      rng: draws the bootstrap's resamples, line after line. A claim that draws other numbers from a generator,
        before or between the lines, gives that generator.
      repeats: resamples for each interval.
      measured, ci95, controls, threshold: numbers, intervals and limits by name, as a Claim has them.
    """

    def __init__(self, config: ConfigDict, rng: np.random.Generator | None = None, repeats: int = 1000):
        self.config, self.repeats = config, repeats
        self.rng = np.random.default_rng(config.seed) if rng is None else rng
        self.measured: dict[str, float] = {}
        self.ci95: dict[str, list[float]] = {}
        self.controls: dict[str, float] = {}
        self.threshold: dict[str, str] = {}

    def measure(self, name: str, statistic: Callable, *samples: np.ndarray, **limit: float | tuple | None) -> None:
        """Enters statistic(*samples) and its percentile 95 % bootstrap interval.

        Args:
          statistic: number computed from arrays like the samples.
          samples: arrays of N independent cases along the first axis, which are resampled together.
          limit: `at_least`, `at_most` or `between`, as for `enter`.
        """
        interval = bootstrap_interval(statistic, *samples, rng=self.rng, repeats=self.repeats)
        self.enter(name, statistic(*samples), interval, **limit)

    def enter(
        self,
        name: str,
        value: float,
        interval: list[float] | None = None,
        *,
        at_least: float | None = None,
        at_most: float | None = None,
        between: tuple[float, float] | None = None,
    ) -> None:
        """Enters a number that was computed elsewhere.

        Args:
          value: the number; an int is a count and stays one.
          interval: its 95 % interval [low, high]; none if it does not vary with the draw.
          at_least, at_most, between: the limit that the value and its interval have to meet; none of them if it decides
            nothing.
        """
        self.measured[name] = value if isinstance(value, int) else float(value)
        if interval is not None:
            self.ci95[name] = interval
        if at_least is not None:
            self.threshold[name] = f">= {short(at_least)}"
        if at_most is not None:
            self.threshold[name] = f"<= {short(at_most)}"
        if between is not None:
            self.threshold[name] = " .. ".join(map(short, between))

    def control(self, name: str, value: float) -> None:
        """Enters a number that must not, or need not, satisfy the claim."""
        self.controls[name] = float(value)

    def close(self, id: str, claim: str, source: str, metric: str) -> Claim:
        """The Claim of all lines; the arguments are the Claim's texts."""
        return Claim(
            id=id,
            claim=claim,
            source=source,
            metric=metric,
            measured=self.measured,
            ci95=self.ci95,
            control=self.controls,
            threshold=self.threshold,
            config=self.config.to_dict(),
        )


def short(limit: float) -> str:
    """A limit as 1e-6, not 1e-06."""
    return str(limit).replace("e-0", "e-")
