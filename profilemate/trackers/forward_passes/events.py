"""Tables of the forward pass tracker."""

from profilemate.schema.pass_table import pass_table
from profilemate.schema.table import Table, fields

PASSES = pass_table(
    "What was in a forward pass, and what the calls around it took.",
    "requests",
    (
        "phase",
        "str",
        "prefill (every request is in its context phase), decode (none is) or mixed; empty with vLLM 0.11, which does not tell",
    ),
    ("requests", "int", "scheduled requests"),
    ("tokens", "int", "scheduled tokens, padding not counted"),
    ("context_requests", "int", "of the requests, those in their context phase, as vLLM counts them"),
    ("context_tokens", "int", "of the tokens, theirs"),
    ("execute_ns", "int", "host time of execute_model: preparation, launch, logits"),
    ("sample_ns", "int", "host time of sample_tokens after the pass before this one; empty where there was none"),
)

LATENCIES = Table(
    "forward_latencies",
    "Device time of sampled forward passes, read from CUDA event pairs some steps later.",
    fields(
        ("forward", "int", "joins forward_passes.forward"),
        ("device_ns", "int", "time between the two events on the device"),
    ),
)

TOTALS = Table(
    "forward_totals",
    "Cumulative counts by phase, written before old rows are removed; the newest block counts.",
    fields(
        ("time_ns", "int", "monotonic clock; one block of rows has one time"),
        ("through_forward", "int", "counts forward passes up to this one"),
        ("phase", "str", "as in forward_passes"),
        ("passes", "int", "forward passes so far"),
        ("requests", "int", "sum over them"),
        ("tokens", "int", "sum over them"),
        ("context_tokens", "int", "sum over them"),
    ),
)

TABLES = (PASSES, LATENCIES, TOTALS)
