"""Requests that engines knew, found by their moments, and their ids in a front end's words: millions in bounded memory.

They are in a database of SQLite's that is private to this process, spills to a temporary file and goes with its connection.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from profilemate.session.errors import SessionError

if TYPE_CHECKING:
    import sqlite3

CACHE_KIB = 64 << 10
UNKNOWN_TOKENS = -(1 << 63)
SCHEMA = f"""
pragma cache_size = -{CACHE_KIB};
pragma journal_mode = off;
pragma synchronous = off;
create table seen (
    queued_ns integer, scheduled_ns integer, prompt_tokens integer, process integer not null, request text not null,
    primary key (queued_ns, scheduled_ns, prompt_tokens)
) without rowid;
create table renamed (
    process integer, request text, other text not null, primary key (process, request)
) without rowid;
"""

Moments = tuple[int, int, int | None]
"""When a request was queued and first scheduled, nanoseconds on its engine's clock, and the tokens of its prompt."""


class Seen(NamedTuple):
    """One engine's request; `process` is the place of its process among those of all sessions."""

    moments: Moments
    process: int
    request: str


class SeenRequests:
    """Requests of all engines. Of several with the same moments the last one counts."""

    def __init__(self) -> None:
        """No request yet. Raises SessionError where this Python has no SQLite."""
        try:
            import sqlite3
        except ImportError as error:
            raise SessionError("merging needs the sqlite3 module, which this Python was built without") from error
        self._database = sqlite3.connect("", isolation_level=None)
        self._database.executescript(SCHEMA)

    def add(self, requests: Iterable[Seen]) -> None:
        """What an engine saw."""
        rows = ((*_key(one.moments), one.process, one.request) for one in requests)
        self._all("insert or replace into seen values (?, ?, ?, ?, ?)", rows)

    def find(self, moments: Moments) -> tuple[int, str] | None:
        """Process and id of the request with these moments."""
        sql = "select process, request from seen where (queued_ns, scheduled_ns, prompt_tokens) = (?, ?, ?)"
        found: tuple[int, str] | None = self._database.execute(sql, _key(moments)).fetchone()
        return found

    def rename(self, others: Iterable[tuple[int, str, str]]) -> None:
        """Process, id and the id that it is to have."""
        self._all("insert or replace into renamed values (?, ?, ?)", others)

    def renamed(self, folders: list[Path]) -> Renamed:
        """The ids to rename, where the processes are the folders in this order."""
        return Renamed(self._database, folders)

    def _all(self, sql: str, rows: Iterable[tuple[object, ...]]) -> None:
        self._database.execute("begin")
        self._database.executemany(sql, rows)
        self._database.execute("commit")


def _key(moments: Moments) -> tuple[int, int, int]:
    queued_ns, scheduled_ns, prompt_tokens = moments
    return queued_ns, scheduled_ns, UNKNOWN_TOKENS if prompt_tokens is None else prompt_tokens


class Renamed:
    """Requests that had another id in their engine than in the front end."""

    def __init__(self, database: sqlite3.Connection, folders: list[Path]) -> None:
        """`folders` are those of the processes, in the order of their numbers."""
        self._database = database
        self._places = {folder: place for place, folder in enumerate(folders)}

    def __len__(self) -> int:
        """How many."""
        return int(self._database.execute("select count(*) from renamed").fetchone()[0])

    def of(self, folder: Path) -> Callable[[str], str] | None:
        """Gives the front end's id for one in a process's streams, the same for one that it does not know; None if all are."""
        place = self._places.get(folder)
        if not self._database.execute("select exists (select 1 from renamed where process = ?)", (place,)).fetchone()[
            0
        ]:
            return None
        sql = "select other from renamed where process = ? and request = ?"

        def other(request: str) -> str:
            found = self._database.execute(sql, (place, request)).fetchone()
            return str(found[0]) if found else request

        return other
