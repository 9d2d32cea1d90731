"""What the summary says about requests: as plain data for metadata.json, as lines for people, and the preemptions' own file."""

from __future__ import annotations

import json
from collections import Counter
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


class _Known:
    """Values that may be None: those that are not are counted and added up."""

    def __init__(self) -> None:
        self.count = self.total = 0
        self.most: int | None = None

    def add(self, value: int | None) -> None:
        if value is not None:
            self.count += 1
            self.total += value
            self.most = value if self.most is None else max(self.most, value)

    @property
    def mean_seconds(self) -> float | None:
        """Of nanoseconds."""
        return in_seconds(float(self.total) / self.count) if self.count else None


ADDED = ("running_ns", "delay_ns", "lost_tokens", "kept_tokens", "recomputed_tokens", "recompute_ns")


def preemption_record(requests: RequestSummary) -> Record:
    """The keys that users know, then what each preemption cost."""
    known = {name: _Known() for name in ADDED}
    reasons: Counter[str] = Counter()
    outcomes: Counter[str] = Counter()
    for one in requests.preemptions:
        reasons[one.reason] += 1
        outcomes[one.outcome] += 1
        for name, values in known.items():
            values.add(getattr(one, name))
    rows = len(requests.preemptions)
    return {
        "total_preemptions": max(rows, requests.counted_preemptions) + requests.removed_preemptions,
        "total_requests": requests.requests + requests.removed_requests,
        "preemption_reasons": dict(sorted(reasons.items())),
        "mean_running_time_before_preempt": known["running_ns"].mean_seconds,
        "mean_resume_delay": known["delay_ns"].mean_seconds,
        "max_resume_delay": in_seconds(known["delay_ns"].most),
        "rows": rows,
        "preempted_requests": requests.preempted_requests,
        "outcomes": dict(sorted(outcomes.items())),
        "lost_tokens": known["lost_tokens"].total,
        "kept_tokens": known["kept_tokens"].total,
        "recomputed_tokens": known["recomputed_tokens"].total,
        "recompute_sec": in_seconds(known["recompute_ns"].total),
    }


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
