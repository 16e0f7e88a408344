"""The points of a sweep: from a config and its axes to the config of every run. Nothing is run here."""

import copy
import itertools
import json
import re
from typing import Any

from icdm.errors import UserError, unknown
from icdm.problems.family import parse_parameters

Point = dict[str, Any]


def axes_of(config: Any, texts: list[str]) -> dict[str, list]:
    """{axis: values}: the config's own grid, if it has one, and the axes of the --sweep flags.

    In a config's `sweep`, an axis is a field with its values, `problem` with texts of families, or a name of its own
    with settings, {value: fields}. Axes are in alphabetical order, and a later one's settings win. The entry `same` is
    no axis (`experiments.sweep_report.same_of`).
    """
    own = {axis: [_number(x) for x in values] for axis, values in config.get("sweep", {}).items() if axis != "same"}
    return own | dict(parse_axis(config, text) for text in texts)


def parse_axis(config: Any, text: str) -> tuple[str, list]:
    """'config.horizon=5,10' -> ("horizon", [5, 10]), the values in the type of the field.

    Raises:
      UserError: text of another form, an unknown field, a value of another type, a value that is there twice.
    """
    name, equals, values = text.partition("=")
    field = name.removeprefix("config.")
    if not equals or not values:
        raise UserError(f"--sweep {text!r}: write config.FIELD=VALUE,VALUE,...")
    if field in _settings(config):
        for value in values.split(","):
            if value not in config.sweep[field]:
                raise unknown(f"value of {field}", value, config.sweep[field])
        return field, _different(text, [_number(value) for value in values.split(",")])
    fields = fields_of(config)
    if field not in fields:
        raise unknown("config field", field, fields)
    return field, _different(text, [typed(field, fields[field], value) for value in values.split(",")])


def _different(text: str, values: list) -> list:
    for i, value in enumerate(values):
        if value in values[:i]:
            raise UserError(f"--sweep {text!r}: {value} is there twice")
    return values


def fields_of(config: Any, prefix: str = "") -> dict[str, Any]:
    """{dotted name: value} of every field of a config, groups included."""
    found = {}
    for name, value in config.items():
        if hasattr(value, "items"):
            found |= fields_of(value, f"{prefix}{name}.")
        found[prefix + name] = value
    return found


def points_of(axes: dict[str, list]) -> list[Point]:
    """Every point of the grid, the last axis fastest."""
    return [dict(zip(axes, values)) for values in itertools.product(*axes.values())]


def config_at(config: Any, point: Point) -> Any:
    """The config of one run, with the point's fields set."""
    one, fields = copy.deepcopy(config), dict(point)
    with one.unlocked():
        if "sweep" in one:
            del one.sweep
        if "problem" in fields:  # a family with its parameters
            one.family, one.problem = parse_parameters(fields.pop("problem"))
        for axis in [axis for axis in point if axis in _settings(config)]:
            one.update(config.sweep[axis][str(fields.pop(axis))])
        one.update_from_flattened_dict(fields)
    return one


def _settings(config: Any) -> set[str]:
    """The axes of a config's own grid whose values stand for several fields."""
    own = config.get("sweep", {})
    return {axis for axis, values in own.items() if axis != "same" and hasattr(values, "items")}


def label_of(point: Point) -> str:
    """The point in words."""
    return ",".join(f"{name}={value}" for name, value in point.items())


def directory_of(point: Point) -> str:
    """The name of the point's directory, which lies in that of the sweep whatever the values are."""
    return re.sub(r"[:/\\\0]", "-", label_of(point))


def parameters(point: Point) -> Point:
    """The point with the parameters of its problem as entries of their own."""
    return point | parse_parameters(point.get("problem", ""))[1]


def _number(value: Any) -> Any:
    """A text of digits as the number, so that it can be drawn."""
    return int(value) if isinstance(value, str) and value.isdecimal() else value


def typed(field: str, default: Any, text: str) -> Any:
    """The value of a field that a text says, in the type of its default; of any type where that is None.

    Raises:
      UserError: a text of another type.
    """
    try:
        value = text if isinstance(default, str) else json.loads(text.lower())
    except json.JSONDecodeError:
        value = text
    if isinstance(default, float) and isinstance(value, int):
        value = float(value)
    if default is not None and type(value) is not type(default):
        raise UserError(f"{field}={text}: give values of type {type(default).__name__}")
    return value
