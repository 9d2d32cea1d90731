"""Rows of a small server: two graphs, a few forward passes and engine steps."""

from __future__ import annotations

from typing import Any

from session_builder import ProcessBuilder, SessionBuilder, at

from profilemate.schema.probe_tables import HEALTH
from profilemate.trackers.cuda_graphs import events as graphs
from profilemate.trackers.kv_cache import events as kv

DECODE = {
    "runtime_mode": "FULL",
    "num_tokens": 8,
    "num_reqs": 8,
    "uniform": True,
    "has_lora": False,
    "num_active_loras": 0,
}
MIXED = {"runtime_mode": "PIECEWISE", "num_tokens": 16, "uniform": False, "has_lora": False, "num_active_loras": 0}
IDLE = {**DECODE, "num_tokens": 4, "num_reqs": 4}
EAGER = {"runtime_mode": "NONE", "num_tokens": 100, "uniform": False, "has_lora": False, "num_active_loras": 0}


def capture(seconds: float, graph: dict[str, Any], **cells: Any) -> dict[str, Any]:
    """A row of graph_captures."""
    return {
        "time_ns": at(seconds), "purpose": "serving", "owner": "main", **graph, "duration_ns": 20_000_000, "graphs": 1,
        "memory_bytes": 1024, "site": "CUDAGraphWrapper", **cells,
    }  # fmt: skip


def dispatch(forward: int, graph: dict[str, Any], tokens: int, pieces: int, **cells: Any) -> dict[str, Any]:
    """A row of forward_passes: forward pass N begins N/10 seconds after second 2."""
    return {
        "time_ns": at(2 + forward / 10), "step": forward, "forward": forward, **graph, "unpadded_tokens": tokens,
        "unpadded_reqs": 3, "host_ns": 1_500_000, "graphs": pieces, "clock": "monotonic", "fault": "", **cells,
    }  # fmt: skip


def step(number: int, seconds: float, in_use: int, **cells: Any) -> dict[str, Any]:
    """A row of engine_steps."""
    return {
        "time_ns": at(seconds), "engine": 0, "step": number, "total_blocks": 200, "in_use": in_use, "cached_free": 5,
        "empty": 195 - in_use, "step_peak": in_use, "peak": 50, "peak_time_ns": at(2.5), "allocated": 60, "touched": 10,
        "touched_free": 4, "released": 40, "freed": 30, "evicted": 2, "lifetime_ns": 6_000_000_000,
        "idle_ns": 3_000_000_000, "timed_evictions": 2, "failed_allocations": 1, "preemptions": 1, "resets": 0,
        "query_requests": 4, "query_tokens": 400, "hit_tokens": 100, "preempted_query_tokens": 0,
        "preempted_hit_tokens": 0, "operations": 90, **cells,
    }  # fmt: skip


def add_worker(session: SessionBuilder, role: str = "Worker", **record: Any) -> ProcessBuilder:
    """A worker with three captured graphs, of which one is an estimate, and five forward passes."""
    return (
        session.process(role, **{"engine_config": {"device": "cpu"}, **record})
        .rows(
            graphs.CAPTURES,
            capture(0.5, DECODE, purpose="estimate"),
            capture(1.0, MIXED, graphs=3),
            capture(1.25, DECODE),
            capture(1.5, IDLE),
        )
        .rows(
            graphs.PASSES,
            dispatch(1, EAGER, 100, 0),
            dispatch(2, MIXED, 11, 3),
            dispatch(3, DECODE, 5, 1),
            dispatch(4, DECODE, 8, 1),
            dispatch(5, DECODE, 7, 1),
        )
    )


HOOKS = [
    {"name": "BlockPool.touch", "tracker": "kv_cache", "target": "m:BlockPool.touch", "state": "put_in", "reason": ""},
    {"name": "BlockPool.free", "tracker": "kv_cache", "target": "m:BlockPool.free", "state": "put_in", "reason": ""},
    {"name": "graph.old", "tracker": "cuda_graphs", "target": "m:old", "state": "does_not_fit", "reason": "has no x"},
]


def add_engine(session: SessionBuilder, role: str = "EngineCore", **record: Any) -> ProcessBuilder:
    """An engine core with two steps, two usage rows and two evictions."""
    config = {"num_gpu_blocks": 201, "device": "cpu", "model": 'a"b'}
    return (
        session.process(role, **{"engine_config": config, "hooks": HOOKS, **record})
        .rows(kv.STEPS, step(1, 2.4, 40, peak=40, evicted=0), step(2, 3.0, 20))
        .rows(
            kv.USAGE,
            {"time_ns": at(2.2), "engine": 0, "kind": "interval", "in_use": 30, "total_blocks": 200},
            {"time_ns": at(2.3), "engine": 0, "kind": "peak", "in_use": 40, "total_blocks": 200},
            {"time_ns": at(2.8), "engine": 0, "kind": "interval", "in_use": 25, "total_blocks": 200},
            {"time_ns": at(2.5), "engine": 0, "kind": "peak", "in_use": 50, "total_blocks": 200},
        )
        .rows(
            kv.EVICTIONS,
            {"time_ns": at(2.6), "engine": 0, "block_id": 7, "allocated_ns": at(-1.4), "used_ns": at(0.6),
             "cause": "allocation"},
            {"time_ns": at(2.7), "engine": 0, "block_id": 8, "cause": "invalidation"},
        )
        .rows(HEALTH, {"time_ns": at(2.9), "hook": "BlockPool.touch", "state": "put_in", "calls": 12, "failures": 0})
    )  # fmt: skip


def add_server(session: SessionBuilder) -> SessionBuilder:
    """Front end, engine core and worker."""
    session.process("APIServer", engine_index=None)
    add_engine(session)
    add_worker(session)
    return session
