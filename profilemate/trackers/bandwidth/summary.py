"""What the summary says about bandwidth and compute: as plain data for metadata.json, and as lines for people."""

from __future__ import annotations

from typing import Any

from profilemate.export.values import in_seconds, rounded
from profilemate.export.words import count_text, seconds_text, share_text
from profilemate.session.records import items_of, table_of, text
from profilemate.trackers.bandwidth.analyze import Bandwidth, Rates, Worker
from profilemate.trackers.bandwidth.model import Model
from profilemate.trackers.view import Record

ESTIMATE = (
    "an estimate: model sizes times what was scheduled; activations, communication and other kernels are not in it"
)
PERCENTILES = (10, 50, 90, 99)
PREFIXES = ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""))


def record(result: Bandwidth) -> Record:
    """Models, peaks, rates by phase, totals."""
    return {
        "estimate": ESTIMATE,
        "workers": [_worker(worker) for worker in result.workers],
        "phases": {phase: _rates(rates) for phase, rates in result.phases.items()},
        "totals": {
            "passes": sum(rates.passes for rates in result.phases.values()),
            "read_bytes": round(sum(rates.read_bytes for rates in result.phases.values())),
            "write_bytes": round(sum(rates.write_bytes for rates in result.phases.values())),
            "flops": round(sum(rates.flops for rates in result.phases.values())),
        },
        "as_vllm_counts": None
        if result.as_vllm_counts is None
        else {name: round(value) for name, value in vars(result.as_vllm_counts).items()},
    }


def _worker(worker: Worker) -> Record:
    peak = worker.peak
    return {
        "engine": worker.shown.engine,
        "process": worker.shown.process.name,
        "device": peak.device,
        "peak_gb_per_second": rounded(peak.gb_per_second),
        "peak_tflops": rounded(peak.tflops),
        "peak_source": peak.source,
        "model": None if worker.model is None else _model(worker.model),
    }


def _model(model: Model) -> Record:
    weights, experts = model.weights, model.experts
    return {
        "dense_weight_bytes": round(weights.dense_bytes),
        "head_weight_bytes": round(weights.head_bytes),
        "expert_weight_bytes": round(weights.expert_bytes),
        "dense_weights": round(weights.dense_elements),
        "head_weights": round(weights.head_elements),
        "expert_weights": round(weights.expert_elements),
        "weight_bytes_from": weights.bytes_from,
        "weights_from": weights.elements_from,
        "kv_bytes_per_token": rounded(model.kv_bytes_per_token),
        "kv_layers": [
            {"kind": one.kind, "layers": one.layers, "bytes": one.num_bytes, "window": one.window}
            for one in model.kv_layers
        ],
        "kv_from": model.kv_from,
        "experts": None
        if experts is None
        else {name: value for name, value in vars(experts).items() if name != "hit_share"},
        "dimensions": dict(model.dimensions),
    }


def _rates(rates: Rates) -> Record:
    return {
        "passes": rates.passes,
        "timed_passes": rates.timed,
        "timed_seconds": in_seconds(rates.timed_ns),
        "read_bytes": round(rates.read_bytes),
        "write_bytes": round(rates.write_bytes),
        "flops": round(rates.flops),
        "read_gb_per_sec": rounded(rates.timed_read_bytes / rates.timed_ns) if rates.timed_ns else None,
        "tflop_per_sec": rounded(rates.timed_flops / rates.timed_ns / 1e3) if rates.timed_ns else None,
        "flops_per_read_byte": rounded(rates.flops / rates.read_bytes) if rates.read_bytes else None,
        **{f"read_gb_per_sec_p{percent}": rounded(rates.gb_per_second.percentile(percent)) for percent in PERCENTILES},
        **{f"tflop_per_sec_p{percent}": rounded(rates.tflops.percentile(percent)) for percent in PERCENTILES},
    }


