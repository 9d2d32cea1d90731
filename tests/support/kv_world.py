"""A session of two prompts in turn on a small KV cache, whose hits at every size are known by hand.

A prompt has four blocks of 16 tokens and one token more, its answer is one token; one request runs at a time. So it takes five
blocks, of which four can be found again. With 5 blocks each prompt evicts the other one; with 7 it evicts the last two blocks
of the other one, so that two are found; with 9 or more nothing is evicted.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from session_builder import SECOND, ProcessBuilder, SessionBuilder, at

from profilemate.schema.table import Table
from profilemate.trackers.engine_steps import events as steps
from profilemate.trackers.kv_cache import events as kv
from profilemate.trackers.prefix_lookups import events as lookups
from profilemate.trackers.requests import events as requests

BLOCK, PROMPT, REQUESTS = 16, 65, 60
ASKED = PROMPT * REQUESTS
HITS = {5: 0, 7: (REQUESTS - 2) * 2 * BLOCK, 10: (REQUESTS - 2) * 4 * BLOCK}
"""Tokens found, by usable blocks."""
EVICTIONS = {5: (REQUESTS - 1) * 4, 7: (REQUESTS - 1) * 2, 10: 0}
BOTH = Table(steps.STEPS.name, "", steps.STEPS.fields + kv.STEPS.fields[3:])
"""The row of an engine step with the cells of both trackers."""

CONFIG = {
    "model": "m", "dtype": "torch.bfloat16", "cache_dtype": "auto", "device": "cuda", "block_size": BLOCK,
    "gpu_memory_utilization": 0.9, "max_num_seqs": 4, "max_num_batched_tokens": 512, "enable_prefix_caching": True,
}  # fmt: skip
DEVICE = {
    "device_name": "NVIDIA A100-SXM4-80GB",
    "kv_layers": [{"kind": "attention", "layers": 4, "bytes": 256.0, "window": 0}],
}


def numbers(prompt: int) -> list[str]:
    """Keyed numbers of a prompt's four blocks."""
    return [f"{1000 * prompt + place + 1:016x}" for place in range(4)]


def look_up(place: int, pool: int, **cells: Any) -> dict[str, Any]:
    """The row of a look-up in a cache of so many blocks."""
    hit = 0 if place < 2 else HITS[pool] // (REQUESTS - 2)
    new = 64 if place < 2 else 0
    evicted = 64 - hit - new
    return {
        "time_ns": at(10 + place), "engine": 0, "lookup": place + 1, "request": f"r{place}", "resumed": False,
        "cache_off": "", "prompt_tokens": PROMPT, "blocks": 4, "asked_tokens": PROMPT, "hit_tokens": hit,
        "new_tokens": new, "evicted_tokens": evicted, "short_tokens": 1, "every": 1,
        "median_ns": at(9.5 + place) if evicted else None, **cells,
    }  # fmt: skip


def add_blocks(core: ProcessBuilder) -> None:
    """Every prompt once with its blocks, then by its last one."""
    for place in range(REQUESTS):
        known = numbers(place % 2)
        row = {
            "time_ns": at(10 + place), "engine": 0, "lookup": place + 1, "request": f"r{place}", "blocks": 4,
            "first": 0 if place < 2 else 4, "parent": None if place < 2 else known[-1],
            "numbers": " ".join(known) if place < 2 else "",
        }  # fmt: skip
        core.rows(lookups.BLOCKS, row)


def step(place: int, blocks: int, **cells: Any) -> dict[str, Any]:
    """A tenth of a second for each request, once a second."""
    done = place + 1
    hits = max(0, done - 2) * HITS[blocks] // (REQUESTS - 2)
    return {
        "time_ns": at(10.1 + place), "scheduled_ns": at(10 + place), "engine": 0, "step": done, "step_tokens": 65,
        "schedule_ns": 1000, "no_requests_ns": 9 * SECOND // 10, "usable_blocks": blocks, "total_blocks": blocks,
        "in_use": 0, "step_peak": 5, "peak": 5, "query_requests": done, "query_tokens": done * PROMPT,
        "hit_tokens": hits, "evicted": done * EVICTIONS[blocks] // REQUESTS, "preemptions": 0, "resets": 0,
        "allocated": 5 * done - hits // BLOCK, **cells,
    }  # fmt: skip


def served(place: int, **cells: Any) -> dict[str, Any]:
    """A request's own row."""
    return {
        "time_ns": at(10.1 + place), "engine": 0, "step": place + 1, "request": f"r{place}", "event": "finished",
        "queued_ns": at(9.99 + place), "prompt_tokens": PROMPT, "output_tokens": 1, "priority": 0, "status": "LENGTH_CAPPED",
        **cells,
    }  # fmt: skip


def world(
    folder: Path,
    blocks: int = 5,
    config: dict[str, Any] | None = None,
    worker: dict[str, Any] | None = None,
    **more: Any,
) -> SessionBuilder:
    """The whole session. `more` are cells of every look-up or step; `no_blocks` and `no_lookups` leave rows out."""
    session = SessionBuilder(folder, f"session_{blocks}_{len(list(folder.iterdir()))}")
    core = session.process("EngineCore", engine_config={**CONFIG, "num_gpu_blocks": blocks + 1, **(config or {})})
    add_engine(core, blocks, **more)
    if worker is not None:
        session.process("Worker", engine_config={**CONFIG, **worker})
    return session


def add_engine(
    core: ProcessBuilder, blocks: int, no_blocks: bool = False, no_lookups: bool = False, **cells: Any
) -> None:
    """The rows of one engine; cells of the steps are told from those of look-ups by their names."""
    of_steps = {
        name: cells.pop(name) for name in [*cells] if name in BOTH.columns and name not in lookups.LOOKUPS.columns
    }
    core.rows(BOTH, *(step(place, blocks, **of_steps) for place in range(REQUESTS)))
    core.rows(requests.IN_ENGINE, *(served(place) for place in range(REQUESTS)))
    core.rows(
        kv.EVICTIONS,
        *(
            {"time_ns": at(12 + n), "engine": 0, "block_id": 1, "allocated_ns": at(10), "used_ns": at(9 + n)}
            for n in range(min(3, EVICTIONS[blocks]))
        ),
    )  # fmt: skip
    if not no_lookups:
        core.rows(lookups.LOOKUPS, *(look_up(place, blocks, **cells) for place in range(REQUESTS)))
    if not (no_blocks or no_lookups):
        add_blocks(core)
