"""The row of an engine step: one per step and engine, with the cells of every tracker that looks at the scheduler."""

from profilemate.schema.table import Table, fields

BASE = Table(
    "engine_steps",
    "One row per engine step, written when its output is processed; each tracker contributes its columns.",
    fields(
        ("time_ns", "int", "end of update_from_output, monotonic clock"),
        ("engine", "int", "which scheduler of this process, from 0; one unless a process holds several engines"),
        ("step", "int", "number of the finished engine step, from 1"),
    ),
)


def step_table(doc: str, present: str, *rows: tuple[str, str, str]) -> Table:
    """A tracker's part of the row, the common columns first. `present` is one that is never empty in its rows."""
    return Table(BASE.name, doc, BASE.fields + fields(*rows), present)
