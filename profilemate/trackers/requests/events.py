"""Tables of the request tracker. Ids are those inside vLLM, as written_id writes them; times are monotonic nanoseconds.

vLLM gives a request that it takes in an id of its own (what the client said and a random suffix), and one such id to each
of the n of parallel sampling. The front end and the scheduler know it by that id.
"""

from profilemate.schema.table import Table, fields

TIME = ("time_ns", "int", "monotonic clock of this process")
ENGINE = ("engine", "int", "which scheduler of this process, from 0; one unless a process holds several engines")
STEP = ("step", "int", "number of the engine step, as in engine_steps")
REQUEST = ("request", "str", "the request's id inside vLLM, hashed unless a setting shows it")

ARRIVALS = Table(
    "request_arrivals",
    "One row per request that a front end takes in, one for each of the n of parallel sampling.",
    fields(
        TIME,
        REQUEST,
        ("external", "str", "id that the client knows, hashed in the same way; the same for all of the n"),
        (
            "arrival_ns",
            "int",
            "vLLM's arrival_time, a wall clock, put on the monotonic clock with both read at this row",
        ),
        ("prompt_tokens", "int", "tokens of the prompt"),
        ("priority", "int", "as the client asked"),
    ),
)

ENDS = Table(
    "request_ends",
    "One row per request that a front end is done with: finished, aborted, or lost with its engine.",
    fields(
        TIME,
        REQUEST,
        ("reason", "str", "stop, length, abort, error, repetition; engine_died"),
        ("is_counted", "bool", "whether vLLM counted it among its finished requests; it does not count aborted ones"),
        ("end_ns", "int", "the moment that vLLM takes for the end: when this batch of outputs came in"),
        ("e2e_ns", "int", "vLLM's end-to-end latency, by the wall clock"),
        ("ttft_ns", "int", "vLLM's time to first token, by the wall clock"),
        ("queued_ns", "int", "vLLM's timestamps on the engine core's monotonic clock: added to the scheduler,"),
        ("scheduled_ns", "int", "beginning of the schedule() that first ran it,"),
        ("first_token_ns", "int", "end of the engine step that gave its first token,"),
        ("last_token_ns", "int", "and of the one that gave its last"),
        ("prompt_tokens", "int", "tokens of the prompt"),
        ("cached_tokens", "int", "of these, found in a prefix cache"),
        ("output_tokens", "int", "tokens generated"),
        ("preemptions", "int", "as the front end heard of them"),
    ),
)

IN_ENGINE = Table(
    "engine_requests",
    "In the scheduler: a row when the prefill of a request is over, and one when the scheduler is done with it, which has "
    "the cells of the former as well if that was not written.",
    fields(
        TIME,
        ENGINE,
        STEP,
        REQUEST,
        ("event", "str", "prefilled or finished"),
        ("queued_ns", "int", "added to the scheduler"),
        (
            "scheduled_ns",
            "int",
            "beginning of the schedule() that first ran it; its end where vLLM keeps no statistics",
        ),
        ("first_token_ns", "int", "end of update_from_output of the step that gave its first token"),
        ("prompt_tokens", "int", "tokens of the prompt"),
        ("cached_tokens", "int", "of these, found computed when it was first scheduled"),
        (
            "prefill_steps",
            "int",
            "steps that ran it in its context phase; add up where a request has several such rows",
        ),
        ("output_tokens", "int", "tokens generated"),
        ("preemptions", "int", "how often it was preempted"),
        ("priority", "int", "as the client asked"),
        (
            "status",
            "str",
            "vLLM's status without FINISHED_: STOPPED, LENGTH_CAPPED, ABORTED, IGNORED, ERROR, REPETITION",
        ),
    ),
)

PREEMPTIONS = Table(
    "preemptions",
    "A row when a running request is preempted, one when it runs again, and one when it has again what it lost (recovered), "
    "or is preempted again or ends before that (cut_short).",
    fields(
        TIME,
        ENGINE,
        STEP,
        REQUEST,
        ("event", "str", "preempted, resumed, recovered or cut_short"),
        ("number", "int", "of this request, from 1: which of its preemptions the row is about"),
        ("reason", "str", "no_blocks (allocate_slots found no room in this schedule), prefix_cache_reset, other"),
        ("for_request", "str", "the request for which there was no room"),
        ("asked_tokens", "int", "tokens for which it asked room in this step"),
        ("lost_tokens", "int", "computed tokens whose KV cache went, tokens in flight included"),
        ("free_blocks", "int", "free blocks just before the preemption freed some"),
        (
            "kept_tokens",
            "int",
            "when resumed: tokens found computed, still in the prefix cache or loaded from elsewhere",
        ),
        ("recomputed_tokens", "int", "lost tokens computed again"),
    ),
)

TOTALS = Table(
    "request_totals",
    "Cumulative counts of this process, written before old rows are removed; the newest row counts.",
    fields(
        TIME,
        ("arrived", "int", "requests taken in by the front end"),
        ("ended", "int", "requests that the front end was done with"),
        ("freed", "int", "requests that the scheduler was done with"),
        ("preempted", "int", "preemptions"),
    ),
)

TABLES = (ARRIVALS, ENDS, IN_ENGINE, PREEMPTIONS, TOTALS)
