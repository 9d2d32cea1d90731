"""What the summary says about requests: as plain data for metadata.json, as lines for people, and the preemptions' own file."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from statistics import fmean
from typing import Any

from profilemate.export.values import in_seconds
from profilemate.export.words import count_text, seconds_text
from profilemate.session.durations import Durations
from profilemate.session.records import table_of
from profilemate.trackers.requests.analyze import RequestSummary
from profilemate.trackers.view import Record

PERCENTS = (50, 90, 95, 99)
NAMES = {
    "ttft": "time to first token",
    "tpot": "time per output token",
    "queue": "in the scheduler's queue",
    "e2e": "end to end",
}
"""Latencies with a line of their own; the others are in metadata.json."""


def request_record(requests: RequestSummary) -> Record:
    """Counts, latencies, preemptions."""
    return {
        "requests": requests.requests,
        "by_reason": dict(sorted(requests.by_reason.items())),
        "unfinished": requests.unfinished,
        "end_not_kept": requests.end_not_kept,
        "prompt_tokens": requests.prompt_tokens,
        "cached_tokens": requests.cached_tokens,
        "output_tokens": requests.output_tokens,
        "without_statistics": requests.without_statistics,
        "without_front_end": requests.without_front_end,
        "without_scheduler": requests.without_scheduler,
        "removed_requests": requests.removed_requests,
        "latencies": {name: _latency(one) for name, one in requests.latencies.items()},
        "preemptions": preemption_record(requests),
    }


def _latency(one: Durations) -> Record:
    percentiles = {f"p{percent}_sec": in_seconds(one.percentile_ns(percent)) for percent in PERCENTS}
    return {"count": one.count, "mean_sec": in_seconds(one.mean_ns), **percentiles}


def preemption_record(requests: RequestSummary) -> Record:
    """The keys that users know, then what each preemption cost."""
    found = requests.preemptions
    delays = known(one.delay_ns for one in found)
    return {
        "total_preemptions": max(len(found), requests.counted_preemptions) + requests.removed_preemptions,
        "total_requests": requests.requests + requests.removed_requests,
        "preemption_reasons": dict(sorted(Counter(one.reason for one in found).items())),
        "mean_running_time_before_preempt": mean(known(one.running_ns for one in found)),
        "mean_resume_delay": mean(delays),
        "max_resume_delay": in_seconds(max(delays, default=None)),
        "rows": len(found),
        "preempted_requests": len({one.request for one in found}),
        "outcomes": dict(sorted(Counter(one.outcome for one in found).items())),
        "lost_tokens": sum(known(one.lost_tokens for one in found)),
        "kept_tokens": sum(known(one.kept_tokens for one in found)),
        "recomputed_tokens": sum(known(one.recomputed_tokens for one in found)),
        "recompute_sec": in_seconds(sum(known(one.recompute_ns for one in found))),
    }


def known(values: Iterable[int | None]) -> list[int]:
    """Those that are not None."""
    return [value for value in values if value is not None]


def mean(values: list[int]) -> float | None:
    """Seconds."""
    return in_seconds(fmean(values)) if values else None


def lines(requests: Record) -> list[str]:
    """How many ended how, how long they took, and what preemptions cost."""
    if not requests.get("requests"):
        return ["no request was recorded"]
    reasons = ", ".join(
        f"{reason} {count_text(count)}" for reason, count in table_of(requests.get("by_reason")).items()
    )
    latencies = table_of(requests.get("latencies"))
    preemptions = table_of(requests.get("preemptions"))
    return [
        f"requests {count_text(requests.get('requests'))} ({reasons}); prompt tokens "
        f"{count_text(requests.get('prompt_tokens'))}, {count_text(requests.get('cached_tokens'))} of them cached; "
        f"output tokens {count_text(requests.get('output_tokens'))}",
        *(_latency_line(words, table_of(latencies.get(name))) for name, words in NAMES.items()),
        *_preemption_lines(preemptions),
    ]


def _latency_line(words: str, latency: Record) -> str:
    if not latency.get("count"):
        return f"{words}: not known of any request"
    parts = [f"p{percent} {seconds_text(latency.get(f'p{percent}_sec'))}" for percent in PERCENTS]
    return f"{words}: {', '.join(parts)} (over {count_text(latency.get('count'))} requests)"


def _preemption_lines(preemptions: Record) -> list[str]:
    total = preemptions.get("total_preemptions")
    if not total:
        return ["preemptions 0"]
    return [
        f"preemptions {count_text(total)}, requests preempted {count_text(preemptions.get('preempted_requests'))}: lost "
        f"{count_text(preemptions.get('lost_tokens'))} tokens, {count_text(preemptions.get('recomputed_tokens'))} computed "
        f"again in {seconds_text(preemptions.get('recompute_sec'))}; resumed after "
        f"{seconds_text(preemptions.get('mean_resume_delay'))} on average, "
        f"{seconds_text(preemptions.get('max_resume_delay'))} at most"
    ]


def preemption_summary(record: Record) -> str:
    """preemption_summary.json."""
    requests = table_of(table_of(record.get("summary")).get("requests"))
    latencies: dict[str, Any] = table_of(requests.get("latencies"))
    return json.dumps({**table_of(requests.get("preemptions")), **latencies}, indent=1) + "\n"
