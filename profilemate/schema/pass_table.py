"""The row of a forward pass: one per serving pass and worker, with the cells of every tracker that looks at passes."""

from profilemate.schema.table import Table, fields

BASE = Table(
    "forward_passes",
    "One row per serving forward pass of the main model, written when execute_model returns; each tracker contributes its "
    "columns.",
    fields(
        ("time_ns", "int", "when the forward pass began, monotonic clock"),
        ("step", "int", "number of the execute_model call in this process while serving, from 1"),
        ("forward", "int", "number of the serving forward pass in this process, from 1"),
        ("runtime_mode", "str", "FULL, PIECEWISE or NONE: the CUDAGraphMode that vLLM chose for the pass"),
        ("host_ns", "int", "host time of the forward pass: its launch on a GPU, its whole duration on a CPU"),
        ("clock", "str", "monotonic, or cuda_event where a device time follows in forward_latencies"),
    ),
)


def pass_table(doc: str, present: str, *rows: tuple[str, str, str]) -> Table:
    """A tracker's part of the row, the common columns first. `present` is one that is never empty in its rows."""
    return Table(BASE.name, doc, BASE.fields + fields(*rows), present)
