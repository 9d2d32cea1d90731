"""Captures: times from torch.cuda.CUDAGraph itself, names from the vLLM class that captured."""

from __future__ import annotations

import sys
import time
from typing import Any, NamedTuple

from profilemate.probe import phase
from profilemate.probe.process import THIS
from profilemate.trackers.cuda_graphs import events
from profilemate.trackers.forward_passes.descriptor import Descriptor
from profilemate.trackers.forward_passes.recorder import FORWARD

CAPTURES = THIS.writer.stream(events.CAPTURES, detail=False)


class CapturedGraph(NamedTuple):
    """One torch.cuda.CUDAGraph: when its capture began, how long it took, device bytes it took (None: unknown)."""

    began_ns: int
    duration_ns: int
    memory_bytes: int | None


class Key(NamedTuple):
    """What a row of graph_captures is about."""

    purpose: str
    owner: str
    descriptor: Descriptor
    site: str


class CaptureLog:
    """Collects graphs as torch captures them, and gives them to the descriptor that a vLLM class then claims them for."""

    def __init__(self) -> None:
        """No capture yet."""
        self.forget()

    def forget(self) -> None:
        """For a forked child."""
        self._began_ns = 0
        self._free_before: int | None = None
        self.unclaimed: list[CapturedGraph] = []
        self.key: Key | None = None
        self._graphs: list[CapturedGraph] = []
        self._count = 0

    def begin(self) -> None:
        """`CUDAGraph.capture_begin` is about to run: the stream does not capture yet, so the device may be asked."""
        self._free_before = free_device_bytes()
        self._began_ns = time.monotonic_ns()

    def end(self, result: Any) -> None:
        """`CUDAGraph.capture_end` has run."""
        duration = time.monotonic_ns() - self._began_ns
        free_after = free_device_bytes() if self._free_before is not None else None
        taken = None if free_after is None or self._free_before is None else max(0, self._free_before - free_after)
        self.unclaimed.append(CapturedGraph(self._began_ns, duration, taken))

    def claim(self, owner: str, descriptor: Descriptor, count: int, site: str, newest: bool = True) -> None:
        """`count` graphs were captured for a descriptor: the newest unclaimed ones, or the oldest."""
        key = Key(_purpose(), owner, descriptor, site)
        if key != self.key:
            self.emit()
            self.key = key
            FORWARD.more = True
        cut = max(0, len(self.unclaimed) - count) if newest else min(count, len(self.unclaimed))
        older, newer = self.unclaimed[:cut], self.unclaimed[cut:]
        self.unclaimed, graphs = (older, newer) if newest else (newer, older)
        self._graphs += graphs
        self._count += count

    def emit(self) -> None:
        """Queue the row of the last descriptor: all its pieces are there when another one begins or the phase ends."""
        if self.key is None:
            return
        purpose, owner, descriptor, site = self.key
        graphs = self._graphs
        timed = len(graphs) == self._count
        memory = [graph.memory_bytes for graph in graphs if graph.memory_bytes is not None]
        FORWARD.more = True
        CAPTURES.add(
            (
                graphs[0].began_ns if graphs else time.monotonic_ns(),
                purpose,
                owner,
                *descriptor,
                sum(graph.duration_ns for graph in graphs) if timed else None,
                self._count,
                sum(memory) if timed and len(memory) == len(graphs) else None,
                site,
            )
        )
        self.key, self._graphs, self._count = None, [], 0


def _purpose() -> str:
    now = phase.current()
    if now == "estimate":
        return "estimate"
    return "lazy" if now == phase.SERVING and FORWARD.step else "serving"  # no step yet: the model is being loaded


def free_device_bytes() -> int | None:
    """Free memory of the current CUDA device; None where there is none."""
    cuda = getattr(sys.modules.get("torch"), "cuda", None)
    if cuda is None or not cuda.is_available():
        return None
    return int(cuda.mem_get_info()[0])


LOG = CaptureLog()
