"""The tensors that a file of weights has to hold: those of its architecture, and no others."""

import pathlib
from collections.abc import Iterable

from icdm.errors import UserError


def check_names(path: pathlib.Path, wanted: Iterable[str], found: Iterable[str]) -> None:
    """Raises UserError, with their names, if tensors are missing or left over."""
    kinds = ("is missing", set(wanted) - set(found)), ("holds unknown tensors", set(found) - set(wanted))
    faults = [f"{what} {_listed(names)}" for what, names in kinds if names]
    if faults:
        raise UserError(f"{path} {' and '.join(faults)}")


def _listed(names: set[str], most: int = 6) -> str:
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(sorted(names)[:most]) + rest
