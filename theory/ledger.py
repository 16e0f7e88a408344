"""The ledger of claims: each with its statement, its measurement, and its verdict."""

import dataclasses
import json
import math
import pathlib

from ml_collections import ConfigDict

from icdm.errors import UserError
from icdm.files import read_json, write_json
from theory.wording import in_words

VERDICTS = ("fails", "undecided", "holds")  # from the worst to the best


@dataclasses.dataclass(frozen=True)
class Claim:
    """One claim and its measurement, a JSON object of claims.json.

    Attributes:
      id: name of the module in theory/claims.
      claim: the statement.
      source: where it comes from.
      metric: the meaning of the measured numbers.
      measured: numbers by name.
      ci95: [low, high] for the measured numbers that vary with the draw.
      control: numbers by name that must not, or need not, satisfy the claim.
      threshold: for the measured numbers that decide, "<= x", ">= x" or "low .. high".
      config: the settings it was measured with.
      seconds: time it took.
      made_with: commit, versions and machine (`icdm.provenance`); older ledgers lack it.
    """

    id: str
    claim: str
    source: str
    metric: str
    measured: dict[str, float]
    ci95: dict[str, list[float]]
    control: dict[str, float]
    threshold: dict[str, str]
    config: dict
    seconds: float = 0.0
    made_with: dict = dataclasses.field(default_factory=dict)

    @property
    def verdicts(self) -> dict[str, str]:
        """What its interval decides about every number that has a threshold (`decided`)."""
        return {
            name: decided(self.measured[name], self.ci95.get(name, []), limit) for name, limit in self.threshold.items()
        }

    @property
    def verdict(self) -> str:
        """The worst of them: one number that fails makes the claim fail."""
        return min(self.verdicts.values(), key=VERDICTS.index, default="holds")

    @property
    def holds(self) -> bool:
        return self.verdict == "holds"


def decided(value: float, interval: list[float], threshold: str) -> str:
    """What an interval decides: "holds" if all of it meets the threshold, "fails" if none does, else "undecided".

    A number without an interval decides by itself; one that is not finite fails.
    """
    low, high = limits(threshold)
    ends = [value, *interval]
    if not all(map(math.isfinite, ends)) or max(ends) < low or min(ends) > high:
        return "fails"
    return "holds" if low <= min(ends) and max(ends) <= high else "undecided"


def limits(threshold: str) -> tuple[float, float]:
    """The lowest and the highest value that meet "<= x", ">= x" or "low .. high"."""
    match threshold.split():
        case ["<=", limit]:
            return -math.inf, float(limit)
        case [">=", limit]:
            return float(limit), math.inf
        case [low, "..", high]:
            return float(low), float(high)
    raise ValueError(f"threshold {threshold!r}: give '<= x', '>= x' or 'low .. high'")


def as_json(claim: Claim) -> dict:
    """The claim as it stands in claims.json; its verdict goes before the seconds."""
    fields = dataclasses.asdict(claim)
    order = [
        "id",
        "claim",
        "source",
        "metric",
        "measured",
        "ci95",
        "control",
        "threshold",
        "verdict",
        "holds",
        "seconds",
        "config",
        "made_with",
    ]
    return {name: {**fields, "verdict": claim.verdict, "holds": claim.holds}[name] for name in order}


def write(path: pathlib.Path, claims: list[Claim]) -> None:
    """Writes claims.json in one step, so that a reader never sees half of it."""
    write_json(path, [as_json(claim) for claim in claims], indent=1)


def read(path: pathlib.Path) -> list[Claim]:
    """The claims of a claims.json; none if there is no file.

    Raises:
      UserError: the file is damaged.
    """
    if not path.exists():
        return []
    remedy = "delete it, and its claims are checked anew"
    try:
        return [
            Claim(**{name: value for name, value in entry.items() if name not in ("verdict", "holds")})
            for entry in read_json(path, remedy, list)
        ]
    except (AttributeError, TypeError):
        raise UserError(f"{path} is damaged: {remedy}") from None


def same_settings(claim: Claim, config: ConfigDict) -> bool:
    """Whether a claim was measured with these settings."""
    return json.loads(json.dumps(claim.config)) == json.loads(json.dumps(config.to_dict()))


def number(value: float) -> str:
    """A number for readers: 4 significant digits, counts in full."""
    return str(value) if isinstance(value, int) else f"{value:.4g}"


def sentence(claim: Claim) -> str:
    """What decides the verdict."""
    if claim.holds:
        return "Every number meets its threshold, with its whole interval where it has one."
    found = [name for name, verdict in claim.verdicts.items() if verdict == claim.verdict]
    named = ", ".join(f"{in_words(name)} ({claim.threshold[name]})" for name in found)
    meaning = {"fails": "Outside the threshold", "undecided": "On both sides of the threshold"}
    return f"{meaning[claim.verdict]}: {named}."


def lines(claim: Claim) -> list[tuple[str, str, str, str, str]]:
    """(name, measured, interval, threshold, verdict) for every measured number, the deciding ones first."""
    names = [*claim.threshold, *(name for name in claim.measured if name not in claim.threshold)]
    verdicts = claim.verdicts
    return [
        (
            in_words(name),
            number(claim.measured[name]),
            " .. ".join(map(number, claim.ci95[name])) if name in claim.ci95 else "",
            claim.threshold.get(name, ""),
            verdicts.get(name, ""),
        )
        for name in names
    ]
