"""The README's files about CUDA graphs, and what else the reading half shows of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

from profilemate.export.cells import number, seconds, word
from profilemate.session.session import Session
from profilemate.trackers.cuda_graphs import cells, timeline
from profilemate.trackers.cuda_graphs.analyze import Capture, GraphSummary, GraphUsage, analyze
from profilemate.trackers.cuda_graphs.summary import graph_record, lines
from profilemate.trackers.view import Cells, CsvFile, View


def _captures(session: Session, graphs: GraphSummary, counted: Counter[str]) -> Iterator[Cells]:
    for capture in graphs.captures:
        if capture.owner == "main":
            yield (
                *cells.descriptor_cells(capture.descriptor), seconds(capture.time_ns), seconds(capture.duration_ns),
                number(capture.graphs), number(capture.memory_bytes), word(capture.purpose), word(capture.site),
                *cells.further_cells(capture.descriptor), str(capture.engine),
            )  # fmt: skip


def _usage(session: Session, graphs: GraphSummary, counted: Counter[str]) -> Iterator[Cells]:
    for usage in graphs.usages:
        yield (
            *cells.descriptor_cells(usage.descriptor), str(usage.replays), str(usage.pieces), str(usage.captures),
            str(usage.unpadded_tokens), str(usage.padded_tokens), seconds(usage.host_ns),
            *cells.further_cells(usage.descriptor),
        )  # fmt: skip


def _timeline(session: Session, graphs: GraphSummary, counted: Counter[str]) -> Iterator[Cells]:
    return timeline.rows(session, counted)


def _other(session: Session, graphs: GraphSummary, counted: Counter[str]) -> Iterator[Cells]:
    for usage in graphs.others:
        captures = [capture for capture in graphs.captures if _is_of(capture, usage)]
        yield (
            *cells.descriptor_cells(usage.descriptor), str(usage.replays), word(usage.owner), str(usage.pieces),
            str(usage.captures), seconds(captures[0].time_ns if captures else None),
            seconds(sum(capture.duration_ns or 0 for capture in captures)) if captures else "", seconds(usage.host_ns),
            *cells.further_cells(usage.descriptor),
        )  # fmt: skip


def _is_of(capture: Capture, usage: GraphUsage) -> bool:
    return capture.owner == usage.owner and capture.descriptor == usage.descriptor


def _eager(config: Mapping[str, object]) -> str:
    if config.get("enforce_eager") is True:
        return "enforce_eager is on"
    return "cudagraph_mode is NONE" if str(config.get("cudagraph_mode")) == "NONE" else ""


def _notes(graphs: GraphSummary, counted: Counter[str]) -> list[str]:
    if counted["cuda_event"] and counted["without latency"]:
        return [
            f"latency_sec is device time and was sampled: {counted['cuda_event']} of {counted['rows']} "
            "forward passes have it"
        ]
    if counted["rows"] and counted["without latency"]:
        return ["latency_sec is empty: no device time was read; host_sec is the time of the launch alone"]
    return []


CSV_FILES = (
    CsvFile(
        "cuda_graph_captures.csv",
        (*cells.DESCRIPTOR_HEADER, "capture_time_sec", "duration_sec", "graphs", "memory_bytes", "purpose", "site",
         *cells.FURTHER_HEADER, "engine"),
        _captures,
        "vLLM captured no CUDA graph for the main model", _eager,
    ),
    CsvFile(
        "cuda_graph_usage.csv",
        (*cells.DESCRIPTOR_HEADER, "replay_count", "pieces", "captures", "unpadded_tokens", "padded_tokens", "host_sec",
         *cells.FURTHER_HEADER),
        _usage,
        "no CUDA graph was captured for serving and none was replayed", _eager,
    ),
    CsvFile(
        "cuda_graph_timeline.csv", timeline.HEADER, _timeline,
        "no serving forward pass replayed a CUDA graph", _eager, is_per_event=True,
    ),
    CsvFile(
        "cuda_graph_other.csv",
        (*cells.DESCRIPTOR_HEADER, "replay_count", "owner", "pieces", "captures", "capture_time_sec", "duration_sec",
         "host_sec", *cells.FURTHER_HEADER),
        _other,
        "no drafter, encoder or micro-batch graphs were captured or replayed", _eager,
    ),
)  # fmt: skip

VIEW = View(
    "CUDA graphs", analyze, CSV_FILES, graph_record, lines, num_short_lines=3,
    findings=lambda graphs: graphs.findings, notes=_notes,
)  # fmt: skip
