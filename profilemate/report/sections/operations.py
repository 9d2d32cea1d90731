"""Python around the model: operations of the engine and its workers."""

from __future__ import annotations

from profilemate.report.model import Column, Grid, Numbers, Part
from profilemate.report.numbers import cell, count, duration, percent
from profilemate.report.sections.section import SERVER, Section
from profilemate.report.source import Source
from profilemate.session.records import table_of, text


def build(source: Source) -> Part:
    """Python's share of the step and a table of operations, those that took most first."""
    record = source.tracker("cpu_operations")
    if not record:
        return Part(lead=("Off by setting; PROFILEMATE_TRACKERS=default,cpu_operations times them.",))
    total = record.get("step_total_ms")
    parts = table_of(record.get("python_share_by_part"))
    overlap = "overlaps the model" if record.get("async_scheduling") else ""
    return Part(
        numbers=(
            Numbers(
                "Engine steps on the clock",
                (
                    count("Steps", record.get("steps")),
                    duration("Time", total / 1e3 if isinstance(total, (int, float)) else None),
                    percent("Python", record.get("python_share"), overlap),
                ),
            ),
            Numbers("Python by part", tuple(percent(text(name).capitalize(), share) for name, share in parts.items())),
        ),
        grids=tuple(grid for grid in (_operations(source),) if grid.rows),
    )


def _operations(source: Source) -> Grid:
    operations = {
        name: table_of(one) for name, one in table_of(source.tracker("cpu_operations").get("operations")).items()
    }
    ordered = sorted(operations.items(), key=lambda pair: -float(pair[1].get("own_total_ms") or 0))
    rows = tuple(
        (
            text(name), text(one.get("role")), text(one.get("what")), cell(one.get("count")), cell(one.get("own_total_ms")),
            *(cell(one.get(f"{key}_ms")) for key in ("mean", "p50", "p95", "p99")),
        )
        for name, one in ordered
    )  # fmt: skip
    columns = (
        Column("Operation"), Column("Process"), Column("What it is"), Column("Calls", True), Column("Own time (ms)", True),
        *(Column(f"{name} (ms)", True) for name in ("Mean", "p50", "p95", "p99")),
    )  # fmt: skip
    return Grid("Operations", columns, rows, "Percentiles are off by at most 0.8 % of themselves; all else is exact.")


SECTION = Section("operations", "Python operations", SERVER, build)
