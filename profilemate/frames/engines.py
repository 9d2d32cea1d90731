"""The schedulers of a session, found by reading two columns of their rows block by block."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from profilemate.frames.scan import process_frames
from profilemate.frames.shape import Shape
from profilemate.schema.step_table import BASE
from profilemate.session.records import ProcessInfo
from profilemate.session.session import Session
from profilemate.session.views import EngineSpan, number_spans
from profilemate.trackers.kv_cache import events as kv
from profilemate.trackers.prefix_lookups import events as lookups
from profilemate.trackers.requests import events as requests

TABLES = (BASE, kv.USAGE, kv.EVICTIONS, lookups.LOOKUPS, requests.IN_ENGINE)
"""Streams of a scheduler's rows; of each process the first one that has rows tells."""


def engine_spans(session: Session) -> tuple[EngineSpan, ...]:
    """What `session.views.engine_spans` gives, without the last rows, and fast over millions of rows."""
    return number_spans(span for process in session.processes for span in _of_process(session, process))


def _of_process(session: Session, process: ProcessInfo) -> list[EngineSpan]:
    for table in TABLES:
        ends = _ends(session, process, Shape((table,)))
        if ends:
            return [
                EngineSpan(process, local, 0, process.at(first), process.at(last), table.name, ())
                for local, (first, last) in sorted(ends.items())
            ]
    return []


def _ends(session: Session, process: ProcessInfo, shape: Shape) -> dict[int, tuple[int, int]]:
    """Time of the first and of the last row of each scheduler."""
    import polars

    time = polars.col("time_ns")
    ends: dict[int, tuple[int, int]] = {}
    for frame in process_frames(session, process, shape, ("time_ns", "engine")):
        by_engine = frame.group_by("engine").agg(first=time.first(), last=time.last())
        for local, first, last in by_engine.iter_rows():
            ends[local] = (ends[local][0] if local in ends else first, last)
    return ends


def rows(spans: Iterable[EngineSpan]) -> list[tuple[Any, ...]]:
    """One row per scheduler, as `overviews.ENGINES`."""
    return [
        (
            span.engine, span.process.name, span.local_engine, span.process.engine_index, span.first_ns / 1e9,
            span.last_ns / 1e9, span.table,
        )
        for span in spans
    ]  # fmt: skip
