"""A request and a preemption as the reading half knows them; times in nanoseconds since the session began."""

from __future__ import annotations

from dataclasses import dataclass, field

REASONS = {
    "STOPPED": "stop",
    "LENGTH_CAPPED": "length",
    "ABORTED": "abort",
    "IGNORED": "length",
    "ERROR": "error",
    "REPETITION": "repetition",
}
"""The scheduler's statuses in the words of the front end, as in vLLM's own table."""

UNFINISHED = "unfinished"


def between(begin_ns: int | None, end_ns: int | None) -> int | None:
    """How long, where both are known."""
    return None if begin_ns is None or end_ns is None else end_ns - begin_ns


@dataclass(slots=True)
class Preemption:
    """One preemption. `started_ns` is when the run that it ended had begun."""

    time_ns: int
    request: str
    engine: int
    step: int | None
    number: int
    reason: str
    for_request: str
    asked_tokens: int | None
    lost_tokens: int | None
    free_blocks: int | None
    started_ns: int | None = None
    resumed_ns: int | None = None
    kept_tokens: int | None = None
    recomputed_tokens: int | None = None
    recovered_ns: int | None = None
    outcome: str = "preempted"
    """How far it got: preempted, resumed, recovered, cut_short (by another one, or its end), ended while preempted."""

    @property
    def running_ns(self) -> int | None:
        """How long it had run."""
        return between(self.started_ns, self.time_ns)

    @property
    def delay_ns(self) -> int | None:
        """How long it waited to run again."""
        return between(self.time_ns, self.resumed_ns)

    @property
    def recompute_ns(self) -> int | None:
        """From when it ran again until it had what it lost."""
        return between(self.resumed_ns, self.recovered_ns)


@dataclass(slots=True)
class Life:
    """What the front end and the scheduler know of one request. A moment that was not reached, or not seen, is None."""

    request: str
    external: str = ""
    engine: int | None = None
    arrival_ns: int | None = None
    queued_ns: int | None = None
    scheduled_ns: int | None = None
    first_token_ns: int | None = None
    last_token_ns: int | None = None
    end_ns: int | None = None
    freed_ns: int | None = None
    vllm_ttft_ns: int | None = None
    vllm_e2e_ns: int | None = None
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    output_tokens: int | None = None
    prefill_steps: int | None = None
    counted_preemptions: int | None = None
    priority: int | None = None
    reason: str = ""
    status: str = ""
    is_counted: bool = False
    has_statistics: bool = False
    """Whether the moments are those of vLLM's own statistics."""
    engine_offset_ns: int | None = None
    preempted: list[Preemption] = field(default_factory=list)

    @property
    def finish_reason(self) -> str:
        """The front end's, which knows of stop strings; else what the scheduler's status means."""
        return self.reason or REASONS.get(self.status, self.status.lower()) or UNFINISHED

    @property
    def preemptions(self) -> int:
        """As often as anybody knows of."""
        return max(len(self.preempted), self.counted_preemptions or 0)

    @property
    def finished_ns(self) -> int | None:
        """In the front end, else in the scheduler."""
        return self.freed_ns if self.end_ns is None else self.end_ns

    @property
    def preemption_delay_ns(self) -> int | None:
        """Time spent preempted, until it ran again or ended."""
        if not self.preempted:
            return None
        ends = [self.freed_ns if one.resumed_ns is None else one.resumed_ns for one in self.preempted]
        return sum(end - one.time_ns for one, end in zip(self.preempted, ends, strict=True) if end is not None)

    @property
    def submit_ns(self) -> int | None:
        """From arrival in the front end until it was in the scheduler."""
        return between(self.arrival_ns, self.queued_ns)

    @property
    def queue_ns(self) -> int | None:
        """In the scheduler's queue."""
        return between(self.queued_ns, self.scheduled_ns)

    @property
    def whole_queue_ns(self) -> int | None:
        """From arrival in the front end until it first ran."""
        return between(self.arrival_ns, self.scheduled_ns)

    @property
    def prefill_ns(self) -> int | None:
        """From its first schedule to its first token."""
        return between(self.scheduled_ns, self.first_token_ns)

    @property
    def decode_ns(self) -> int | None:
        """From its first token to its last."""
        return between(self.first_token_ns, self.last_token_ns)

    @property
    def inference_ns(self) -> int | None:
        """From its first schedule to its last token."""
        return between(self.scheduled_ns, self.last_token_ns)

    @property
    def ttft_ns(self) -> int | None:
        """Time to first token, as vLLM measured it in the front end; else until the scheduler had it."""
        return self.vllm_ttft_ns if self.vllm_ttft_ns is not None else between(self.arrival_ns, self.first_token_ns)

    @property
    def tpot_ns(self) -> int | None:
        """Mean time per output token without the first one, as vLLM defines it: 0 where there is no other."""
        if self.decode_ns is None or self.output_tokens is None:
            return None
        return round(self.decode_ns / (self.output_tokens - 1)) if self.output_tokens > 1 else 0

    @property
    def e2e_ns(self) -> int | None:
        """From arrival to the end in the front end."""
        return self.vllm_e2e_ns if self.vllm_e2e_ns is not None else between(self.arrival_ns, self.end_ns)

    @property
    def rest_ns(self) -> int | None:
        """From the last known moment to the end: delivery; of an aborted request, what it was waiting for.

        Below 0 where the engine went on with a request after its end in the front end, until it heard of the abort.
        """
        moments = (self.last_token_ns, self.first_token_ns, self.scheduled_ns, self.queued_ns, self.arrival_ns)
        return between(next((moment for moment in moments if moment is not None), None), self.finished_ns)
