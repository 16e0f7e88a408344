"""Accelerators: which one programs are compiled for, and what they could reach there at best."""

import contextlib
from typing import NamedTuple

import jax


class Chip(NamedTuple):
    """Published peaks of one chip.

    Attributes:
      flops: operations per second of bfloat16 matrix products, dense.
      bandwidth: bytes per second between the chip and its memory.
      memory: bytes.
      links: bytes per second between the chip and the others.
    """

    flops: float
    bandwidth: float
    memory: float
    links: float


# By what JAX's device_kind begins with, longer names first. Sources: NVIDIA's data sheets (SXM), Google Cloud's pages
# on TPU versions.
CHIPS = {
    "NVIDIA B200": Chip(2250e12, 8e12, 180e9, 1.8e12),
    "NVIDIA H200": Chip(989e12, 4.8e12, 141e9, 0.9e12),
    "NVIDIA H100": Chip(989e12, 3.35e12, 80e9, 0.9e12),
    "NVIDIA A100-SXM4-40GB": Chip(312e12, 1.555e12, 40e9, 0.6e12),
    "NVIDIA A100": Chip(312e12, 2.039e12, 80e9, 0.6e12),
    "NVIDIA L4": Chip(121e12, 0.3e12, 24e9, 0.064e12),
    "TPU v6 lite": Chip(918e12, 1.64e12, 32e9, 0.448e12),
    "TPU v5 lite": Chip(197e12, 0.819e12, 16e9, 0.2e12),
    "TPU v5": Chip(459e12, 2.765e12, 95e9, 0.6e12),  # v5p
    "TPU v4": Chip(275e12, 1.2e12, 32e9, 0.3e12),
}


def chip_of(device_kind: str) -> Chip | None:
    """The chip of that name, or None for one whose peaks are not known here, such as a CPU."""
    return next((chip for name, chip in CHIPS.items() if device_kind.startswith(name)), None)


def utilisation(flops_per_s: float) -> dict[str, float]:
    """{"tflops_per_s"}, and "mfu", its share of the peak of all devices (Chowdhery et al., 2022), if that is known."""
    chip = chip_of(jax.devices()[0].device_kind)
    share = {"mfu": flops_per_s / (chip.flops * jax.device_count())} if chip else {}
    return {"tflops_per_s": flops_per_s / 1e12, **share}


_elsewhere: list[str] = []  # platforms that are not JAX's own, the innermost last


@contextlib.contextmanager
def compiling_for(platform: str):
    """Programs that are lowered meanwhile are for that platform, whatever JAX runs on."""
    _elsewhere.append(platform)
    try:
        yield
    finally:
        _elsewhere.pop()


def target() -> str:
    """The platform that programs are compiled for: cpu, gpu or tpu."""
    return _elsewhere[-1] if _elsewhere else jax.default_backend()
