"""What the summary says about forward passes: as plain data for metadata.json, as lines for people, and as a file."""

from __future__ import annotations

import json
from typing import Any

from profilemate.export.values import rounded
from profilemate.export.words import count_text, share_text
from profilemate.session.records import items_of, table_of, text
from profilemate.trackers.forward_passes.analyze import ForwardSummary, PhaseTimes
from profilemate.trackers.view import Record

NS_PER_MS = 1e6
PERCENTILES = (50, 95, 99)
SUMMARY_FILE = "forward_pass_summary.json"


def milliseconds(ns: float | None) -> float | None:
    """To the nanosecond."""
    return None if ns is None else round(ns / NS_PER_MS, 6)


def forward_record(summary: ForwardSummary) -> Record:
    """Each phase by its name, and what of the passes was timed."""
    return {
        "passes": summary.passes,
        "kept": summary.kept,
        "timed": summary.timed,
        "clocks": list(summary.clocks),
        "device_timing_every": summary.every,
        "engines": summary.engines,
        "phases": {phase.phase: _phase_record(phase) for phase in summary.phases},
    }


def _phase_record(phase: PhaseTimes) -> Record:
    times = phase.durations
    return {
        "count": phase.passes,
        "timed": times.count,
        "mean_ms": milliseconds(times.mean_ns),
        "std_ms": milliseconds(times.std_ns),
        "min_ms": milliseconds(times.min_ns),
        "max_ms": milliseconds(times.max_ns if times.count else None),
        **{f"p{percent}_ms": milliseconds(times.percentile_ns(percent)) for percent in PERCENTILES},
        "requests": phase.requests,
        "tokens": phase.tokens,
        "context_tokens": phase.context_tokens,
        "tokens_per_sec": rounded(phase.tokens_per_second),
        "host_mean_ms": milliseconds(phase.host.mean_ns),
        "execute_mean_ms": milliseconds(phase.execute.mean_ns),
        "sample_mean_ms": milliseconds(phase.sample.mean_ns),
    }


def forward_lines(record: Record) -> list[str]:
    """Passes by phase, then the times of each, then by which clock they are."""
    phases = {name: table_of(phase) for name, phase in table_of(record.get("phases")).items()}
    total = record.get("passes")
    if not total:
        return ["no serving forward pass was recorded"]
    shares = ", ".join(
        f"{text(name)} {count_text(phase.get('count'))} ({share_text(phase.get('count'), total)})"
        for name, phase in phases.items()
    )
    lines = [f"forward passes {count_text(total)}: {shares}"]
    lines += [_phase_line(text(name), phase) for name, phase in phases.items()]
    return [*lines, _clock_line(record)]


def _phase_line(name: str, phase: dict[str, Any]) -> str:
    count = phase.get("count") or 1
    size = f"{_per_pass(phase.get('requests'), count)} requests, {_per_pass(phase.get('tokens'), count)} tokens a pass"
    host = f"launch {_ms(phase.get('host_mean_ms'))}, execute_model {_ms(phase.get('execute_mean_ms'))}, "
    host += f"sample_tokens {_ms(phase.get('sample_mean_ms'))}"
    if not phase.get("timed"):
        return f"{name}: not timed; {size}; host {host}"
    times = ", ".join(f"{key} {_ms(phase.get(f'{key}_ms'))}" for key in ("mean", "p50", "p95", "p99"))
    return f"{name}: {times} of {count_text(phase.get('timed'))} timed; {size}; host {host}"


def _clock_line(record: Record) -> str:
    clocks, timed, kept = items_of(record.get("clocks")), record.get("timed"), record.get("kept")
    if "cuda_event" in clocks:
        every = record.get("device_timing_every")
        rate = f", one pass in {every}" if isinstance(every, int) and every > 1 else ""
        return (
            f"times are the device's, between two CUDA events, sampled{rate}: {count_text(timed)} of {count_text(kept)}"
        )
    if timed:
        return "times are the host's, by the monotonic clock: on a CPU the launch is the whole pass"
    return "no device time was read; the host's launch times say nothing of how long a pass took on the device"


def _per_pass(value: Any, count: int) -> str:
    return f"{value / count:.1f}" if isinstance(value, int) else "unknown"


def _ms(value: Any) -> str:
    return f"{value:.3f} ms" if isinstance(value, (int, float)) else "unknown"


def summary_file(record: Record) -> str:
    """forward_pass_summary.json: the phases, then what of them was timed."""
    ours = dict(table_of(table_of(record.get("summary")).get("forward_passes")))
    phases = table_of(ours.pop("phases", None))
    notes = [text(note) for note in items_of(record.get("notes")) if text(note).startswith("forward_pass")]
    return json.dumps({**phases, "all": ours, "notes": notes}, indent=1) + "\n"
