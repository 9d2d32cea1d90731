"""Tables of the engine step tracker. The row of a step is written when its output was processed."""

from profilemate.schema.step_table import step_table
from profilemate.schema.table import Table, fields

ENGINE = ("engine", "int", "which scheduler of this process, from 0; one unless a process holds several engines")

NO_WORK = "no_work"
TOKEN_BUDGET = "token_budget"
SEQUENCE_CAP = "sequence_cap"
KV_SPACE = "kv_space"
THROTTLED = "throttled"
OTHER = "other"
LIMITS = (NO_WORK, TOKEN_BUDGET, SEQUENCE_CAP, KV_SPACE, THROTTLED, OTHER)
"""What kept a step from taking more; `limit.py` has the evidence for each."""

STEPS = step_table(
    "One engine step: what was scheduled, seen when Scheduler.schedule returned, and where the engine's thread was. The "
    "five times that end in the row (schedule_ns, between_ns, no_requests_ns, blocked_ns, update_ns) add up to the wall "
    "time of the engine's thread, dummy batches apart.",
    "update_ns",
    ("scheduled_ns", "int", "when Scheduler.schedule was called, monotonic clock"),
    ("schedule_ns", "int", "time in Scheduler.schedule"),
    ("running", "int", "requests in the running queue after scheduling"),
    ("waiting", "int", "requests that wait after scheduling, skipped ones included"),
    (
        "skipped",
        "int",
        "of these, requests that scheduling could not take and passed over (grammar not ready, remote KV, LoRA slots)",
    ),
    ("step_requests", "int", "requests in the batch"),
    ("step_tokens", "int", "tokens in the batch, drafted and recomputed ones included; 0 is an idle step"),
    (
        "context_requests",
        "int",
        "of the requests, those still in prefill, as vLLM's compute_iteration_details counts: new ones and those without "
        "an output token; empty under vLLM 0.11",
    ),
    ("context_tokens", "int", "their tokens; the rest of step_tokens is of decode (generation) requests"),
    (
        "recomputed_tokens",
        "int",
        "tokens below the num_computed_tokens that a request had when it was preempted, computed once more; empty under "
        "vLLM 0.11",
    ),
    ("step_preempted", "int", "requests preempted since the step before was scheduled; empty under vLLM 0.11"),
    ("limit", "str", "what kept the step from taking more: " + ", ".join(LIMITS)),
    ("free_blocks", "int", "free KV blocks after scheduling, those with cached content included"),
    ("max_requests", "int", "max_num_seqs"),
    ("max_step_tokens", "int", "max_num_batched_tokens"),
    ("usable_blocks", "int", "num_gpu_blocks - 1"),
    (
        "model_ns",
        "int",
        "end of schedule to beginning of update_from_output: the model, and with async scheduling what the thread did for "
        "other steps meanwhile",
    ),
    (
        "blocked_ns",
        "int",
        "beginning of update_from_output since the thread last scheduled or updated: it launched the model or waited for it",
    ),
    ("update_ns", "int", "time in Scheduler.update_from_output"),
    (
        "between_ns",
        "int",
        "since the row before: time before a schedule call that was neither scheduling, waiting for the model nor update",
    ),
    ("no_requests_ns", "int", "the same where the scheduler held no request when that time began"),
    ("step_finished", "int", "requests that ended since the row before, aborted ones included"),
    ("drafted_tokens", "int", "draft tokens verified, as vllm:spec_decode_num_draft_tokens"),
    ("accepted_tokens", "int", "of these, accepted"),
    ("in_flight", "int", "steps that were scheduled and whose output had not been processed at this row"),
)  # fmt: skip

COUNTS = (
    "busy_steps", "step_tokens", "step_requests", "context_requests", "context_tokens", "recomputed_tokens",
    "step_preempted", "step_finished", "drafted_tokens", "accepted_tokens", "schedule_ns", "blocked_ns", "update_ns",
    "between_ns", "no_requests_ns", *LIMITS,
)  # fmt: skip
"""What is summed over steps; a limit counts the steps that it bound, busy or not."""

TOTALS = Table(
    "engine_step_totals",
    "Sums over the steps of an engine so far, written before old rows of engine_steps are removed; the newest row counts.",
    fields(
        ("time_ns", "int", "monotonic clock"),
        ENGINE,
        ("through_step", "int", "the last step that is in the sums"),
        *((name, "int", f"sum of {name}, or steps that it bound") for name in COUNTS),
    ),
)

UNFINISHED = Table(
    "engine_steps_unfinished",
    "Steps that were scheduled and whose output was never processed.",
    fields(
        ("time_ns", "int", "when that was known, monotonic clock"),
        ENGINE,
        ("scheduled_ns", "int", "when Scheduler.schedule was called, monotonic clock"),
        ("number", "int", "number of the schedule call of this engine, from 1"),
        ("limit", "str", "as in engine_steps"),
        (
            "reason",
            "str",
            "engine_dead (its loop ended by an exception), overtaken (a later step's output came), dropped (vLLM threw the "
            "batch away), forgotten (too many were in flight)",
        ),
    ),
)

DUMMY_STEPS = Table(
    "engine_dummy_steps",
    "Dummy batches that a data-parallel engine without work runs beside the others; they have no row in engine_steps.",
    fields(
        ("time_ns", "int", "end of execute_dummy_batch, monotonic clock"),
        ENGINE,
        ("dummy_step", "int", "number of the engine's dummy batch, from 1"),
        ("duration_ns", "int", "time in EngineCore.execute_dummy_batch"),
    ),
)

TABLES = (STEPS, TOTALS, UNFINISHED, DUMMY_STEPS)
