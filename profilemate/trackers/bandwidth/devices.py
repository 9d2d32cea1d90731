"""Peak figures of known accelerators, dense (without structured sparsity), as their makers publish them.

The table is short on purpose: a name that is not in it, or a part of a device (MIG, vGPU), has no peak here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from profilemate.session.records import number, text
from profilemate.trackers.bandwidth import sizes

MEASURED = "measured copy"


class Device(NamedTuple):
    """`words` must all be in the name. Gigabytes per second; TFLOP/s with 16-bit and 8-bit floating-point inputs (0: none)."""

    words: tuple[str, ...]
    memory_gb: float
    tflops_16: float
    tflops_8: float
    source: str


DEVICES = (
    Device(
        ("H100", "PCIE"), 2000, 756, 1513, "NVIDIA H100 data sheet, PCIe column; its TFLOPS are with sparsity, halved"
    ),
    Device(
        ("H100", "NVL"), 3900, 835, 1671, "NVIDIA H100 data sheet, NVL column; its TFLOPS are with sparsity, halved"
    ),
    Device(
        ("H100", "HBM3"), 3350, 989, 1979, "NVIDIA H100 data sheet, SXM column; its TFLOPS are with sparsity, halved"
    ),
    Device(
        ("H200", "NVL"), 4800, 835, 1671, "NVIDIA H200 data sheet, NVL column; its TFLOPS are with sparsity, halved"
    ),
    Device(("H200",), 4800, 989, 1979, "NVIDIA H200 data sheet, SXM column; its TFLOPS are with sparsity, halved"),
    Device(("A100", "40GB"), 1555, 312, 0, "NVIDIA A100 data sheet, 40GB"),
    Device(("A100", "80GB", "PCIE"), 1935, 312, 0, "NVIDIA A100 data sheet, 80GB PCIe"),
    Device(("A100", "80GB"), 2039, 312, 0, "NVIDIA A100 data sheet, 80GB SXM"),
    Device(("L40S",), 864, 362, 733, "NVIDIA L40S data sheet"),
    Device(("L40",), 864, 181, 362, "NVIDIA L40 data sheet"),
    Device(("L4",), 300, 121, 242, "NVIDIA L4 data sheet; its TFLOPS are with sparsity, halved"),
    Device(("B200",), 8000, 2250, 4500, "NVIDIA Blackwell architecture technical brief, HGX B200"),
    Device(("MI300X",), 5300, 1307, 2615, "AMD Instinct MI300X data sheet"),
    Device(("MI325X",), 6000, 1307, 2615, "AMD Instinct MI325X data sheet"),
)

PARTS_OF_A_DEVICE = {"MIG", "GRID", "VGPU"}
EIGHT_BIT_INPUTS = {"fp8", "fbgemm_fp8", "ptpc_fp8", "modelopt"}
"""Quantisation methods whose matrix products take 8-bit floating-point inputs; the weight-only ones compute in 16 bits."""


@dataclass(frozen=True)
class Peak:
    """Of one worker's device; None where it is not known."""

    device: str
    gb_per_second: float | None
    tflops: float | None
    source: str


def device_of(name: str) -> Device | None:
    """The first entry whose words are all in the name."""
    for mark in "_-/":
        name = name.replace(mark, " ")
    words = set(name.upper().split())
    if words & PARTS_OF_A_DEVICE:
        return None
    return next((device for device in DEVICES if set(device.words) <= words), None)


def peak_of(facts: Mapping[str, Any], dimensions: Mapping[str, Any]) -> Peak:
    """From a worker's device name; where a copy was measured, that is the bandwidth."""
    name = text(facts.get("device_name"))
    device = device_of(name)
    copied = number(facts.get("copied_bytes_per_second"))
    gb_per_second = copied / 1e9 if copied else device.memory_gb if device else None
    sources = [*([MEASURED] if copied else []), *([device.source] if device else [])]
    return Peak(name, gb_per_second, _tflops(device, dimensions), "; ".join(sources) or "unknown device")


def _tflops(device: Device | None, dimensions: Mapping[str, Any]) -> float | None:
    """The peak for the type in which matrices are multiplied; float32 has none here."""
    if device is None or sizes.activation_bytes(dimensions) > 2:
        return None
    takes_8_bits = text(dimensions.get("quantization")) in EIGHT_BIT_INPUTS and device.tflops_8
    return device.tflops_8 if takes_8_bits else device.tflops_16
