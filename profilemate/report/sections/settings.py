"""vLLM's configuration, ProfileMate's settings, the processes."""

from __future__ import annotations

from typing import Any

from profilemate.report.model import Column, Grid, Part
from profilemate.report.numbers import in_byte_unit
from profilemate.report.sections.section import SESSION, Section
from profilemate.report.source import Source
from profilemate.session.records import items_of, table_of, text

KIB = 1024


def build(source: Source) -> Part:
    """Three tables, in vLLM's and ProfileMate's own names."""
    grids = (
        _named("vLLM's configuration", source.record.get("engine_configuration"), "of the first engine"),
        _processes(source),
        _named("ProfileMate's settings", source.record.get("settings"), ""),
    )
    return Part(grids=tuple(grid for grid in grids if grid.rows))


def _named(caption: str, values: Any, note: str) -> Grid:
    rows = tuple((text(name), shown(value, name)) for name, value in table_of(values).items())
    return Grid(caption, (Column("Name"), Column("Value")), rows, note)


def shown(value: Any, name: str = "") -> str:
    """A value as a person writes it: lists without brackets, nested things in round ones, bytes with a prefix beside."""
    if isinstance(value, dict):
        return ", ".join(f"{text(key)} {_nested(one, key)}" for key, one in value.items()) or "none"
    if isinstance(value, list):
        return ", ".join(_nested(one) for one in value) or "none"
    if name.endswith("_bytes") and isinstance(value, int) and value >= KIB:
        return f"{value:,} ({' '.join(in_byte_unit(value))})"
    return "none" if value is None else text(value)


def _nested(value: Any, name: str = "") -> str:
    return f"({shown(value)})" if isinstance(value, (dict, list)) else shown(value, name)


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
