"""What the summary says about engine steps: as plain data for metadata.json, and as lines for people."""

from __future__ import annotations

import json
from typing import Any

from profilemate.export.values import in_seconds, rounded
from profilemate.export.words import count_text, seconds_text, share_text
from profilemate.session.durations import Durations
from profilemate.session.records import table_of
from profilemate.trackers.engine_steps.analyze import DECODE, IDLE, MIXED, PREFILL, StepSummary
from profilemate.trackers.engine_steps.events import LIMITS
from profilemate.trackers.view import Record

PERCENTILES = (50, 95, 99)
LIMIT_WORDS = {
    "no_work": "no more work", "token_budget": "token budget", "sequence_cap": "sequence cap", "kv_space": "KV space",
    "throttled": "throttled", "other": "other",
}  # fmt: skip


def steps_record(steps: StepSummary) -> Record:
    """The earlier tool's keys first; percent of the caps, counts, seconds and milliseconds."""
    totals = steps.totals
    working = totals.working_ns
    busy = [step for step in steps.phases if step not in (IDLE, "")]
    with_prefill = steps.phases[PREFILL] + steps.phases[MIXED]
    return {
        "total_samples": totals.steps,
        "mean_seq_utilization_pct": _percent(totals.step_requests, steps.request_room),
        "mean_token_utilization_pct": _percent(totals.step_tokens, steps.token_room),
        "underutilization_events": steps.under_used if busy else None,
        "prefill_avg_utilization": _percent(steps.prefill_token_use, with_prefill),
        "decode_avg_utilization": _percent(steps.decode_request_use, steps.phases[DECODE]),
        "max_num_seqs": steps.most_requests,
        "max_tokens": steps.most_tokens,
        "busy_steps": totals.busy_steps,
        "steps_by_phase": {phase or "unknown": count for phase, count in sorted(steps.phases.items())},
        "scheduled_tokens": totals.step_tokens,
        "prefill_requests": totals.context_requests,
        "prefill_tokens": totals.context_tokens,
        "decode_requests": totals.step_requests - totals.context_requests,
        "decode_tokens": totals.step_tokens - totals.context_tokens,
        "recomputed_tokens": totals.recomputed_tokens,
        "preempted": totals.step_preempted,
        "finished": totals.step_finished,
        "drafted_tokens": totals.drafted_tokens,
        "accepted_tokens": totals.accepted_tokens,
        "steps_by_limit": {limit: getattr(totals, limit) for limit in LIMITS},
        "share_by_limit": {limit: _share(getattr(totals, limit), totals.steps) for limit in LIMITS},
        "scheduling_ms": _durations(steps.schedule),
        "update_ms": _durations(steps.update),
        "seconds": {
            "scheduling": in_seconds(totals.schedule_ns),
            "update": in_seconds(totals.update_ns),
            "waiting_for_model": in_seconds(totals.blocked_ns),
            "between_steps": in_seconds(totals.between_ns),
            "without_requests": in_seconds(totals.no_requests_ns),
            "dummy_batches": in_seconds(steps.dummy_ns),
        },
        "share_of_time_with_requests": {
            "scheduling": _share(totals.schedule_ns, working),
            "update": _share(totals.update_ns, working),
            "waiting_for_model": _share(totals.blocked_ns, working),
            "between_steps": _share(totals.between_ns, working),
        },
        "dummy_steps": steps.dummy_steps,
        "unfinished_steps": dict(sorted(steps.unfinished.items())),
        "in_flight_at_the_end": steps.left_in_flight,
        "rows": steps.rows,
    }


def _percent(part: float, whole: float) -> float | None:
    return round(100 * part / whole, 4) if whole else None


def _share(part: float, whole: float) -> float | None:
    return rounded(part / whole) if whole else None


def _durations(durations: Durations) -> Record:
    mean = durations.mean_ns
    found = {f"p{percent}": durations.percentile_ns(percent) for percent in PERCENTILES}
    milliseconds = {"mean": mean, **found, "max": durations.max_ns if durations.count else None}
    return {name: None if ns is None else round(ns / 1e6, 6) for name, ns in milliseconds.items()}


def step_lines(record: Record) -> list[str]:
    """Steps and what bound them, where the time went, prefill and decode."""
    if not record.get("total_samples"):
        return ["no engine step was recorded"]
    steps, busy = record.get("total_samples"), record.get("busy_steps")
    limits, share = table_of(record.get("steps_by_limit")), table_of(record.get("share_of_time_with_requests"))
    seconds = table_of(record.get("seconds"))
    bound = ", ".join(
        f"{LIMIT_WORDS[name]} {share_text(limits.get(name), steps)}" for name in LIMITS if limits.get(name)
    )
    lines = [
        f"{count_text(steps)} steps, {count_text(busy)} with tokens; bound by {bound}",
        f"engine time: waiting for the model {share_text(share.get('waiting_for_model'), 1)}, "
        f"scheduling {share_text(share.get('scheduling'), 1)}, update {share_text(share.get('update'), 1)}, "
        f"between steps {share_text(share.get('between_steps'), 1)}; "
        f"without requests {seconds_text(seconds.get('without_requests'))}",
        f"prefill {count_text(record.get('prefill_tokens'))} tokens, decode {count_text(record.get('decode_tokens'))}, "
        f"computed again after a preemption {count_text(record.get('recomputed_tokens'))}; "
        f"{count_text(record.get('preempted'))} preempted, {count_text(record.get('finished'))} finished",
        f"mean batch: {_number(record.get('mean_token_utilization_pct'))} of "
        f"{count_text(record.get('max_tokens'))} tokens, {_number(record.get('mean_seq_utilization_pct'))} of "
        f"{count_text(record.get('max_num_seqs'))} requests",
    ]
    for name, what in (("scheduling_ms", "scheduling"), ("update_ms", "update")):
        times = table_of(record.get(name))
        lines.append(
            f"{what}: median {_number(times.get('p50'), 'ms')}, 95 % within {_number(times.get('p95'), 'ms')}, "
            f"99 % within {_number(times.get('p99'), 'ms')}"
        )
    if record.get("drafted_tokens"):
        drafted, accepted = record.get("drafted_tokens"), record.get("accepted_tokens")
        lines.append(f"drafted tokens {count_text(drafted)}, accepted {share_text(accepted, drafted)}")
    if record.get("dummy_steps"):
        lines.append(
            f"dummy batches {count_text(record.get('dummy_steps'))}, {seconds_text(seconds.get('dummy_batches'))}"
        )
    return lines


def _number(value: Any, unit: str = "%") -> str:
    return f"{value:.3g} {unit}" if isinstance(value, (int, float)) else "unknown"


def batch_summary(record: Record) -> str:
    """batch_utilization_summary.json."""
    part = table_of(table_of(record.get("summary")).get("engine_steps"))
    return json.dumps(part, indent=1) + "\n"
