"""Requests: how many, how they ended, how long they took."""

from __future__ import annotations

from profilemate.report.model import Column, Grid, Number, Numbers, Part
from profilemate.report.numbers import cell, count, milliseconds, share_of
from profilemate.report.sections.section import REQUESTS, Section
from profilemate.report.source import Source
from profilemate.session.records import table_of, text

LATENCIES = (
    ("ttft", "Time to first token"),
    ("tpot", "Time per output token"),
    ("queue", "In the queue, first time"),
    ("whole_queue", "In the queue, in all"),
    ("prefill", "Prefill"),
    ("decode", "Decode"),
    ("e2e", "End to end"),
)
PERCENTILES = ("p50", "p90", "p95", "p99")
PARTIAL = (
    ("unfinished", "Not finished"),
    ("end_not_kept", "Ended, the end not kept"),
    ("without_statistics", "Without vLLM's statistics"),
    ("without_front_end", "Seen by the scheduler only"),
    ("without_scheduler", "Seen by the front end only"),
    ("removed_requests", "Removed by the size cap"),
)


def build(source: Source) -> Part:
    """Counts, and a table of latencies."""
    requests = source.tracker("requests")
    if not requests:
        return Part(lead=("Requests were not tracked in this session.",))
    prompt = requests.get("prompt_tokens")
    partial = tuple(count(words, requests.get(key)) for key, words in PARTIAL if requests.get(key))
    return Part(
        numbers=tuple(
            numbers
            for numbers in (
                Numbers(
                    "Tokens",
                    (
                        count("Prompt", prompt, "tokens"),
                        share_of("From the prefix cache", requests.get("cached_tokens"), prompt),
                        count("Output", requests.get("output_tokens"), "tokens"),
                    ),
                ),
                Numbers("How they ended", (count("Requests", requests.get("requests")), *_reasons(source))),
                Numbers("Not known whole", partial),
            )
            if numbers.items
        ),
        grids=tuple(grid for grid in (_latencies(source),) if grid.rows),
    )


def _reasons(source: Source) -> tuple[Number, ...]:
    reasons = table_of(source.tracker("requests").get("by_reason"))
    return tuple(count(f"Ended by {text(reason)}", number) for reason, number in reasons.items())


def _latencies(source: Source) -> Grid:
    latencies = table_of(source.tracker("requests").get("latencies"))
    rows = tuple(
        (
            words,
            cell(latency.get("count")),
            milliseconds(latency.get("mean_sec")),
            *(milliseconds(latency.get(f"{percentile}_sec")) for percentile in PERCENTILES),
        )
        for name, words in LATENCIES
        if (latency := table_of(latencies.get(name))).get("count")
    )
    columns = (
        Column("Latency"), Column("Requests", True), *(Column(f"{name} (ms)", True) for name in ("Mean", *PERCENTILES))
    )  # fmt: skip
    return Grid("Latencies", columns, rows)


SECTION = Section("requests", "Requests", REQUESTS, build, figures=("requests",))
