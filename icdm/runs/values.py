"""The type and the range of every value of a config by itself."""

import json
import math
from typing import Any

from icdm.errors import UserError, unknown

MANY = 10**9  # no array is longer
LIMITS = {  # the lowest and the highest value of numbers, by field or by the last part of its name
    "seed": (0, 2**32 - 1),
    "horizon": (1, MANY),
    "reward_bins": (2, 2**16),
    "mesh_model": (1, MANY),
    "episodes": (0, MANY),
    "evaluation.tasks": (1, MANY),
    "evaluation.episodes": (1, MANY),
    "evaluation.rows": (1, MANY),
    "evaluation.own_episodes": (0, MANY),
    "fine_tune.pool": (0, MANY),
    "names": (0, MANY),
    "rows": (0, MANY),
    "fine_tune.validation": (0, 1),
    "points": (1, MANY),
    "features.edges": (0, 1000),
    "features.states": (1, 2**16),
    "steps": (0, MANY),
    "batch": (1, MANY),
    "warmup": (0, MANY),
    "lora_rank": (0, MANY),
    "lora_dropout": (0, 1),
    "weight_decay": (0, math.inf),
    "checkpoint_every": (1, MANY),
    "log_every": (1, MANY),
    "validate_every": (0, MANY),
    "patience": (1, MANY),
    "epsilon": (0, 1),
    "mixing": (0, MANY),
    "rotary_base": (0, math.inf),
}
SIZES = ("width", "layers", "heads", "kv_heads", "hidden", "max_length")
LIMITS |= {f"model.{name}": (1, MANY) for name in SIZES}
ABOVE_0 = ("learning_rate", "clip", "lora_alpha", "temperature", "tolerance", "time_limit")
KINDS = {
    bool: ((bool,), "True or False"),
    int: ((int,), "a whole number"),
    float: ((int, float), "a number"),
    str: ((str,), "a text"),
    list: ((list,), "a list of texts"),
    dict: ((dict,), "fields"),
}
FREE = ("problem", "published", "fine_tune.mixture")  # groups whose fields have no defaults


def check_values(values: dict[str, Any], known: dict[str, Any], prefix: str = "") -> None:
    """Every value of a config by itself: its type, which is that of the default, and its range.

    Raises:
      UserError: an unknown field of a group, or a value that no run accepts.
    """
    for name, value in values.items():
        field = prefix + name
        if name not in known:
            if prefix:
                raise unknown("config field", field, [prefix + each for each in known])
            continue  # of a sweep, or of an earlier version
        types, kind = KINDS[type(known[name])]
        texts = not isinstance(value, list) or all(isinstance(text, str) for text in value)
        if type(value) not in types or not texts:
            raise UserError(f"{field} {json.dumps(value)}: give {kind}")
        if isinstance(value, dict) and field not in FREE:
            check_values(value, known[name], f"{field}.")
        elif types[0] is int:
            _check_number(field, value, kind)


def _check_number(field: str, value: float, kind: str) -> None:
    """Raises UserError for a number that is not finite, or out of its range."""
    name = field.split(".")[-1]
    if not math.isfinite(value):
        raise UserError(f"{field} {value}: give {kind} that is finite")
    if name in ABOVE_0 and value <= 0:
        raise UserError(f"{field} {value}: give {kind} above 0")
    lowest, highest = LIMITS.get(field) or LIMITS.get(name) or (-math.inf, math.inf)
    if value < lowest:
        raise UserError(f"{field} {value}: give at least {lowest}")
    if value > highest:
        raise UserError(f"{field} {value}: give at most {highest}")
