"""The README's files about requests and preemptions, and what else the reading half shows of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from profilemate.export.cells import number, seconds, word
from profilemate.session.session import Session
from profilemate.trackers.requests.analyze import RequestSummary, analyze
from profilemate.trackers.requests.join import lives
from profilemate.trackers.requests.life import Life, Preemption
from profilemate.trackers.requests.summary import lines, preemption_summary, request_record
from profilemate.trackers.view import Cells, CsvFile, TextFile, View


def _lifecycle(session: Session, requests: RequestSummary, counted: Counter[str]) -> Iterator[Cells]:
    return (_life_cells(life) for life in lives(session))


def _life_cells(life: Life) -> Cells:
    preempted = life.preempted
    resumed = [one.resumed_ns for one in preempted if one.resumed_ns is not None]
    total_ns = None
    if life.scheduled_ns is not None and life.finished_ns is not None:
        total_ns = life.finished_ns - life.scheduled_ns
    return (
        word(life.request), seconds(life.scheduled_ns), seconds(preempted[0].time_ns if preempted else None),
        seconds(resumed[-1] if resumed else None), seconds(life.finished_ns), seconds(total_ns),
        seconds(life.preemption_delay_ns),
        seconds(life.arrival_ns), seconds(life.queued_ns), seconds(life.scheduled_ns), seconds(life.first_token_ns),
        seconds(life.last_token_ns), number(life.prompt_tokens), number(life.cached_tokens), number(life.output_tokens),
        number(life.prefill_steps), str(life.preemptions), word(life.finish_reason), number(life.priority),
        seconds(life.whole_queue_ns), seconds(life.queue_ns), seconds(life.ttft_ns), seconds(life.tpot_ns),
        seconds(life.prefill_ns), seconds(life.decode_ns), seconds(life.inference_ns), seconds(life.e2e_ns),
        seconds(life.submit_ns), seconds(life.rest_ns), word(life.external),
        "vllm" if life.has_statistics else "profilemate", str(life.is_counted), number(life.engine),
    )  # fmt: skip


LIFECYCLE = (
    "request_id", "started_sec", "preempted_sec", "resumed_sec", "finished_sec", "total_time_sec", "preemption_delay_sec",
    "arrival_sec", "queued_sec", "first_scheduled_sec", "first_token_sec", "last_token_sec", "prompt_tokens",
    "cached_tokens", "output_tokens", "prefill_chunks", "preemptions", "finish_reason", "priority",
    "queue_time_frontend_sec", "queue_time_scheduler_sec", "ttft_sec", "tpot_sec", "prefill_time_sec", "decode_time_sec",
    "inference_time_sec", "e2e_latency_sec", "submit_time_sec", "rest_time_sec", "external_id", "measured_by",
    "counted_by_vllm", "engine",
)  # fmt: skip


def _preemptions(session: Session, requests: RequestSummary, counted: Counter[str]) -> Iterator[Cells]:
    return (_preemption_cells(one) for one in requests.preemptions)


def _preemption_cells(one: Preemption) -> Cells:
    return (
        seconds(one.time_ns), word(one.request), "preempted", word(one.reason), seconds(one.running_ns), word(one.outcome),
        number(one.step), str(one.number), word(one.for_request), number(one.asked_tokens), number(one.free_blocks),
        number(one.lost_tokens), seconds(one.resumed_ns), seconds(one.delay_ns), number(one.kept_tokens),
        number(one.recomputed_tokens), seconds(one.recovered_ns), seconds(one.recompute_ns), str(one.engine),
    )  # fmt: skip


PREEMPTIONS = (
    "timestamp_sec", "request_id", "event", "reason", "running_time_sec", "extra_info", "step", "number", "for_request_id",
    "asked_tokens", "free_blocks", "lost_tokens", "resumed_sec", "resume_delay_sec", "kept_tokens", "recomputed_tokens",
    "recovered_sec", "recompute_time_sec", "engine",
)  # fmt: skip


def _notes(requests: RequestSummary, counted: Counter[str]) -> list[str]:
    count = requests.requests
    said = (
        (requests.unfinished, "not over when the recording ended, or their end was not recorded"),
        (
            requests.end_not_kept,
            "ended, and the rows of their ends are lost: their own rows say unfinished, latencies and output tokens lack them",
        ),
        (
            requests.without_statistics,
            "without vLLM's own statistics (its log stats are off): their moments are those that the scheduler's hooks saw, "
            "and time to first token ends in the scheduler",
        ),
        (requests.without_front_end, "known to the scheduler alone, so that their arrival is not known"),
        (requests.without_scheduler, "known to the front end alone"),
        (
            requests.backwards,
            "with a latency below 0, which counts as 0: a wall clock was set back while they ran, or the clocks of two "
            "hosts differ; percentiles are too low",
        ),
    )
    notes = [f"requests: {some} of {count} {what}" for some, what in said if some]
    unseen = requests.counted_preemptions - len(requests.preemptions)
    if unseen > 0:
        notes.append(f"preemption_events.csv lacks preemptions that the requests tell of ({unseen}): no hook saw them")
    if requests.removed_requests or requests.removed_preemptions:
        notes.append(
            f"the size cap took the rows of {requests.removed_requests} requests and {requests.removed_preemptions} "
            "preemptions; latencies and sums are over those that are left"
        )
    return notes


CSV_FILES = (
    CsvFile("request_lifecycle.csv", LIFECYCLE, _lifecycle, "no request was recorded", is_per_event=True),
    CsvFile("preemption_events.csv", PREEMPTIONS, _preemptions, "no request was preempted", is_per_event=True),
)

VIEW = View(
    "Requests", analyze, CSV_FILES, request_record, lines, num_short_lines=3,
    text_files=(TextFile("preemption_summary.json", preemption_summary),), notes=_notes,
)  # fmt: skip
