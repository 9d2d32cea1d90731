"""Counts of whole sessions, as their own metadata.json has them: exact, also where the size cap removed rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from profilemate.session.records import table_of

PATHS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("requests", "requests", ("requests", "requests")),
    ("prompt_tokens", "prompt tokens", ("requests", "prompt_tokens")),
    ("cached_tokens", "of these from the prefix cache", ("requests", "cached_tokens")),
    ("output_tokens", "output tokens", ("requests", "output_tokens")),
    ("steps", "engine steps", ("engine_steps", "total_samples")),
    ("scheduled_tokens", "tokens scheduled", ("engine_steps", "scheduled_tokens")),
    ("recomputed_tokens", "of these computed again", ("engine_steps", "recomputed_tokens")),
    ("drafted_tokens", "drafted tokens", ("engine_steps", "drafted_tokens")),
    ("accepted_tokens", "of these accepted", ("engine_steps", "accepted_tokens")),
    ("forward_passes", "forward passes", ("cuda_graphs", "forward_passes", "total")),
    ("graphs_captured", "graphs captured", ("cuda_graphs", "graphs_captured")),
    ("capture_seconds", "seconds in captures", ("cuda_graphs", "capture_seconds")),
    ("replays", "passes that replayed a graph", ("cuda_graphs", "replays")),
    ("padding_tokens", "tokens of padding in them", ("cuda_graphs", "padding_tokens")),
    ("kv_blocks", "KV blocks", ("kv_cache", "total_blocks")),
    ("kv_peak_blocks", "KV blocks in use at the peak", ("kv_cache", "peak_blocks")),
    ("evicted_blocks", "evicted blocks", ("kv_cache", "evicted")),
    ("failed_allocations", "allocations that found no room", ("kv_cache", "failed_allocations")),
    ("preemptions", "preemptions", ("requests", "preemptions", "total_preemptions")),
    ("lost_tokens", "tokens lost by them", ("requests", "preemptions", "lost_tokens")),
)
"""Name, words, and where it is in the summary."""


@dataclass(frozen=True)
class Total:
    """A count of a session; None where its tracker did not tell."""

    name: str
    title: str
    value: int | float | None


def totals(metadata: Mapping[str, Any]) -> tuple[Total, ...]:
    """All of PATHS."""
    return tuple(Total(name, title, _at(table_of(metadata.get("summary")), path)) for name, title, path in PATHS)


def _at(summary: dict[str, Any], path: tuple[str, ...]) -> int | float | None:
    *folders, last = path
    for name in folders:
        summary = table_of(summary.get(name))
    value = summary.get(last)
    return value if isinstance(value, (int, float)) else None
