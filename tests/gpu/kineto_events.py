"""Events as kineto writes them for a GPU: hand-made, in the layout of torch 2.11 to 2.13 on CUDA 12 and 13."""

from __future__ import annotations

from typing import Any

Event = dict[str, Any]
PROCESS, THREAD, DEVICE, STREAM = 4242, 4242, 0, 7


def runtime(name: str, ts: Any, correlation: Any = None, dur: Any = 12.5, cat: str = "cuda_runtime") -> Event:
    """A call of the CUDA runtime (or, by `cat`, of the driver)."""
    args = {"cbid": 311} | ({} if correlation is None else {"correlation": correlation})
    return {"ph": "X", "cat": cat, "name": name, "pid": PROCESS, "tid": THREAD, "ts": ts, "dur": dur, "args": args}


def launch(ts: Any, correlation: Any, **more: Any) -> Event:
    """One graph launch."""
    return runtime("cudaGraphLaunch", ts, correlation, **more)


def kernel(ts: Any, dur: Any, correlation: Any = None, cat: str = "kernel") -> Event:
    """A kernel that belongs to a graph launch."""
    args = {
        "External id": 17, "device": DEVICE, "context": 1, "stream": STREAM, "queued": 0, "registers per thread": 168,
        "shared memory": 0, "blocks per SM": 1.9393939, "warps per SM": 15.515152, "grid": [256, 1, 1],
        "block": [256, 1, 1], "est. achieved occupancy %": 24, "graph id": 5, "graph node id": 21474836485,
    }  # fmt: skip
    if correlation is not None:
        args["correlation"] = correlation
    return {
        "ph": "X", "cat": cat, "name": "void gemm<bf16>", "pid": DEVICE, "tid": STREAM, "ts": ts, "dur": dur,
        "args": args,
    }  # fmt: skip


def noise(ts: float) -> list[Event]:
    """What else is in such a trace and means nothing here, some of it under names that would."""
    at = {"pid": PROCESS, "tid": THREAD, "ts": ts}
    return [
        {"ph": "M", "name": "process_name", **at, "args": {"name": "python"}},
        {"ph": "X", "cat": "cpu_op", "name": "aten::mm", **at, "dur": 3.0, "args": {"External id": 9}},
        {"ph": "X", "cat": "user_annotation", "name": "cudaGraphLaunch", **at, "dur": 3.0},
        {"ph": "X", "cat": "gpu_user_annotation", "name": "forward", **at, "dur": 9e6, "args": {"correlation": 1}},
        {"ph": "s", "cat": "ac2g", "name": "ac2g", "id": 1, **at},
        {"ph": "f", "cat": "ac2g", "name": "ac2g", "id": 1, "bp": "e", **at},
        {"ph": "X", "cat": "cuda_sync", "name": "Stream Sync", **at, "dur": 1.0, "args": {"correlation": 3}},
        {"ph": "X", "cat": "Trace", "name": "PyTorch Profiler (0)", "pid": "Traces", "tid": "x", "ts": ts, "dur": 1e6},
        {"ph": "i", "name": "Record Window End", "s": "g", "pid": "", "tid": "", "ts": ts},
    ]
