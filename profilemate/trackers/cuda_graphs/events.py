"""Tables of the CUDA graph tracker."""

from profilemate.schema.pass_table import pass_table
from profilemate.schema.table import Table, fields

DESCRIPTOR = (
    ("runtime_mode", "str", "FULL, PIECEWISE or NONE: vLLM's CUDAGraphMode of this graph or forward pass"),
    ("num_tokens", "int", "tokens of the graph, that is after padding"),
    ("num_reqs", "int", "requests of the graph; empty where vLLM's is None (PIECEWISE, NONE)"),
    ("uniform", "bool", "every request has the same number of tokens (decode graphs)"),
    ("has_lora", "bool", "captured with LoRA"),
    ("num_active_loras", "int", "LoRA adapters of the graph; empty where this vLLM has no such field"),
    ("uniform_token_count", "int", "V2 runner: tokens per request of a uniform graph"),
    ("max_query_len", "int", "V2 runner: bound on tokens per request of a varlen decode graph"),
    ("num_ubatches", "int", "V2 runner: micro-batches of the graph"),
)
"""The fields of vLLM's BatchDescriptor (V1 runner) and BatchExecutionDescriptor (V2 runner), read by name."""

OWNER = ("owner", "str", "main, drafter, encoder or microbatch: whose graph it is")

CAPTURES = Table(
    "graph_captures",
    "One row per captured descriptor; the pieces of a PIECEWISE graph are counted, not listed.",
    fields(
        ("time_ns", "int", "when the first piece's capture began, monotonic clock"),
        (
            "purpose",
            "str",
            "serving, estimate (memory-estimate captures that vLLM throws away) or lazy (while serving)",
        ),
        OWNER,
        *DESCRIPTOR,
        ("duration_ns", "int", "time inside captures, summed over the pieces"),
        ("graphs", "int", "CUDA graphs captured: 1 for FULL, the number of pieces otherwise"),
        ("memory_bytes", "int", "device memory taken; empty where the device cannot tell"),
        ("site", "str", "the vLLM class that captured"),
    ),
)

PASSES = pass_table(
    "What vLLM asked for in a forward pass and which graph ran; runtime_mode is one of the common columns.",
    "graphs",
    *DESCRIPTOR[1:],
    ("unpadded_tokens", "int", "scheduled tokens"),
    ("unpadded_reqs", "int", "scheduled requests"),
    ("graphs", "int", "CUDA graphs replayed in this forward pass"),
    ("fault", "str", "empty, or why this row is not a plain pass: not_replayed, lazy_capture"),
)

OTHER_REPLAYS = Table(
    "graph_other_replays",
    "Replays while serving that are not the main model's forward pass: drafter, encoder, micro-batches.",
    fields(
        ("time_ns", "int", "monotonic clock"),
        ("step", "int", "number of the execute_model call, as in forward_passes"),
        OWNER,
        *DESCRIPTOR,
        ("graphs", "int", "CUDA graphs replayed"),
        ("host_ns", "int", "host time of the call"),
        ("site", "str", "the vLLM class that replayed"),
    ),
)

TOTALS = Table(
    "graph_totals",
    "Cumulative replays per descriptor, written before old rows of passes are removed; the newest block counts.",
    fields(
        ("time_ns", "int", "monotonic clock; one block of rows has one time"),
        ("through_forward", "int", "counts forward passes up to this one"),
        OWNER,
        *DESCRIPTOR,
        ("forwards", "int", "forward passes so far"),
        ("replays", "int", "of these, the passes that replayed a graph"),
        ("graphs", "int", "CUDA graphs replayed so far"),
        ("unpadded_tokens", "int", "sum over the passes that replayed"),
        ("padded_tokens", "int", "sum over the passes that replayed"),
        ("host_ns", "int", "sum over the passes that replayed"),
    ),
)

PHASES = Table(
    "graph_phases",
    "Replays by phase of the process, cumulative: serving apart from warm-up, dummy and profile runs.",
    fields(
        ("time_ns", "int", "monotonic clock"),
        ("phase", "str", "serving, warm_up, profile, estimate, capture or dummy"),
        ("explained", "int", "replays that a site of this tracker saw"),
        ("actual", "int", "replays counted at torch.cuda.CUDAGraph; empty unless the check mode is on"),
    ),
)

TABLES = (CAPTURES, PASSES, OTHER_REPLAYS, TOTALS, PHASES)
