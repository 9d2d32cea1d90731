"""Bandwidth and compute: how near the passes come to the device's limits, as an estimate."""

from __future__ import annotations

from typing import Any

from profilemate.report.model import Column, Grid, Numbers, Part
from profilemate.report.numbers import cell, plain, share_of, size
from profilemate.report.sections.section import MODEL, Section
from profilemate.report.source import Source
from profilemate.session.records import items_of, table_of, text


def build(source: Source) -> Part:
    """Rates by phase, the device's peaks, the model's sizes."""
    record = source.tracker("bandwidth")
    if not record:
        return Part(lead=("Off by setting; PROFILEMATE_TRACKERS=default,bandwidth estimates it.",))
    workers = [table_of(worker) for worker in items_of(record.get("workers"))]
    estimate = text(record.get("estimate"))
    return Part(
        lead=(f"{estimate[:1].upper()}{estimate[1:]}.",) if estimate else (),
        numbers=tuple(_worker(worker, len(workers) > 1) for worker in workers[:4]),
        grids=tuple(grid for grid in (_phases(record, workers),) if grid.rows),
    )


def _worker(worker: dict[str, Any], name_it: bool) -> Numbers:
    model = table_of(worker.get("model"))
    device = text(worker.get("device")) or "unknown device"
    weights = [model.get(f"{part}_weight_bytes") for part in ("dense", "head", "expert")]
    known = [one for one in weights if isinstance(one, (int, float))]
    return Numbers(
        f"{device}, engine {worker.get('engine')}" if name_it else device,
        (
            plain("Peak bandwidth", worker.get("peak_gb_per_second"), "GB/s", text(worker.get("peak_source"))),
            plain("Peak compute", worker.get("peak_tflops"), "TFLOP/s"),
            size("Weights of one worker", sum(known) if known else None),
            size("KV cache per token", model.get("kv_bytes_per_token")),
        ),
    )


def _phases(record: dict[str, Any], workers: list[dict[str, Any]]) -> Grid:
    peaks = {(worker.get("peak_gb_per_second"), worker.get("peak_tflops")) for worker in workers}
    memory, compute = peaks.pop() if len(peaks) == 1 else (None, None)
    rows = tuple(
        (
            text(name), cell(rates.get("passes")), cell(rates.get("timed_passes")), cell(rates.get("read_gb_per_sec")),
            share_of("", rates.get("read_gb_per_sec"), memory).value, cell(rates.get("tflop_per_sec")),
            share_of("", rates.get("tflop_per_sec"), compute).value, cell(rates.get("flops_per_read_byte")),
        )
        for name, rates in ((name, table_of(rates)) for name, rates in table_of(record.get("phases")).items())
    )  # fmt: skip
    columns = (
        Column("Phase"), Column("Passes", True), Column("Timed", True), Column("Read (GB/s)", True),
        Column("Of the peak (%)", True), Column("Compute (TFLOP/s)", True), Column("Of the peak (%)", True),
        Column("FLOP per byte", True),
    )  # fmt: skip
    return Grid("Rates by phase", columns, rows)


SECTION = Section("bandwidth", "Bandwidth and compute", MODEL, build, figures=("bandwidth",))
