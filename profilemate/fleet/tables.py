"""Tables of the data set: their columns, with types that are the same for every session and that every engine reads.

`python -m profilemate.fleet.tables` prints the index that stands in docs/fleet.md.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import cache
from typing import Any, NamedTuple

from profilemate.fleet.packages import load
from profilemate.fleet.paths import ENGINE, PARTITIONS
from profilemate.fleet.session_columns import SESSIONS
from profilemate.frames import describe
from profilemate.frames.scan import ENGINE_NUMBER, PROCESS, TIME_SEC

FORMAT = 1
"""Of the layout; a data set of another one is refused."""

SESSION, TIME, LOCAL = "session", "time", "local_"
"""A column that has the name of a folder's value gets `local_` before it."""

SESSION_COLUMN = (SESSION, "str", "key of the session, as in `sessions`")
TIME_COLUMN = (TIME, "time", "time_ns on the wall clock, UTC; empty where the session's was not recorded")
PROCESS_EXTRA = (
    ("model_name", "str", "the model as vLLM names it, exactly"),
    ("to_unix_ns", "int", "added to this process's moments in nanoseconds this gives those of the wall clock"),
)
RENAMED = {"host": "host_name"}
"""Columns of `processes`."""


class Column(NamedTuple):
    """`kind` is str, int, float, bool or time; `source` is its name in a session's table, empty where it is made here."""

    name: str
    kind: str
    meaning: str
    source: str = ""


class FleetTable(NamedTuple):
    """One folder of the data set."""

    name: str
    meaning: str
    columns: tuple[Column, ...]
    is_stream: bool

    @property
    def schema(self) -> Any:
        """As Arrow's schema: int64, string, bool, double, and microseconds of UTC, since Spark takes no nanoseconds."""
        arrow = load("pyarrow")
        kinds = {
            "int": arrow.int64(), "str": arrow.string(), "bool": arrow.bool_(), "float": arrow.float64(),
            "time": arrow.timestamp("us", tz="UTC"),
        }  # fmt: skip
        return arrow.schema([(column.name, kinds[column.kind]) for column in self.columns])

    @property
    def names(self) -> tuple[str, ...]:
        """Of its columns."""
        return tuple(column.name for column in self.columns)


@cache
def fleet_tables() -> dict[str, FleetTable]:
    """All of them by name: the streams, and what sessions say about themselves."""
    found = [_sessions(), *map(_overview, describe.overviews()), *map(_stream, describe.streams())]
    return {table.name: table for table in found}


def fingerprint() -> str:
    """Changes with the columns of any table."""
    told = repr([(table.name, [column[:2] for column in table.columns]) for table in fleet_tables().values()])
    return hashlib.sha256(told.encode()).hexdigest()[:16]


def own_name(name: str) -> str:
    """The name of a session's column in the data set."""
    return f"{LOCAL}{name}" if name in PARTITIONS else name


def _sessions() -> FleetTable:
    return FleetTable("sessions", "One row per session.", tuple(Column(*one) for one in SESSIONS), False)


def _overview(table: describe.Description) -> FleetTable:
    own = tuple(_column(column, RENAMED.get(column.name, "")) for column in table.columns)
    more = tuple(Column(*one) for one in PROCESS_EXTRA) if table.name == "processes" else ()
    return FleetTable(table.name, table.meaning, (Column(*SESSION_COLUMN), *own, *more), False)


def _stream(table: describe.Description) -> FleetTable:
    own = [_column(column) for column in table.columns]
    columns = [Column(*SESSION_COLUMN)]
    has_time = any(column.source == "time_ns" for column in own)
    for column in own:
        if column.name != TIME_SEC or has_time:
            columns.append(column)
        if column.name == PROCESS and has_time:
            columns.append(Column(*TIME_COLUMN))
    return FleetTable(table.name, table.meaning, tuple(columns), True)


def _column(column: describe.Column, name: str = "") -> Column:
    made_here = column.name in (PROCESS, TIME_SEC, ENGINE_NUMBER)
    return Column(name or own_name(column.name), column.kind, column.meaning, "" if made_here else column.name)


def index() -> str:
    """All of it as Markdown: whole where docs/session-api.md has no such table, else what is different."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    for name in ("sessions", "processes"):
        table = fleet_tables()[name]
        yield from (f"### `{name}`", "", table.meaning, "", "| column | type | meaning |", "| --- | --- | --- |")
        yield from (f"| `{one.name}` | {one.kind} | {one.meaning.replace('|', '/')} |" for one in table.columns)
        yield ""
    others = [f"`{name}`" for name, table in fleet_tables().items() if not table.is_stream][2:]
    streams = [f"`{name}`" for name, table in fleet_tables().items() if table.is_stream]
    yield f"Beside these: {', '.join(others)}, and the streams {', '.join(streams)}."


def numbers_engines(table: FleetTable) -> bool:
    """Whether its rows are of schedulers, so that one process may write for several engines."""
    return own_name(ENGINE) in table.names and table.is_stream


if __name__ == "__main__":
    print(index(), end="")
