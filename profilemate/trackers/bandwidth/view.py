"""bandwidth_estimate.csv, and what else the reading half shows of bytes and operations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from profilemate.export.cells import number, seconds, word
from profilemate.session.session import Session
from profilemate.trackers.bandwidth.analyze import Bandwidth, Pass, analyze, passes
from profilemate.trackers.bandwidth.summary import lines, record
from profilemate.trackers.view import Cells, CsvFile, View

HEADER = (
    "timestamp_sec", "phase", "num_tokens", "num_reqs", "forward_time_ms", "clock", "weight_read_bytes", "kv_read_bytes",
    "kv_write_bytes", "attention_flops", "dense_flops", "moe_flops", "lm_head_flops", "read_gb_per_sec", "tflop_per_sec",
    "bandwidth_pct_of_peak", "compute_pct_of_peak", "arithmetic_intensity", "kv_tokens", "attention_pairs", "engine", "step",
    "forward",
)  # fmt: skip
NO_WORK = ("",) * 7


def _rows(session: Session, result: Bandwidth, counted: Counter[str]) -> Iterator[Cells]:
    for one in passes(session, result.workers):
        counted["passes"] += 1
        counted["timed"] += bool(one.forward_ns)
        batch = one.batch
        yield (
            seconds(one.time_ns), word(one.phase), str(batch.tokens), str(batch.requests),
            _decimal(None if one.forward_ns is None else one.forward_ns / 1e6, 6), one.clock, *_work_cells(one),
            *_rate_cells(one), _decimal(one.work.intensity if one.work else None, 3), str(batch.kv_tokens),
            str(batch.attention_pairs), str(one.engine), number(one.step), number(one.forward),
        )  # fmt: skip


def _work_cells(one: Pass) -> Cells:
    work = one.work
    if work is None:
        return NO_WORK
    parts = (
        work.weight_read_bytes, work.kv_read_bytes, work.kv_write_bytes, work.attention_flops, work.dense_flops,
        work.moe_flops, work.head_flops,
    )  # fmt: skip
    return tuple(str(round(part)) for part in parts)


def _rate_cells(one: Pass) -> Cells:
    rate, tflops, peak = one.read_gb_per_second, one.tflops, one.peak
    return (
        _decimal(rate, 6), _decimal(tflops, 6), _decimal(_percent(rate, peak.gb_per_second), 3),
        _decimal(_percent(tflops, peak.tflops), 3),
    )  # fmt: skip


def _percent(value: float | None, peak: float | None) -> float | None:
    return None if value is None or not peak else 100 * value / peak


def _decimal(value: float | None, places: int) -> str:
    return "" if value is None else f"{value:.{places}f}"


def _notes(result: Bandwidth, counted: Counter[str]) -> list[str]:
    notes = (
        ["bandwidth_estimate.csv is an estimate; the guide lists what is in it and what is not"]
        if result.phases
        else []
    )
    if counted["passes"] and counted["timed"] < counted["passes"]:
        notes.append(
            f"bandwidth_estimate.csv: {counted['timed']} of {counted['passes']} passes have a time of the device; the "
            "others have no rate"
        )
    if result.missing_passes:
        notes.append(
            f"bandwidth_estimate.csv and its totals lack the first {result.missing_passes} forward passes: their rows were "
            "removed"
        )
    if any(worker.model is None for worker in result.workers) and result.phases:
        notes.append(
            "bandwidth_estimate.csv: the model's sizes were not recorded, so its bytes and operations are empty"
        )
    models = [worker.model for worker in result.workers if worker.model]
    for how in dict.fromkeys(model.experts.routing for model in models if model.experts):
        notes.append(f"bandwidth_estimate.csv: how many experts a pass reads is expected from {how}")
    if any(model.has_other_layers for model in models):
        notes.append(
            "bandwidth_estimate.csv: of state layers (Mamba, linear attention) the state's bytes are counted and not its own "
            "operations; of cross attention neither"
        )
    return notes


VIEW = View(
    "Bandwidth and compute (estimate)", analyze,
    (
        CsvFile(
            "bandwidth_estimate.csv", HEADER, _rows, "no serving forward pass was recorded", is_per_event=True,
        ),
    ),
    record, lines, num_short_lines=2, notes=_notes,
)  # fmt: skip
