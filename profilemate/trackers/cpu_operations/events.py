"""Tables of the CPU operation tracker."""

from profilemate.schema.table import Table, fields

TOTALS = Table(
    "cpu_operations",
    "Each operation of this process, cumulative: the last row has all calls up to its time. Rows come at first once a second "
    "and then ever more rarely. Runs that vLLM makes for itself (warm-up, dummy) are not counted.",
    fields(
        ("time_ns", "int", "monotonic clock; calls that ended before it are counted"),
        ("operation", "str", "see operations.py"),
        ("calls", "int", "calls that returned"),
        ("total_ns", "int", "their time, with what is nested in it"),
        ("squares_us2", "int", "sum of their squares, in square microseconds, for the standard deviation"),
        ("min_ns", "int", "the shortest"),
        ("max_ns", "int", "the longest"),
        ("histogram", "str", "their durations; see histogram.py"),
    ),
)

ROWS = Table(
    "cpu_operation_rows",
    "Every n-th call of each operation, PROFILEMATE_CPU_OPERATION_ROWS_EVERY.",
    fields(
        ("time_ns", "int", "when the call began, monotonic clock"),
        ("operation", "str", "see operations.py"),
        ("duration_ns", "int", "how long it took, with what is nested in it"),
        ("call", "int", "its number among the calls of this operation in this process, from 1"),
        ("amount", "int", "tokens, outputs or bytes, by the operation; empty where it counts none"),
    ),
)

TABLES = (TOTALS, ROWS)
