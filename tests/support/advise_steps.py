"""Engine steps written by hand for the advice: times that add up, one engine after another."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from session_builder import ProcessBuilder, SessionBuilder, at

from profilemate.schema.table import Table
from profilemate.trackers.engine_steps import events as step_events
from profilemate.trackers.kv_cache import events as kv_events
from profilemate.trackers.requests import events as request_events

BOTH = Table(
    "engine_steps", "", tuple({f.name: f for t in (step_events.STEPS, kv_events.STEPS) for f in t.fields}.values())
)
"""The file with the cells of both trackers."""

MS = 1_000_000
CONFIG = {
    "max_model_len": 4096, "block_size": 16, "num_gpu_blocks": 1001, "max_num_seqs": 64, "max_num_batched_tokens": 2048,
    "async_scheduling": True, "cudagraph_capture_sizes": [1, 2, 4, 8],
}  # fmt: skip


def plain_step(period_ms: float = 10, **cells: Any) -> dict[str, Any]:
    """A decode step of 4 requests; a fifth of its time is Python. `time_ns` and `step` come later."""
    ns = round(period_ms * MS)
    tenth = ns // 10
    return {
        "schedule_ns": tenth, "update_ns": tenth // 2, "between_ns": tenth - tenth // 2, "no_requests_ns": 0,
        "blocked_ns": ns - 2 * tenth, "model_ns": ns - 2 * tenth, "running": 4, "waiting": 0, "skipped": 0,
        "step_requests": 4, "step_tokens": 4, "context_requests": 0, "context_tokens": 0, "recomputed_tokens": 0,
        "step_preempted": 0, "limit": "no_work", "free_blocks": 900, "max_requests": 64, "max_step_tokens": 2048,
        "usable_blocks": 1000, "step_finished": 0, "drafted_tokens": 0, "accepted_tokens": 0, "in_flight": 0,
        "total_blocks": 1000, "in_use": 100, "cached_free": 50, "empty": 850, "step_peak": 100, "preemptions": 0,
        "failed_allocations": 0, "evicted": 0, "allocated": 0, "scheduled_tokens": 0, **cells,
    }  # fmt: skip


def placed(steps: Iterable[dict[str, Any]], begin: float = 10.0, engine: int = 0) -> list[dict[str, Any]]:
    """With numbers and times: each ends as long after the one before as its five times say."""
    now, rows = at(begin), []
    for number, step in enumerate(steps, 1):
        now += sum(step[name] for name in ("schedule_ns", "update_ns", "between_ns", "no_requests_ns", "blocked_ns"))
        rows.append({"time_ns": now, "engine": engine, "step": number, **step})
    return rows


def add_steps(
    session: SessionBuilder, steps: Iterable[dict[str, Any]], table: Table = BOTH, **config: Any
) -> ProcessBuilder:
    """An engine core that made these steps."""
    core = session.process("EngineCore", engine_config={**CONFIG, **config})
    rows = [{name: cell for name, cell in row.items() if name in table.columns} for row in placed(steps)]
    return core.rows(table, *rows)


def add_requests(session: SessionBuilder, lengths: Iterable[tuple[int, int, str]]) -> ProcessBuilder:
    """A front end that was done with requests of these prompt and output tokens and reasons, one a second."""
    front = session.process("APIServer", engine_index=None)
    return front.rows(
        request_events.ENDS,
        *(
            {"time_ns": at(20 + n), "request": f"r{n}", "reason": reason, "is_counted": True, "end_ns": at(20 + n),
             "e2e_ns": 2_000_000_000, "prompt_tokens": prompt, "cached_tokens": 0, "output_tokens": output}
            for n, (prompt, output, reason) in enumerate(lengths)
        ),
    )  # fmt: skip
