"""The README's files about the KV cache, and what else the reading half shows of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

from profilemate.export.cells import number, percent, seconds, word
from profilemate.session.session import Session
from profilemate.trackers.kv_cache.analyze import KvSummary, analyze, evictions, usage_points
from profilemate.trackers.kv_cache.events import STEPS
from profilemate.trackers.kv_cache.summary import kv_lines, kv_record, kv_summary
from profilemate.trackers.view import Cells, CsvFile, TextFile, View

UNKNOWN_TIME = "nan"
"""Of an eviction without a known birth: an empty cell would count as "less than 10" in awk."""


def _kv_usage(session: Session, kv: KvSummary, counted: Counter[str]) -> Iterator[Cells]:
    for point in usage_points(session, kv.spans):
        yield (
            seconds(point.time_ns), percent(point.in_use, point.total_blocks), str(point.in_use),
            str(point.total_blocks), word(point.kind), str(point.engine),
        )  # fmt: skip


def _kv_evictions(session: Session, kv: KvSummary, counted: Counter[str]) -> Iterator[Cells]:
    for eviction in evictions(session, kv.spans):
        yield (
            seconds(eviction.time_ns), seconds(eviction.lifetime_ns) or UNKNOWN_TIME,
            seconds(eviction.idle_ns) or UNKNOWN_TIME, number(eviction.block_id), word(eviction.cause),
            str(eviction.engine),
        )  # fmt: skip


def _no_caching(config: Mapping[str, object]) -> str:
    return "prefix caching is off" if config.get("enable_prefix_caching") is False else ""


def _notes(kv: KvSummary, counted: Counter[str]) -> list[str]:
    notes = [
        f"{span.process.role}: no whole row of {STEPS.name}, so its totals are unknown"
        for span in kv.spans
        if span.table != STEPS.name
    ]
    if not kv.peak_is_exact:
        notes.append("several engines: KV usage and its peak are the sum of each engine's last known state")
    return notes


CSV_FILES = (
    CsvFile(
        "kv_cache_usage.csv",
        ("timestamp_sec", "usage_pct", "num_blocks", "total_blocks", "kind", "engine"),
        _kv_usage,
        "no engine step was recorded",
        is_per_event=True,
    ),
    CsvFile(
        "kv_cache_evictions.csv",
        ("timestamp_sec", "lifetime_sec", "idle_sec", "block_id", "cause", "engine"),
        _kv_evictions,
        "no cached block was evicted", _no_caching, is_per_event=True,
    ),
)  # fmt: skip

VIEW = View(
    "KV cache", analyze, CSV_FILES, kv_record, kv_lines, num_short_lines=4,
    text_files=(TextFile("kv_cache_summary.txt", kv_summary),), notes=_notes,
)  # fmt: skip
