"""A window of serving steps under the torch profiler: the truth that ProfileMate's rows are held against."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Protocol


class Window(Protocol):
    """What records a window into a file in the format of a torch profiler trace."""

    def start(self) -> None:
        """From here on."""

    def stop(self, path: Path) -> None:
        """Until here; writes the trace."""


class TorchWindow:
    """The torch profiler over host and device. One per process: a second profiler session can come out empty."""

    def __init__(self) -> None:
        """Nothing is started, and CUPTI is not loaded, before `start`."""
        self._profiler: Any = None

    def start(self) -> None:
        """Begin with an idle device, so that every kernel in the trace has its launch in it."""
        import torch
        from torch.profiler import ProfilerActivity, profile

        activities = [ProfilerActivity.CPU]
        if torch.cuda.is_available():
            activities.append(ProfilerActivity.CUDA)
            torch.cuda.synchronize()
        self._profiler = profile(activities=activities)
        self._profiler.start()

    def stop(self, path: Path) -> None:
        """End when the device has done everything that was launched."""
        import torch

        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self._profiler.stop()
        self._profiler.export_chrome_trace(str(path))


def bounds(window: Window, path: Path, run: Any) -> tuple[Any, tuple[int, int]]:
    """Run a function inside a window; returns its result and the monotonic nanoseconds between which it ran."""
    window.start()
    began = time.monotonic_ns()
    try:
        result = run()
    finally:
        ended = time.monotonic_ns()
        window.stop(path)
    return result, (began, ended)
