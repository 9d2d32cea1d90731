"""In the front end: requests taken in and done with, from vLLM's own statistics of each request where it keeps them."""

from __future__ import annotations

from time import monotonic_ns, time_ns
from typing import Any

from profilemate.probe.process import THIS
from profilemate.probe.request_ids import written_id
from profilemate.trackers.requests import events
from profilemate.trackers.requests.state import TOTALS

ARRIVALS = THIS.writer.stream(events.ARRIVALS)
ENDS = THIS.writer.stream(events.ENDS)
ALL = (ARRIVALS, ENDS)
CLOCK_READINGS, ONE_MOMENT_NS = 5, 20_000
SET_NS = 10_000_000
"""Two readings of both clocks that differ by less are of a clock that nobody set."""


def both_clocks() -> tuple[int, int]:
    """The monotonic and the wall clock at one moment: read again where the process was interrupted in between."""
    for _ in range(CLOCK_READINGS):
        now, wall = monotonic_ns(), time_ns()
        if monotonic_ns() - now < ONE_MOMENT_NS:
            break
    return now, wall


class WallClock:
    """Puts moments of the wall clock that are not long ago on the monotonic clock.

    Where the wall clock was set since the last look (an operator's hour, once in `make soak` between vLLM's `arrival_time` and
    our hook), the moment is by the clock before or after that: it is the later one of both that is not to come.
    """

    __slots__ = ("ahead_ns",)
    ahead_ns: int | None
    """How far it was ahead of the monotonic clock at the last look."""

    def __init__(self) -> None:
        self.ahead_ns = None

    def on_monotonic_clock(self, wall_seconds: float, clocks: tuple[int, int]) -> int:
        """By `both_clocks()` of now."""
        now, wall = clocks
        before, self.ahead_ns = self.ahead_ns, wall - now
        moment = now - (wall - int(wall_seconds * 1e9))
        if before is None or -SET_NS < self.ahead_ns - before < SET_NS:
            return moment
        by_either = moment, moment + self.ahead_ns - before
        return max((found for found in by_either if found <= now + ONE_MOMENT_NS), default=moment)


WALL_CLOCK = WallClock()


def nanoseconds(seconds: float | None) -> int | None:
    """Of vLLM's statistics, in which 0 means that it has not happened."""
    return int(seconds * 1e9) if seconds else None


def request_comes(processor: Any, request: Any) -> bool:
    """Whether it is new: the next part of a streamed prompt comes the same way."""
    return request.request_id not in processor.request_states


def request_taken_in(is_new: bool, result: None, processor: Any, request: Any) -> None:
    """`add_request`. Its row is written at once: the process may be killed before the request has any output."""
    if not is_new:
        return
    clocks = now, _ = both_clocks()
    TOTALS.arrived += 1
    external = getattr(request, "external_req_id", None) or request.request_id
    state = processor.request_states.get(request.request_id)
    ARRIVALS.add(
        (now, written_id(request.request_id), written_id(external), WALL_CLOCK.on_monotonic_clock(request.arrival_time, clocks),
         getattr(state, "prompt_len", None), request.priority)
    )  # fmt: skip
    THIS.flush_step(ALL, now)


def request_finished(result: None, processor: Any, req_state: Any, finish_reason: Any, iteration_stats: Any) -> None:
    """`_update_stats_from_finished`: its last output was processed."""
    clocks = now, _ = both_clocks()
    if iteration_stats is None:
        add_end(req_state, str(finish_reason), now, now, None)
        return
    finished = iteration_stats.finished_requests[-1]
    add_end(
        req_state,
        str(finish_reason),
        now,
        WALL_CLOCK.on_monotonic_clock(iteration_stats.iteration_timestamp, clocks),
        finished,
    )


def add_end(req_state: Any, reason: str, now: int, end_ns: int, finished: Any) -> None:
    """The row of a request that is over; `finished` is what vLLM counted."""
    stats = req_state.stats
    TOTALS.ended += 1
    ENDS.add(
        (now, written_id(req_state.request_id), reason, finished is not None, end_ns,
         nanoseconds(getattr(finished, "e2e_latency", None)), *stats_cells(stats), getattr(req_state, "prompt_len", None),
         None if req_state.is_prefilling else getattr(req_state, "num_cached_tokens", None),
         generated(req_state, stats), getattr(stats, "num_preemptions", None))
    )  # fmt: skip


def stats_cells(stats: Any) -> tuple[int | None, ...]:
    """Cells from `ttft_ns` to `last_token_ns`; empty where vLLM runs without statistics."""
    return (
        nanoseconds(getattr(stats, "first_token_latency", None)),
        nanoseconds(getattr(stats, "queued_ts", None)),
        nanoseconds(getattr(stats, "scheduled_ts", None)),
        nanoseconds(getattr(stats, "first_token_ts", None)),
        nanoseconds(getattr(stats, "last_token_ts", None)),
    )


def generated(req_state: Any, stats: Any) -> int | None:
    """Output tokens, by vLLM's statistics or by its detokenizer."""
    if stats is not None:
        return int(stats.num_generation_tokens)
    count = getattr(req_state.detokenizer, "num_output_tokens", None)
    return None if count is None else int(count())


def abort_begins(processor: Any, request_ids: list[str]) -> dict[str, Any]:
    """The states of requests that may be aborted by these ids, which are vLLM's own or those that the client knows."""
    states = processor.request_states
    known = getattr(processor, "external_req_ids", {})
    found = {}
    for given in request_ids:
        for request_id in (given, *known.get(given, ())):
            if request_id in states:
                found[request_id] = states[request_id]
    return found


def requests_aborted(found: dict[str, Any], result: Any, processor: Any, request_ids: list[str]) -> None:
    """Those that are gone now were aborted. The children of a parent are by a call of their own."""
    now = monotonic_ns()
    for request_id, req_state in found.items():
        if request_id not in processor.request_states:
            add_end(req_state, "abort", now, now, None)
    if ENDS.pending:
        THIS.flush_step(ALL, now)


def engine_died(processor: Any) -> None:
    """`propagate_error`: every request that is not over fails."""
    now = monotonic_ns()
    for req_state in processor.request_states.values():
        add_end(req_state, "engine_died", now, now, None)
    THIS.flush_step(ALL, now)


def outputs_processed(result: Any) -> None:
    """`process_outputs`: the end of a batch of outputs."""
    if ENDS.pending:
        THIS.flush_step(ALL, monotonic_ns())
