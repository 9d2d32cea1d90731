"""vLLM's configuration, ProfileMate's settings, the processes."""

from __future__ import annotations

import json
from typing import Any

from profilemate.report.model import Column, Grid, Part
from profilemate.report.sections.section import SESSION, Section
from profilemate.report.source import Source
from profilemate.session.records import items_of, table_of, text


def build(source: Source) -> Part:
    """Three tables, in vLLM's and ProfileMate's own names."""
    grids = (
        _named("vLLM's configuration", source.record.get("engine_configuration"), "of the first engine"),
        _processes(source),
        _named("ProfileMate's settings", source.record.get("settings"), ""),
    )
    return Part(grids=tuple(grid for grid in grids if grid.rows))


def _named(caption: str, values: Any, note: str) -> Grid:
    rows = tuple((text(name), shown(value)) for name, value in table_of(values).items())
    return Grid(caption, (Column("Name"), Column("Value")), rows, note)


def shown(value: Any) -> str:
    """A value as a person writes it: lists without brackets, nested things as JSON."""
    if isinstance(value, list) and not any(isinstance(item, (dict, list)) for item in value):
        return ", ".join(text(item) for item in value)
    if isinstance(value, (dict, list)):
        return text(json.dumps(value, default=str))
    return "none" if value is None else text(value)


def _processes(source: Source) -> Grid:
    rows = []
    for process in map(table_of, items_of(source.record.get("processes"))):
        versions = table_of(process.get("versions"))
        ranks = ", ".join(f"{text(group)} {rank}" for group, rank in table_of(process.get("ranks")).items())
        names = ("vllm", "torch", "python", "profilemate")
        rows.append(
            (
                text(process.get("role")), text(process.get("host")), text(process.get("pid")), ranks,
                *(text(versions.get(name)) for name in names),
            )
        )  # fmt: skip
    columns = ("Role", "Host", "Process id", "Ranks", "vLLM", "torch", "Python", "ProfileMate")
    return Grid("Processes", tuple(Column(title) for title in columns), tuple(rows))


SECTION = Section("settings", "Settings and configuration", SESSION, build)
