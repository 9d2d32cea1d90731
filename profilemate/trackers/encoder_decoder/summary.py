"""What the summary says about the encoder: as plain data for metadata.json, as lines for people, and as a file."""

from __future__ import annotations

import json
from typing import Any

from profilemate.export.values import rounded
from profilemate.export.words import count_text, share_text
from profilemate.session.records import table_of, text
from profilemate.trackers.encoder_decoder.analyze import Component, EncoderSummary
from profilemate.trackers.forward_passes.summary import milliseconds
from profilemate.trackers.view import Record

CROSS_ATTENTION = "not measured apart: it runs inside the decoder's forward pass"


def _component(component: Component) -> Record:
    times = component.durations
    return {
        "count": component.passes,
        "timed": times.count,
        "total_ms": milliseconds(times.total_ns),
        "mean_ms": milliseconds(times.mean_ns),
        "std_ms": milliseconds(times.std_ns),
        "min_ms": milliseconds(times.min_ns),
        "max_ms": milliseconds(times.max_ns if times.count else None),
        "p50_ms": milliseconds(times.percentile_ns(50)),
        "p95_ms": milliseconds(times.percentile_ns(95)),
    }


def encoder_record(summary: EncoderSummary) -> Record:
    """Passes and times of encoder and decoder, and what the encoder was given."""
    share = summary.encoder_share
    return {
        "model_type": summary.model_type,
        "encoder": {
            **_component(summary.encoder),
            "items": summary.totals.items,
            "tokens": summary.totals.tokens,
            "requests": summary.totals.requests,
            "graph_hits": summary.totals.graph_hits,
            "graph_misses": summary.totals.graph_misses,
        },
        "decoder": _component(summary.decoder),
        "encoder_pct": None if share is None else rounded(100 * share),
        "decoder_pct": None if share is None else rounded(100 - 100 * share),
        "cross_attention": CROSS_ATTENTION,
    }


def _times(component: dict[str, Any]) -> str:
    words = [
        f"{name} {value:.3f} ms"
        for name, value in (("mean", component.get("mean_ms")), ("p95", component.get("p95_ms")))
        if isinstance(value, (int, float))
    ]
    return "".join(f", {word}" for word in words)


def encoder_lines(record: Record) -> list[str]:
    """Passes, items and tokens, times, graphs, and the share of the time."""
    encoder, decoder = table_of(record.get("encoder")), table_of(record.get("decoder"))
    if not encoder.get("count"):
        return ["no encoder pass was recorded"]
    lines = [
        f"{count_text(encoder.get('items'))} items ({count_text(encoder.get('tokens'))} tokens) in "
        f"{count_text(encoder.get('count'))} encoder passes{_times(encoder)}",
        f"forward passes of the same workers {count_text(decoder.get('count'))}{_times(decoder)}",
    ]
    share = record.get("encoder_pct")
    if share is not None:
        lines.append(f"the encoder's share of both is {share_text(share, 100)}")
    hits, misses = encoder.get("graph_hits") or 0, encoder.get("graph_misses") or 0
    if hits or misses:
        lines.append(f"encoder graphs: {count_text(hits)} items replayed one, {count_text(misses)} fitted none")
    return lines


def summary_file(record: Record) -> str:
    """encoder_decoder_summary.json."""
    ours = table_of(table_of(record.get("summary")).get("encoder_decoder"))
    notes = [text(note) for note in record.get("notes") or [] if text(note).startswith("encoder")]
    return json.dumps({**ours, "notes": notes}, indent=1) + "\n"
