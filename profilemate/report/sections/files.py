"""The files of the session, for who wants to go on with them."""

from __future__ import annotations

from profilemate.report.model import Column, Grid, Part
from profilemate.report.numbers import cell, in_byte_unit
from profilemate.report.sections.section import SESSION, Section
from profilemate.report.source import Source
from profilemate.session.records import table_of, text


def build(source: Source) -> Part:
    """Name, rows, size."""
    rows = []
    for name, num_rows in table_of(source.record.get("files")).items():
        rows.append((text(name), cell(num_rows), _size(source, text(name))))
    return Part(
        lead=(f"In {text(source.session.path)}",),
        grids=tuple(
            grid
            for grid in (
                Grid(
                    "CSV files",
                    (Column("File"), Column("Rows", True), Column("Size", True)),
                    tuple(rows),
                    "Beside them lie metadata.json, the summaries, and each process's own streams in processes/.",
                ),
            )
            if grid.rows
        ),
    )


def _size(source: Source, name: str) -> str:
    try:
        return " ".join(in_byte_unit((source.session.path / name).stat().st_size))
    except (OSError, ValueError):
        return ""


SECTION = Section("files", "Files", SESSION, build)
