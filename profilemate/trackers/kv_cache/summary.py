"""What the summary says about the KV cache: as plain data for metadata.json, and as lines for people."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from profilemate.export.text import session_lines
from profilemate.export.values import in_seconds, rounded
from profilemate.export.words import count_text, seconds_text, share_text
from profilemate.session.records import items_of, table_of, text
from profilemate.trackers.kv_cache.analyze import KvSummary
from profilemate.trackers.view import Record


def kv_record(kv: KvSummary) -> Record:
    """Peak, totals, hit rate and evictions, summed over engines."""
    totals = kv.totals
    counters: Record = {name: value for name, value in asdict(totals).items() if not name.endswith("_ns")}
    counters["steps"] = counters.pop("step")
    if not kv.engines:
        counters = dict.fromkeys(counters)
    peak, last = kv.peak, kv.last
    return {
        "engines": [
            {
                "engine": engine.engine,
                "process": engine.process,
                "total_blocks": engine.total_blocks,
                "peak_blocks": engine.peak,
                "blocks_in_use": engine.in_use,
                "steps": engine.totals.step,
            }
            for engine in kv.engines
        ],
        "total_blocks": last.total_blocks if last else None,
        "blocks_in_use": last.in_use if last else None,
        "peak_blocks": peak.in_use if peak else None,
        "peak_total_blocks": peak.total_blocks if peak else None,
        "peak_time_sec": in_seconds(peak.time_ns) if peak else None,
        "peak_is_exact": kv.peak_is_exact,
        "as_of_sec": in_seconds(kv.as_of_ns),
        **counters,
        "hit_rate": rounded(totals.hit_rate),
        "mean_lifetime_sec": rounded(totals.mean_lifetime_seconds),
        "mean_idle_sec": rounded(totals.mean_idle_seconds),
    }


def kv_lines(kv: dict[str, Any]) -> list[str]:
    """Peak, hit rate, evictions, preemptions."""
    if kv.get("peak_blocks") is None and kv.get("blocks_in_use") is None:
        return ["no engine step was recorded"]
    exact = "" if kv.get("peak_is_exact") else ", sum of the engines' last known states"
    peak_of = f"{count_text(kv.get('peak_blocks'))} of {count_text(kv.get('peak_total_blocks'))} blocks"
    hits = f"{count_text(kv.get('hit_tokens'))} of {count_text(kv.get('query_tokens'))} tokens"
    return [
        f"peak {peak_of} ({share_text(kv.get('peak_blocks'), kv.get('peak_total_blocks'))}) "
        f"at {seconds_text(kv.get('peak_time_sec'))}{exact}",
        f"prefix cache hit rate {share_text(kv.get('hit_tokens'), kv.get('query_tokens'))} ({hits})",
        f"evictions {count_text(kv.get('evicted'))}, mean lifetime {seconds_text(kv.get('mean_lifetime_sec'))}, "
        f"mean idle {seconds_text(kv.get('mean_idle_sec'))}",
        f"preemptions {count_text(kv.get('preemptions'))}, failed allocations {count_text(kv.get('failed_allocations'))}, "
        f"prefix cache resets {count_text(kv.get('resets'))}",
        f"engine steps {count_text(kv.get('steps'))}; blocks allocated {count_text(kv.get('allocated'))}, "
        f"re-used {count_text(kv.get('touched'))}, freed {count_text(kv.get('freed'))}, "
        f"in use {count_text(kv.get('blocks_in_use'))} as of {seconds_text(kv.get('as_of_sec'))}",
    ]


def kv_summary(record: Record) -> str:
    """kv_cache_summary.txt."""
    kv = table_of(table_of(record.get("summary")).get("kv_cache"))
    engines = [table_of(engine) for engine in items_of(kv.get("engines"))]
    lines = ["KV cache summary", session_lines(record)[0], "", *kv_lines(kv), ""]
    for key in ("total_blocks", "peak_blocks", "allocated", "touched", "touched_free", "released", "freed", "evicted",
                "timed_evictions", "failed_allocations", "preemptions", "resets", "query_requests", "query_tokens",
                "hit_tokens", "preempted_query_tokens", "preempted_hit_tokens", "operations", "steps",
                "busy_steps", "output_steps", "scheduled_tokens", "prompt_tokens"):  # fmt: skip
        lines.append(f"{key}: {kv.get(key) if kv.get(key) is not None else 'unknown'}")
    if len(engines) > 1:
        lines += [
            f"engine {engine.get('engine')}: peak {count_text(engine.get('peak_blocks'))} of "
            f"{count_text(engine.get('total_blocks'))} blocks, {count_text(engine.get('steps'))} steps"
            for engine in engines
        ]
    lines += [text(note) for note in items_of(record.get("notes")) if "kv_cache" in text(note)]
    return "\n".join(lines) + "\n"
