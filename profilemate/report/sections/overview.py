"""The server in a few numbers."""

from __future__ import annotations

from typing import Any

from profilemate.report.model import Numbers, Part
from profilemate.report.numbers import count, duration, is_number, percent, plain, share_of
from profilemate.report.sections.section import SERVER, Section
from profilemate.report.source import Source
from profilemate.session.records import table_of


def build(source: Source) -> Part:
    """Four small tables: load, latencies, KV cache, graphs."""
    return Part(numbers=(_load(source), _latencies(source), _kv(source), _graphs(source)))


def _load(source: Source) -> Numbers:
    requests, steps = source.tracker("requests"), source.tracker("engine_steps")
    seconds = table_of(steps.get("seconds"))
    parts = ("scheduling", "update", "waiting_for_model", "between_steps")
    known = [seconds[part] for part in parts if is_number(seconds.get(part))]
    busy = sum(known) if known else None
    return Numbers(
        "Load",
        (
            count("Requests", requests.get("requests")),
            count("Prompt tokens", requests.get("prompt_tokens"), "tokens"),
            count("Output tokens", requests.get("output_tokens"), "tokens"),
            duration("Time with requests", busy, "of the engine"),
            plain("Output speed", _rate(requests.get("output_tokens"), busy), "tokens/s", "while there were requests"),
        ),
    )


def _rate(tokens: Any, seconds: float | None) -> float | None:
    return tokens / seconds if is_number(tokens) and seconds else None


def _latencies(source: Source) -> Numbers:
    latencies = table_of(source.tracker("requests").get("latencies"))

    def at(name: str, percentile: str) -> Any:
        return table_of(latencies.get(name)).get(f"{percentile}_sec")

    return Numbers(
        "Latency",
        (
            duration("Time to first token, median", at("ttft", "p50")),
            duration("Time to first token, 95th percentile", at("ttft", "p95")),
            duration("Time per output token, median", at("tpot", "p50")),
            duration("Time per output token, 95th percentile", at("tpot", "p95")),
            duration("In the queue, 95th percentile", at("queue", "p95")),
        ),
    )


def _kv(source: Source) -> Numbers:
    kv = source.tracker("kv_cache")
    peak, total = kv.get("peak_blocks"), kv.get("peak_total_blocks")
    blocks = f"{peak:,} of {total:,} blocks" if isinstance(peak, int) and isinstance(total, int) else ""
    return Numbers(
        "KV cache",
        (
            share_of("Peak use", peak, total, blocks),
            percent("Prefix-cache hit rate", kv.get("hit_rate")),
            count("Cached blocks evicted", kv.get("evicted"), "blocks"),
            count("Failed allocations", kv.get("failed_allocations")),
            count("Preemptions", kv.get("preemptions")),
        ),
    )


def _graphs(source: Source) -> Numbers:
    graphs = source.tracker("cuda_graphs")
    passes = table_of(graphs.get("forward_passes"))
    total = passes.get("total")
    return Numbers(
        "CUDA graphs",
        (
            count("Forward passes", total),
            share_of("In a full graph", passes.get("full_graph"), total),
            share_of("In piecewise graphs", passes.get("piecewise_graph"), total),
            share_of("Without a graph", passes.get("no_graph"), total),
            percent("Padding", graphs.get("padding_fraction"), "of the tokens in graphs"),
        ),
    )


SECTION = Section("overview", "Key numbers", SERVER, build, figures=("overview",))
