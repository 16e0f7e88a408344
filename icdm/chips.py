"""Accelerators whose speed is published: what a program could reach at best."""

from typing import NamedTuple

import jax


class Chip(NamedTuple):
    """Published peaks of one chip.

    Attributes:
      flops: operations per second of bfloat16 matrix products, dense.
      bandwidth: bytes per second between the chip and its memory.
      memory: bytes.
    """

    flops: float
    bandwidth: float
    memory: float


# By what JAX's device_kind begins with, longer names first. Sources: NVIDIA's data sheets (SXM), Google Cloud's pages
# on TPU versions.
CHIPS = {
    "NVIDIA B200": Chip(2250e12, 8e12, 180e9),
    "NVIDIA H200": Chip(989e12, 4.8e12, 141e9),
    "NVIDIA H100": Chip(989e12, 3.35e12, 80e9),
    "NVIDIA A100-SXM4-40GB": Chip(312e12, 1.555e12, 40e9),
    "NVIDIA A100": Chip(312e12, 2.039e12, 80e9),
    "NVIDIA L4": Chip(121e12, 0.3e12, 24e9),
    "TPU v6 lite": Chip(918e12, 1.64e12, 32e9),
    "TPU v5 lite": Chip(197e12, 0.819e12, 16e9),
    "TPU v5": Chip(459e12, 2.765e12, 95e9),  # v5p
    "TPU v4": Chip(275e12, 1.2e12, 32e9),
}


def chip_of(device_kind: str) -> Chip | None:
    """The chip of that name, or None for one whose peaks are not known here, such as a CPU."""
    return next((chip for name, chip in CHIPS.items() if device_kind.startswith(name)), None)


def utilisation(flops_per_s: float) -> dict[str, float]:
    """{"tflops_per_s"}, and "mfu", its share of the peak of all devices (Chowdhery et al., 2022), if that is known."""
    chip = chip_of(jax.devices()[0].device_kind)
    share = {"mfu": flops_per_s / (chip.flops * jax.device_count())} if chip else {}
    return {"tflops_per_s": flops_per_s / 1e12, **share}
