"""The README's CSV files: header and rows of each, the columns that users know first and in their order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from profilemate.export import cells, timeline
from profilemate.export.analysis import Analysis
from profilemate.export.cells import number, seconds, word
from profilemate.trackers.cuda_graphs.analyze import Capture, GraphUsage
from profilemate.trackers.kv_cache import analyze as kv_cache

Cells = tuple[str, ...]
UNKNOWN_TIME = "nan"
"""Of an eviction without a known birth: an empty cell would count as "less than 10" in awk."""


@dataclass(frozen=True)
class CsvFile:
    """One file. `rows` also counts what it wants to say about them."""

    name: str
    tracker: str
    header: Cells
    rows: Callable[[Analysis, Counter[str]], Iterator[Cells]]


def _captures(analysis: Analysis, counted: Counter[str]) -> Iterator[Cells]:
    for capture in analysis.graphs.captures:
        if capture.owner == "main":
            yield (
                *cells.descriptor_cells(capture.descriptor), seconds(capture.time_ns), seconds(capture.duration_ns),
                number(capture.graphs), number(capture.memory_bytes), word(capture.purpose), word(capture.site),
                *cells.further_cells(capture.descriptor), str(capture.engine),
            )  # fmt: skip


def _usage(analysis: Analysis, counted: Counter[str]) -> Iterator[Cells]:
    for usage in analysis.graphs.usages:
        yield (
            *cells.descriptor_cells(usage.descriptor), str(usage.replays), str(usage.pieces), str(usage.captures),
            str(usage.unpadded_tokens), str(usage.padded_tokens), seconds(usage.host_ns),
            *cells.further_cells(usage.descriptor),
        )  # fmt: skip


def _timeline(analysis: Analysis, counted: Counter[str]) -> Iterator[Cells]:
    return timeline.rows(analysis.session, counted)


def _other(analysis: Analysis, counted: Counter[str]) -> Iterator[Cells]:
    for usage in analysis.graphs.others:
        captures = [capture for capture in analysis.graphs.captures if _is_of(capture, usage)]
        yield (
            *cells.descriptor_cells(usage.descriptor), str(usage.replays), word(usage.owner), str(usage.pieces),
            str(usage.captures), seconds(captures[0].time_ns if captures else None),
            seconds(sum(capture.duration_ns or 0 for capture in captures)) if captures else "", seconds(usage.host_ns),
            *cells.further_cells(usage.descriptor),
        )  # fmt: skip


def _is_of(capture: Capture, usage: GraphUsage) -> bool:
    return capture.owner == usage.owner and capture.descriptor == usage.descriptor


def _kv_usage(analysis: Analysis, counted: Counter[str]) -> Iterator[Cells]:
    for point in kv_cache.usage_points(analysis.session, analysis.spans):
        yield (
            seconds(point.time_ns), cells.percent(point.in_use, point.total_blocks), str(point.in_use),
            str(point.total_blocks), word(point.kind), str(point.engine),
        )  # fmt: skip


def _kv_evictions(analysis: Analysis, counted: Counter[str]) -> Iterator[Cells]:
    for eviction in kv_cache.evictions(analysis.session, analysis.spans):
        yield (
            seconds(eviction.time_ns), seconds(eviction.lifetime_ns) or UNKNOWN_TIME,
            seconds(eviction.idle_ns) or UNKNOWN_TIME, number(eviction.block_id), word(eviction.cause),
            str(eviction.engine),
        )  # fmt: skip


GRAPHS, KV = "cuda_graphs", "kv_cache"

CSV_FILES = (
    CsvFile(
        "cuda_graph_captures.csv", GRAPHS,
        (*cells.DESCRIPTOR_HEADER, "capture_time_sec", "duration_sec", "graphs", "memory_bytes", "purpose", "site",
         *cells.FURTHER_HEADER, "engine"),
        _captures,
    ),
    CsvFile(
        "cuda_graph_usage.csv", GRAPHS,
        (*cells.DESCRIPTOR_HEADER, "replay_count", "pieces", "captures", "unpadded_tokens", "padded_tokens", "host_sec",
         *cells.FURTHER_HEADER),
        _usage,
    ),
    CsvFile("cuda_graph_timeline.csv", GRAPHS, timeline.HEADER, _timeline),
    CsvFile(
        "cuda_graph_other.csv", GRAPHS,
        (*cells.DESCRIPTOR_HEADER, "replay_count", "owner", "pieces", "captures", "capture_time_sec", "duration_sec",
         "host_sec", *cells.FURTHER_HEADER),
        _other,
    ),
    CsvFile(
        "kv_cache_usage.csv", KV,
        ("timestamp_sec", "usage_pct", "num_blocks", "total_blocks", "kind", "engine"),
        _kv_usage,
    ),
    CsvFile(
        "kv_cache_evictions.csv", KV,
        ("timestamp_sec", "lifetime_sec", "idle_sec", "block_id", "cause", "engine"),
        _kv_evictions,
    ),
)  # fmt: skip
