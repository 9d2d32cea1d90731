"""A measured copy in the device's memory, once after the model was loaded and only if the user asked for it."""

from __future__ import annotations

import sys
import time
from typing import Any

COPIED_BYTES = 1 << 28
TRIES = 5
READ_AND_WRITTEN = 2


def measure(device: Any) -> int:
    """Bytes read and written per second by the fastest of a few copies of 256 MiB. Waits for the device."""
    torch = sys.modules["torch"]
    source = torch.zeros(COPIED_BYTES, dtype=torch.uint8, device=device)
    target = torch.zeros_like(source)
    is_cuda = getattr(device, "type", "cpu") == "cuda"
    best = min(copy_seconds(torch, source, target, is_cuda) for _ in range(TRIES))
    del source, target
    if is_cuda:
        torch.cuda.empty_cache()
    return round(READ_AND_WRITTEN * COPIED_BYTES / best)


def copy_seconds(torch: Any, source: Any, target: Any, is_cuda: bool) -> float:
    """One copy, from an idle device to an idle device."""
    if is_cuda:
        torch.cuda.synchronize()
    began = time.perf_counter()
    target.copy_(source)
    if is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - began
