"""Which tables and columns there are and what they mean, from the tables' own words.

`python -m profilemate.frames.describe` prints the index that stands in docs/session-api.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from profilemate.frames.overviews import ENGINES, OVERVIEWS
from profilemate.frames.readme_types import kind_of
from profilemate.frames.scan import ENGINE_NUMBER, PROCESS, TIME_SEC
from profilemate.schema.probe_tables import PROBE_TABLES
from profilemate.schema.table import Table
from profilemate.trackers import NAMES
from profilemate.trackers.view import tables_of, view_of

ENGINES_NAME = "engines"
OVERVIEW_DOCS = {
    "processes": "One row per process.",
    ENGINES_NAME: "One row per scheduler. One that begins when another of its index ended has its number.",
    "hooks": "One row per hook and process.",
    "lost_rows": "One row per process, stream and reason for which rows are not there.",
    "faults": "One row per file and kind of damage.",
}
FIRST_COLUMNS = (
    (PROCESS, "str", "name of the process folder"),
    (TIME_SEC, "float", "time_ns in seconds since the session began; empty in a stream without it"),
)
LAST_COLUMN = (
    ENGINE_NUMBER,
    "int",
    "number of the scheduler in the session, as in `engines`; README files call it engine",
)
DESCRIPTION = (("column", "str", ""), ("type", "str", ""), ("meaning", "str", ""))
"""Columns of a description as a frame."""
WORDS = {"String": "str", "Int64": "int", "Float64": "float", "Boolean": "bool"}
"""The types of columns by polars' names for them."""


class Column(NamedTuple):
    """One column. `kind` is str, int, float or bool."""

    name: str
    kind: str
    meaning: str


class Description(NamedTuple):
    """A table that `Session.scan` takes."""

    name: str
    meaning: str
    columns: tuple[Column, ...]


def our_streams() -> dict[str, tuple[Table, ...]]:
    """Tables of the probe and of all trackers by the name of their file."""
    found: dict[str, tuple[Table, ...]] = {}
    for table in [*PROBE_TABLES, *(table for tracker in NAMES for table in tables_of(tracker))]:
        found[table.name] = (*found.get(table.name, ()), table)
    return found


def overviews() -> list[Description]:
    """What a session says about itself."""
    columns = {name: rows[0] for name, rows in OVERVIEWS.items()} | {ENGINES_NAME: ENGINES}
    return [Description(name, doc, tuple(Column(*one) for one in columns[name])) for name, doc in OVERVIEW_DOCS.items()]


def streams() -> list[Description]:
    """What the processes wrote. A shared file has the columns of all its trackers."""
    return [_stream(name, tables) for name, tables in our_streams().items()]


def _stream(name: str, tables: tuple[Table, ...]) -> Description:
    own = {field.name: Column(*field) for table in tables for field in table.fields}
    last = [Column(*LAST_COLUMN)] if "engine" in own else []
    meaning = " ".join(dict.fromkeys(table.doc for table in tables))
    return Description(name, meaning, (*(Column(*one) for one in FIRST_COLUMNS), *own.values(), *last))


def csv_files() -> list[Description]:
    """The README's CSV files; the README says of each what it has a row for."""
    return [
        Description(file.name.removesuffix(".csv"), "", tuple(Column(name, kind_of(name), "") for name in file.header))
        for tracker in NAMES
        for file in view_of(tracker).csv_files
    ]


def index() -> str:
    """All of it as Markdown."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield "### Overviews"
    for table in overviews():
        yield from _with_meanings(table, table.columns)
    yield from ("", "### Streams", "", "Each has these columns beside its own:", "")
    yield from _table([Column(*FIRST_COLUMNS[0]), Column(*FIRST_COLUMNS[1]), Column(*LAST_COLUMN)])
    added = {PROCESS, TIME_SEC, ENGINE_NUMBER}
    for table in streams():
        yield from _with_meanings(table, tuple(column for column in table.columns if column.name not in added))
    yield from ("", "### Files of the README", "", "| table | columns |", "| --- | --- |")
    for table in csv_files():
        yield f"| `{table.name}` | {', '.join(f'{column.name} ({column.kind})' for column in table.columns)} |"


def _with_meanings(table: Description, columns: tuple[Column, ...]) -> Iterator[str]:
    yield from ("", f"#### `{table.name}`", "", table.meaning, "")
    yield from _table(list(columns))


def _table(columns: list[Column]) -> Iterator[str]:
    yield from ("| column | type | meaning |", "| --- | --- | --- |")
    for column in columns:
        yield f"| `{column.name}` | {column.kind} | {column.meaning.replace('|', '/')} |"


if __name__ == "__main__":
    print(index(), end="")
