"""Sessions with chosen graphs and chosen batches, for tests of the advice about graphs."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import sample_rows
from session_builder import ProcessBuilder, SessionBuilder

import profilemate
from profilemate.frames.session import Session
from profilemate.schema.table import Table
from profilemate.trackers.cuda_graphs import events as graphs
from profilemate.trackers.forward_passes import events as forwards

PASSES = Table(
    "forward_passes",
    "",
    tuple({field.name: field for t in (graphs.PASSES, forwards.PASSES) for field in t.fields}.values()),
)
"""The row of a pass with the columns of both trackers."""


class Pass(NamedTuple):
    """A forward pass as the rows have it."""

    mode: str
    padded: int
    tokens: int
    requests: int
    phase: str = "decode"
    uniform: bool = False
    device_ns: int = 0


def full(padded: int, tokens: int, query_len: int = 1, **cells: Any) -> Pass:
    """A pass in a decode graph."""
    return Pass("FULL", padded, tokens, tokens // query_len, uniform=True, **cells)


def piecewise(padded: int, tokens: int, requests: int = 2, phase: str = "mixed", **cells: Any) -> Pass:
    """A pass in a PIECEWISE graph."""
    return Pass("PIECEWISE", padded, tokens, requests, phase, **cells)


def eager(tokens: int, requests: int = 2, phase: str = "mixed", **cells: Any) -> Pass:
    """A pass without a graph."""
    return Pass("NONE", tokens, tokens, requests, phase, **cells)


def config(sizes: list[int], **more: Any) -> dict[str, Any]:
    """What process.json has of vLLM's configuration."""
    return {
        "device": "cuda", "cudagraph_mode": "FULL_AND_PIECEWISE", "cudagraph_capture_sizes": sizes, "max_num_seqs": 8,
        "max_num_batched_tokens": 256, "data_parallel_size": 1, **more,
    }  # fmt: skip


def decode_graph(size: int, query_len: int = 1, **cells: Any) -> dict[str, Any]:
    """A captured decode graph: 10 ms and 1 MiB per token."""
    return _capture(size, "FULL", num_reqs=size // query_len, uniform=True, **cells)


def mixed_graph(size: int, **cells: Any) -> dict[str, Any]:
    """A captured PIECEWISE graph: 10 ms and 1 MiB per token."""
    return _capture(size, "PIECEWISE", uniform=False, **cells)


def _capture(size: int, mode: str, **cells: Any) -> dict[str, Any]:
    graph = {"runtime_mode": mode, "num_tokens": size, "has_lora": False, "num_active_loras": 0}
    prices = {"duration_ns": size * 10_000_000, "memory_bytes": size << 20}
    return sample_rows.capture(1.0, graph, **{**prices, **cells})


def captures(decode: list[int], mixed: list[int], query_len: int = 1) -> list[dict[str, Any]]:
    """Rows of a V1 runner's captures."""
    return [mixed_graph(size) for size in mixed] + [decode_graph(size, query_len) for size in decode]


def add_worker(
    session: SessionBuilder, settings: dict[str, Any], rows: list[dict[str, Any]], passes: list[Pass], **record: Any
) -> ProcessBuilder:
    """One worker with these captures and passes, in their order."""
    worker = session.process("Worker", engine_config=settings, **record).rows(graphs.CAPTURES, *rows)
    worker.rows(PASSES, *(_row(number, one) for number, one in enumerate(passes, 1)))
    times = [{"forward": n, "device_ns": one.device_ns} for n, one in enumerate(passes, 1) if one.device_ns]
    return worker.rows(forwards.LATENCIES, *times) if times else worker


def _row(number: int, one: Pass) -> dict[str, Any]:
    graph = {
        "runtime_mode": one.mode, "num_tokens": one.padded, "uniform": one.uniform, "has_lora": False,
        "num_reqs": one.padded if one.uniform else None, "num_active_loras": 0,
    }  # fmt: skip
    cells = {"unpadded_reqs": one.requests, "requests": one.requests, "phase": one.phase}
    return {**sample_rows.dispatch(number, graph, one.tokens, int(one.mode != "NONE"), **cells), "tokens": one.tokens}


def session_of(
    folder: Path, settings: dict[str, Any], rows: list[dict[str, Any]], passes: list[Pass], name: str = "session_1"
) -> Session:
    """A session of one worker."""
    builder = SessionBuilder(folder, name)
    add_worker(builder, settings, rows, passes)
    return profilemate.open(builder.path)
