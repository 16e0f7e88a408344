"""The attributes of a JSON configuration, each of which has to be understood."""

from collections.abc import Iterable
from typing import Any

from icdm.errors import UserError


class Attributes:
    """Attributes by name; null stands for one that is absent.

    Args:
      content: the JSON object.
      where: the file, for errors.
    """

    def __init__(self, content: dict[str, Any], where: str):
        self.where = where
        self._values = {name: value for name, value in content.items() if value is not None}
        self._unread = set(self._values)

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def integer(self, name: str, default: int | None = None) -> int:
        """An integer of at least 1."""
        value = self.value(name, default)
        if type(value) is not int or value < 1:
            raise UserError(f"{self.where}: attribute {name} {value!r} is no integer of at least 1")
        return value

    def real(self, name: str, default: float | None = None) -> float:
        """A number above 0."""
        value = self.value(name, default)
        if type(value) not in (int, float) or not value > 0:
            raise UserError(f"{self.where}: attribute {name} {value!r} is no number above 0")
        return float(value)

    def table(self, name: str) -> dict[str, Any]:
        """An object; empty if it is absent."""
        content = self.value(name, {})
        if type(content) is not dict:
            raise UserError(f"{self.where}: attribute {name} {content!r} is no object")
        return content

    def inner(self, name: str) -> "Attributes":
        """The attributes of an object, each of which has to be understood too."""
        return Attributes(self.table(name), f"{self.where}: {name}")

    def value(self, name: str, default: Any = None) -> Any:
        """A value of any type; one without a default has to be there."""
        if name not in self._values and default is None:
            raise UserError(f"{self.where}: attribute {name} is missing")
        self._unread.discard(name)
        return self._values.get(name, default)

    def only(self, name: str, *accepted: Any) -> None:
        """Refuses an attribute that is there with another value than the accepted ones."""
        if self.value(name, accepted[0]) not in accepted:
            raise UserError(f"{self.where}: attribute {name} {self._values[name]!r} is not understood")

    def without_effect(self, names: Iterable[str]) -> None:
        """Attributes that change nothing of what is computed."""
        self._unread -= set(names)

    def check_all_read(self) -> None:
        """Raises UserError, with their names, if there are attributes that have not been read."""
        if self._unread:
            names = ", ".join(f"{name} {self._values[name]!r}"[:80] for name in sorted(self._unread))
            raise UserError(f"{self.where}: not understood: {names}")
