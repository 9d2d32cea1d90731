"""Tables of the encoder tracker."""

from profilemate.schema.table import Table, fields

PASSES = Table(
    "encoder_passes",
    "One row per serving encoder pass: one call that encodes all items that an engine step scheduled. The columns that end "
    "in _so_far are cumulative, so that the last row has the totals whatever was removed before it.",
    fields(
        ("time_ns", "int", "when the encoder pass began, monotonic clock"),
        (
            "step",
            "int",
            "number of the execute_model call in this process while serving; empty where nothing counts them",
        ),
        ("number", "int", "number of the encoder pass in this process, from 1"),
        ("items", "int", "images, audios, videos that were encoded; what came from the encoder cache is not"),
        ("tokens", "int", "embeddings that the encoder gives for them; empty where this vLLM does not tell"),
        ("requests", "int", "requests whose items were scheduled; empty where this vLLM does not tell"),
        ("modality", "str", "of the items, joined by + where there are several"),
        ("host_ns", "int", "host time of the call: batching and launch on a GPU, its whole duration on a CPU"),
        ("graph_hits", "int", "items that replayed an encoder graph; empty where no graph manager was asked"),
        ("graph_misses", "int", "items that it ran without a graph, none being large enough"),
        ("clock", "str", "monotonic, or cuda_event where a device time follows in encoder_latencies"),
        ("items_so_far", "int", "sum of items"),
        ("tokens_so_far", "int", "sum of tokens"),
        ("requests_so_far", "int", "sum of requests"),
        ("graph_hits_so_far", "int", "sum of graph_hits"),
        ("graph_misses_so_far", "int", "sum of graph_misses"),
    ),
)

LATENCIES = Table(
    "encoder_latencies",
    "Device time of encoder passes, read from CUDA event pairs within a second or two.",
    fields(
        ("number", "int", "joins encoder_passes.number"),
        ("device_ns", "int", "time between the two events on the device"),
    ),
)

TABLES = (PASSES, LATENCIES)
