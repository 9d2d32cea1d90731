"""The files about forward passes, and what else the reading half shows of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from profilemate.export.cells import milliseconds, number, seconds, word
from profilemate.session.session import Session
from profilemate.trackers.forward_passes.analyze import UNKNOWN, ForwardPass, ForwardSummary, analyze, forward_passes
from profilemate.trackers.forward_passes.summary import SUMMARY_FILE, forward_lines, forward_record, summary_file
from profilemate.trackers.view import Cells, CsvFile, TextFile, View

TIMING_FILE = "forward_pass_timing.csv"
HEADER = (
    "timestamp_sec", "phase", "batch_size", "num_tokens", "forward_time_ms", "throughput_tokens_per_sec", "clock",
    "host_ms", "execute_model_ms", "sample_tokens_ms", "mode", "context_requests", "context_tokens",
    "decode_requests", "decode_tokens", "step", "forward", "engine",
)  # fmt: skip


def _timing(session: Session, summary: ForwardSummary, counted: Counter[str]) -> Iterator[Cells]:
    for one in forward_passes(session):
        yield (
            seconds(one.time_ns), word(one.phase), str(one.requests), str(one.tokens), milliseconds(one.duration_ns),
            _throughput(one), one.clock, milliseconds(one.host_ns), milliseconds(one.execute_ns),
            milliseconds(one.sample_ns), word(one.mode), number(one.context_requests), number(one.context_tokens),
            number(_without(one.requests, one.context_requests)), number(_without(one.tokens, one.context_tokens)),
            number(one.step), str(one.forward), str(one.engine),
        )  # fmt: skip


def _throughput(one: ForwardPass) -> str:
    return f"{one.tokens * 1e9 / one.duration_ns:.3f}" if one.duration_ns else ""


def _without(whole: int, part: int | None) -> int | None:
    return None if part is None else whole - part


def _notes(summary: ForwardSummary, counted: Counter[str]) -> list[str]:
    notes = []
    if "cuda_event" in summary.clocks and summary.timed < summary.kept:
        notes.append(
            f"{TIMING_FILE}: forward_time_ms is device time and was sampled: {summary.timed} of {summary.kept} forward "
            "passes have it; means and percentiles are of these"
        )
    elif summary.kept and not summary.timed:
        notes.append(f"{TIMING_FILE}: forward_time_ms is empty: no device time was read; host_ms is the launch alone")
    if summary.kept < summary.passes:
        notes.append(
            f"{SUMMARY_FILE}: counts, requests and tokens are of all {summary.passes} forward passes, times of the "
            f"{summary.kept} whose rows were kept"
        )
    if any(phase.phase == UNKNOWN for phase in summary.phases):
        notes.append(f"{TIMING_FILE}: this vLLM does not tell which requests are in their context phase")
    return notes


CSV_FILES = (
    CsvFile(TIMING_FILE, HEADER, _timing, "no serving forward pass was recorded", is_per_event=True),
)  # fmt: skip

VIEW = View(
    "Forward passes", analyze, CSV_FILES, forward_record, forward_lines, num_short_lines=1,
    text_files=(TextFile(SUMMARY_FILE, summary_file),), findings=lambda summary: summary.findings, notes=_notes,
)  # fmt: skip