def lines(bandwidth: Record) -> list[str]:
    """Rates by phase, then what they are made of."""
    phases = {name: table_of(rates) for name, rates in table_of(bandwidth.get("phases")).items()}
    if not phases:
        return ["no forward pass was recorded"]
    workers = [table_of(worker) for worker in items_of(bandwidth.get("workers"))]
    told = [*(_phase_line(name, rates, workers) for name, rates in phases.items()), ESTIMATE]
    for worker in workers:
        told += _worker_lines(worker, len(workers) > 1)
    totals, counted = table_of(bandwidth.get("totals")), table_of(bandwidth.get("as_vllm_counts"))
    told.append(
        f"totals of {count_text(totals.get('passes'))} passes: read {_amount(totals.get('read_bytes'), 'B')}, "
        f"written {_amount(totals.get('write_bytes'), 'B')}, {_amount(totals.get('flops'), 'FLOP')}"
    )
    if counted:
        told.append(
            f"as --enable-mfu-metrics counts the same passes: read {_amount(counted.get('read_bytes'), 'B')}, "
            f"written {_amount(counted.get('write_bytes'), 'B')}, {_amount(counted.get('flops'), 'FLOP')}"
        )
    return told


def _phase_line(name: str, rates: Record, workers: list[Record]) -> str:
    passes = f"{count_text(rates.get('timed_passes'))} of {count_text(rates.get('passes'))} passes timed"
    if not rates.get("timed_passes"):
        return f"{text(name)}: {passes}, so no rate is known"
    peaks = {(worker.get("peak_gb_per_second"), worker.get("peak_tflops")) for worker in workers}
    memory, compute = peaks.pop() if len(peaks) == 1 else (None, None)
    gb, tflops = rates.get("read_gb_per_sec"), rates.get("tflop_per_sec")
    return (
        f"{text(name)}: reads {_number(gb)} GB/s{_of_peak(gb, memory)}, {_number(tflops)} TFLOP/s{_of_peak(tflops, compute)}, "
        f"{_number(rates.get('flops_per_read_byte'))} FLOP per byte read ({passes}, {seconds_text(rates.get('timed_seconds'))})"
    )


def _of_peak(value: Any, peak: Any) -> str:
    return f" ({share_text(value, peak)} of peak)" if isinstance(peak, (int, float)) and peak else ""


def _worker_lines(worker: Record, name_it: bool) -> list[str]:
    model, whose = table_of(worker.get("model")), f"engine {worker.get('engine')}: " if name_it else ""
    device = text(worker.get("device")) or "unknown device"
    peaks = [
        f"{_number(worker.get(key))} {unit}"
        for key, unit in (("peak_gb_per_second", "GB/s"), ("peak_tflops", "TFLOP/s"))
        if worker.get(key) is not None
    ]
    told = [f"{whose}{device}: peak {', '.join(peaks) or 'unknown'} ({text(worker.get('peak_source'))})"]
    if not model:
        return [*told, f"{whose}the model's sizes were not recorded, so no bytes and operations are known"]
    parts = ", ".join(
        f"{_amount(model.get(f'{key}_weight_bytes'), 'B')} in {words}"
        for key, words in (("dense", "layers"), ("head", "the head"), ("expert", "experts"))
        if model.get(f"{key}_weight_bytes")
    )
    told.append(
        f"{whose}weights of one worker: {parts} ({text(model.get('weight_bytes_from'))}); "
        f"KV {_amount(model.get('kv_bytes_per_token'), 'B')} per token ({text(model.get('kv_from'))})"
    )
    if model.get("experts"):
        told.append(f"{whose}experts hit in a pass are expected from {text(table_of(model['experts']).get('routing'))}")
    return told


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, (int, float)) else "unknown"


def _amount(value: Any, unit: str) -> str:
    """With a decimal prefix."""
    if not isinstance(value, (int, float)):
        return "unknown"
    factor, prefix = next((pair for pair in PREFIXES if value >= pair[0]), (1.0, ""))
    return f"{value / factor:.4g} {prefix}{unit}"
