"""Rotary positions in config.json: `rope_parameters` since transformers 5, `rope_theta` and `rope_scaling` before."""

import numpy as np

from icdm.errors import UserError, unknown
from icdm.published.architectures.attributes import Attributes

TYPES = ("default", "llama3")


def rotary(attributes: Attributes, head_width: int, base: float | None) -> tuple[float, tuple[float, ...]]:
    """The wavelength base and what the frequency of each pair is divided by; () for nothing.

    Args:
      base: of a config.json that has none; None if it must have one.

    Raises:
      UserError: a kind of scaling, or a parameter of one, that is not understood.
    """
    if "rope_parameters" in attributes and "rope_scaling" in attributes:
        raise UserError(f"{attributes.where}: rope_parameters and rope_scaling are both there: remove one")
    scaling = attributes.inner("rope_parameters" if "rope_parameters" in attributes else "rope_scaling")
    holders = [holder for holder in (scaling, attributes) if "rope_theta" in holder]
    bases = {holder.real("rope_theta") for holder in holders} or ({base} if base else set())
    kinds = {str(scaling.value(name)) for name in ("rope_type", "type") if name in scaling} or {"default"}
    for name, values in (("rope_theta", bases), ("rope_type", kinds)):
        if len(values) != 1:
            raise UserError(f"{attributes.where}: attribute {name} has {len(values)} values: give one")
    [base], [kind] = bases, kinds
    if kind not in TYPES:
        raise unknown(f"rope_type in {attributes.where}", kind, TYPES)
    divisors = llama3_divisors(scaling, base, head_width) if kind == "llama3" else ()
    scaling.check_all_read()
    return base, divisors


def llama3_divisors(scaling: Attributes, base: float, head_width: int) -> tuple[float, ...]:
    """Divisors of Llama 3.1 (`_compute_llama3_parameters` of transformers), in float64.

    Pairs that turn at least `high_freq_factor` times within the original length stay, those that turn less than
    `low_freq_factor` times are slowed by `factor`, and the frequency between is interpolated.
    """
    factor, length = scaling.real("factor"), scaling.integer("original_max_position_embeddings")
    low, high = scaling.real("low_freq_factor"), scaling.real("high_freq_factor")
    if not low < high:
        raise UserError(f"{scaling.where}: low_freq_factor {low} is not below high_freq_factor {high}")
    turns = length * base ** (-2 * np.arange(head_width // 2) / head_width) / (2 * np.pi)
    kept = np.clip((turns - low) / (high - low), 0, 1)
    return tuple((1 / (kept + (1 - kept) / factor)).tolist())
