"""The README's files about engine steps, and what else the reading half shows of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from profilemate.export.cells import number, percent, seconds, word
from profilemate.session.session import Session
from profilemate.trackers.engine_steps.analyze import Step, StepSummary, analyze, steps
from profilemate.trackers.engine_steps.summary import batch_summary, step_lines, steps_record
from profilemate.trackers.view import Cells, CsvFile, TextFile, View

HEADER = (
    "timestamp_sec", "num_seqs", "max_num_seqs", "seq_utilization_pct", "num_tokens", "max_tokens",
    "token_utilization_pct", "phase", "running_queue_len", "waiting_queue_len",
    "skipped_queue_len", "binding_limit", "prefill_seqs", "prefill_tokens", "decode_seqs", "decode_tokens",
    "recomputed_tokens", "preempted_seqs", "finished_seqs", "kv_usage_pct", "drafted_tokens", "accepted_tokens",
    "scheduling_sec", "model_sec", "blocked_sec", "update_sec", "between_steps_sec", "no_requests_sec", "in_flight",
    "step", "engine",
)  # fmt: skip
"""The earlier tool's ten columns, then ours."""


def _rows(session: Session, summary: StepSummary, counted: Counter[str]) -> Iterator[Cells]:
    for step in steps(session, summary.spans):
        yield (
            seconds(step.time_ns if step.scheduled_ns is None else step.scheduled_ns), number(step.step_requests),
            number(step.max_requests), _share(step.step_requests, step.max_requests), number(step.step_tokens),
            number(step.max_step_tokens), _share(step.step_tokens, step.max_step_tokens), step.phase,
            number(step.running), number(step.waiting), number(step.skipped), word(step.limit),
            number(step.context_requests), number(step.context_tokens), number(step.decode_requests),
            number(step.decode_tokens), number(step.recomputed_tokens), number(step.step_preempted),
            number(step.step_finished), _kv_usage(step), number(step.drafted_tokens), number(step.accepted_tokens),
            seconds(step.schedule_ns), seconds(step.model_ns), seconds(step.blocked_ns), seconds(step.update_ns),
            seconds(step.between_ns), seconds(step.no_requests_ns), number(step.in_flight), number(step.step),
            str(step.engine),
        )  # fmt: skip


def _share(part: int | None, whole: int | None) -> str:
    return "" if part is None or whole is None else percent(part, whole)


def _kv_usage(step: Step) -> str:
    if step.free_blocks is None or step.usable_blocks is None:
        return ""
    return percent(step.usable_blocks - step.free_blocks, step.usable_blocks)


def _notes(summary: StepSummary, counted: Counter[str]) -> list[str]:
    notes = []
    if summary.is_capped:
        notes.append(
            f"engine steps: percentiles, phases and under-used steps are over the {summary.rows} newest steps, "
            "sums and limits over all"
        )
    if summary.unpaired:
        notes.append(f"engine steps: of {summary.unpaired} steps only the update was seen, so their batch is not known")
    if summary.unfinished:
        reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(summary.unfinished.items()))
        notes.append(
            f"engine steps: {summary.unfinished.total()} were scheduled and their output never came ({reasons})"
        )
    if summary.left_in_flight:
        notes.append(
            f"engine steps: {summary.left_in_flight} were in flight at the last row; what was scheduled after it was "
            "not recorded"
        )
    return notes


CSV_FILES = (CsvFile("batch_utilization.csv", HEADER, _rows, "no engine step was recorded", is_per_event=True),)

VIEW = View(
    "Engine steps", analyze, CSV_FILES, steps_record, step_lines, num_short_lines=3,
    text_files=(TextFile("batch_utilization_summary.json", batch_summary),), notes=_notes,
)  # fmt: skip
