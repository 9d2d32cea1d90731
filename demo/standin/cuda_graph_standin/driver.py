"""The stand-in for PyTorch's CUDA-graph driver: it keeps the life cycle of graphs and computes nothing."""

from __future__ import annotations

import functools
import itertools
import os
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

import torch

PoolHandle = tuple[int, int]

_graph_ids = itertools.count()
_pool_ids = itertools.count(1)
_capture = threading.local()


class EventLog:
    """An append-only text file with one line per graph event; processes may share it, by fork or by name."""

    def __init__(self, path: str) -> None:
        """Open the file, which is made where it does not exist."""
        self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    def write(self, event: str, graph_id: int) -> None:
        """Append "<pid> <event> <graph id> <monotonic ns>" by one write, so that lines of processes never mix."""
        line = f"{os.getpid()} {event} {graph_id} {time.monotonic_ns()}\n"
        os.write(self._descriptor, line.encode())


def _ignore(event: str, graph_id: int) -> None:
    """In the place of `write` where no file was asked for."""


class ChosenLog:
    """The file that STANDIN_GRAPHS_LOG names at the first event; a process may be forked before that is known."""

    def __init__(self) -> None:
        """Nothing is opened yet."""
        self.write: Callable[[str, int], None] = self._write_first

    def _write_first(self, event: str, graph_id: int) -> None:
        path = os.environ.get("STANDIN_GRAPHS_LOG")
        self.write = EventLog(path).write if path else _ignore
        self.write(event, graph_id)


_log = ChosenLog()


def _new_pool() -> PoolHandle:
    return (0, next(_pool_ids))


def is_capturing() -> bool:
    """Whether this thread is between capture_begin and capture_end of a graph."""
    return getattr(_capture, "graph", None) is not None


class CUDAGraph:
    """Stands in for torch.cuda.CUDAGraph: the same methods, checks of their order, and no computation."""

    def __init__(self, keep_graph: bool = False) -> None:
        """Make a graph with nothing captured."""
        self.graph_id = next(_graph_ids)
        self.captured = False
        self._keep_graph = keep_graph
        self._pool: PoolHandle | None = None
        _log.write("new", self.graph_id)

    def capture_begin(
        self, pool: PoolHandle | None = None, capture_error_mode: str = "global", check_input_liveness: bool = False
    ) -> None:
        """Begin a capture on this thread; a second one inside it is an error, as it is for CUDA."""
        if is_capturing():
            raise RuntimeError("a CUDA graph is already being captured on this thread")
        _capture.graph = self
        self._pool = pool if pool is not None else _new_pool()
        _log.write("begin", self.graph_id)

    def capture_end(self) -> None:
        """End the capture that capture_begin began."""
        if getattr(_capture, "graph", None) is not self:
            raise RuntimeError("capture_end without capture_begin of this CUDA graph")
        _capture.graph = None
        self.captured = True
        _log.write("end", self.graph_id)

    def instantiate(self) -> None:
        """Nothing: there is no executable graph to make."""

    def replay(self) -> None:
        """Log a replay; the buffers keep what the last capture left in them."""
        if not self.captured:
            raise RuntimeError("replay of a CUDA graph that was not captured")
        _log.write("replay", self.graph_id)

    def reset(self) -> None:
        """Forget the captured graph."""
        self.captured = False
        _log.write("reset", self.graph_id)

    def pool(self) -> PoolHandle:
        """The handle of the memory pool that the capture used."""
        if self._pool is None:
            raise RuntimeError("pool() of a CUDA graph before capture_begin")
        return self._pool


class GraphCapture:
    """Stands in for torch.cuda.graph: captures the block into the given graph."""

    def __init__(
        self,
        cuda_graph: CUDAGraph,
        pool: PoolHandle | None = None,
        stream: Any = None,
        capture_error_mode: str = "global",
        **options: Any,
    ) -> None:
        """Remember what to capture into; a stream or other options make no difference."""
        self.cuda_graph = cuda_graph
        self.pool = pool
        self.capture_error_mode = capture_error_mode

    def __enter__(self) -> None:
        """Begin the capture, through the class as PyTorch does, so that a patched method is seen."""
        self.cuda_graph.capture_begin(self.pool, capture_error_mode=self.capture_error_mode)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the capture; an error in the block goes on."""
        self.cuda_graph.capture_end()


@functools.cache
def install() -> None:
    """Put the stand-ins where PyTorch's driver is looked up, once: what a profiler then puts around them stays."""
    stand_ins = {
        "CUDAGraph": CUDAGraph,
        "graph": GraphCapture,
        "graph_pool_handle": _new_pool,
        "is_current_stream_capturing": is_capturing,
    }
    for module in (torch.cuda, torch.cuda.graphs):
        for name, stand_in in stand_ins.items():
            setattr(module, name, stand_in)
