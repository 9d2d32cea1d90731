"""The file about prefix-cache look-ups, and what else the reading half shows of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from profilemate.export.cells import number, seconds, word
from profilemate.export.values import rounded
from profilemate.export.words import count_text, seconds_text, share_text
from profilemate.session.records import table_of
from profilemate.session.session import Session
from profilemate.trackers.prefix_lookups.analyze import (
    REASONS,
    LookupSummary,
    LookupTotals,
    analyze,
    lookups,
)
from profilemate.trackers.view import Cells, CsvFile, Record, View

WORDS = {
    "short_tokens": "shorter than a block",
    "last_tokens": "last block, never taken from the cache",
    "new_tokens": "never seen",
    "evicted_tokens": "evicted",
    "reset_tokens": "dropped by a reset",
    "untaken_tokens": "cached but not taken",
    "unkept_tokens": "not kept by a sliding-window or Mamba group",
    "unknown_tokens": "unknown (never seen, or evicted longer ago than the table reaches)",
    "off_tokens": "no look-up made",
}
SHARES = {"p10": 0.1, "p50": 0.5, "p90": 0.9, "p99": 0.99}


def _rows(session: Session, summary: LookupSummary, counted: Counter[str]) -> Iterator[Cells]:
    for row in lookups(session, summary.spans):
        tokens = row.tokens
        yield (
            seconds(row.time_ns), word(row.request), number(row.prompt_tokens), str(tokens["asked_tokens"]),
            str(tokens["hit_tokens"]), str(tokens["external_tokens"]), str(row.missed),
            *(str(tokens[name]) for name in REASONS), word(row.cache_off), seconds(row.age_ns(row.newest_ns)),
            seconds(row.age_ns(row.median_ns)), seconds(row.age_ns(row.oldest_ns)), seconds(row.age_ns(row.reach_ns)),
            str(row.every), number(row.blocks), str(row.resumed), str(row.engine),
        )  # fmt: skip


def _record(summary: LookupSummary) -> Record:
    ages = {name: rounded(summary.age_seconds(share)) for name, share in SHARES.items()}
    return {
        **_totals_record(summary.first),
        "evicted_seconds_before": ages if summary.ages else {},
        "resumed": _totals_record(summary.resumed),
        "sampled_lookups": summary.sampled,
    }


def _totals_record(totals: LookupTotals) -> Record:
    tokens = totals.tokens
    return {
        "lookups": totals.lookups,
        "asked_tokens": tokens["asked_tokens"],
        "hit_tokens": tokens["hit_tokens"],
        "external_hit_tokens": tokens["external_tokens"],
        "missed_tokens": totals.missed,
        "missed": {name.removesuffix("_tokens"): tokens[name] for name in REASONS},
        "unwritten_blocks": tokens["unwritten_blocks"],
    }


def lines(record: Record) -> list[str]:
    """Hit rate, reasons, ages."""
    if not record.get("lookups"):
        return ["no request was admitted"]
    found = [f"{count_text(record.get('lookups'))} look-ups, {_hits(record)}", f"missed: {_reasons(record)}"]
    ages = table_of(record.get("evicted_seconds_before"))
    if ages:
        told = ", ".join(f"{name} {seconds_text(ages.get(name))}" for name in SHARES)
        found.append(f"evicted so long before the look-up, over evicted tokens: {told}")
    resumed = table_of(record.get("resumed"))
    if resumed.get("lookups"):
        found.append(
            f"after preemptions: {count_text(resumed.get('lookups'))} look-ups, {_hits(resumed)}; "
            f"missed: {_reasons(resumed)}"
        )
    return found


def _hits(record: Record) -> str:
    asked, external = record.get("asked_tokens"), record.get("external_hit_tokens")
    text = f"hit rate {share_text(record.get('hit_tokens'), asked)} ({count_text(record.get('hit_tokens'))} of "
    text += f"{count_text(asked)} tokens)"
    return text + (f", {count_text(external)} more by a KV connector" if external else "")


def _reasons(record: Record) -> str:
    missed: dict[str, Any] = table_of(record.get("missed"))
    total = record.get("missed_tokens")
    named = sorted(
        ((tokens, words) for reason, words in WORDS.items() if (tokens := missed.get(reason.removesuffix("_tokens")))),
        reverse=True,
    )
    return ", ".join(f"{words} {share_text(tokens, total)}" for tokens, words in named) or "nothing"


def _notes(summary: LookupSummary, counted: Counter[str]) -> list[str]:
    notes = [
        f"{hook} did not always work: prefix_cache_lookups.csv may tell evicted or reset blocks as new"
        for hook in summary.blind
    ]
    if summary.sampled:
        notes.append(
            f"{summary.sampled} prefix look-ups missed so many blocks that only every n-th of them was looked at "
            "(looked_at_every); their reasons and ages are estimates"
        )
    if summary.shortest_reach_ns is not None:
        notes.append(
            "missed tokens under unknown are new or were evicted long before: the table of evicted blocks reached back at "
            f"least {summary.shortest_reach_ns / 1e9:.3f} s (table_reach_sec)"
        )
    unwritten = summary.first.tokens["unwritten_blocks"]
    if unwritten:
        notes.append(f"{unwritten} blocks of prompts are not in prefix_blocks: too many were waiting to be written")
    if summary.capped and summary.ages:
        notes.append("how long before its look-up a block was evicted is known of the kept rows of prefix_lookups only")
    return notes


CSV_FILES = (
    CsvFile(
        "prefix_cache_lookups.csv",
        ("timestamp_sec", "request_id", "prompt_tokens", "asked_tokens", "hit_tokens", "external_hit_tokens",
         "missed_tokens", *(f"missed_{name.removesuffix('_tokens')}" for name in REASONS), "cache_off",
         "newest_eviction_age_sec", "median_eviction_age_sec", "oldest_eviction_age_sec", "table_reach_sec",
         "looked_at_every", "blocks", "is_resumed", "engine"),
        _rows,
        "no request was admitted", is_per_event=True,
    ),
)  # fmt: skip

VIEW = View("Prefix-cache look-ups", analyze, CSV_FILES, _record, lines, num_short_lines=2, notes=_notes)
