"""Names in the data set: a session's key, and the folders `day=/model=/host=/engine=` that its files lie in.

Spark, DuckDB, Arrow and polars agree about `%XX` for characters of ASCII alone: Spark takes each for a character, the others
for a byte of UTF-8, and a JVM under a locale without UTF-8 opens no other names. So a folder's value is ASCII; the exact
names are columns of the tables `processes` and `sessions`.
"""

from __future__ import annotations

import hashlib
import json
import string
from datetime import datetime, timezone
from pathlib import PurePosixPath
from typing import NamedTuple

from profilemate.session.records import SessionInfo

DAY, MODEL, HOST, ENGINE = PARTITIONS = ("day", "model", "host", "engine")
NOTHING = "__HIVE_DEFAULT_PARTITION__"
"""What Hive, and all that read its layout, take for a value that is not known."""

PLAIN = frozenset(string.ascii_letters + string.digits + "._-")
LONGEST_VALUE = 180
"""Characters of a folder's value; file systems take 255 bytes."""
LONGEST_ID = 60
DIGITS_OF_KEY, DIGITS_OF_VALUE = 12, 8
LAST_SECOND = 253_402_300_799
"""Of the year 9999, the last that a date can be of."""


class Place(NamedTuple):
    """Where rows lie. None is not known."""

    day: str | None
    model: str | None
    host: str | None
    engine: int | None

    @property
    def folder(self) -> PurePosixPath:
        """Below the table's folder."""
        values = (self.day, self.model, self.host, None if self.engine is None else str(self.engine))
        return PurePosixPath(*(f"{name}={value_of(value)}" for name, value in zip(PARTITIONS, values, strict=True)))


def value_of(value: str | None) -> str:
    """A value as a folder names it: `%XX` for what is not plain.

    What is not ASCII stands as `_`, and a value that lost something has digits of its hash at its end.
    """
    if not value:
        return NOTHING
    told = "".join(_escaped(character) for character in value)
    if value.isascii() and value.isprintable() and len(told) <= LONGEST_VALUE:
        return told
    kept = _whole_escapes(told[: LONGEST_VALUE - DIGITS_OF_VALUE - 1])
    return f"{kept}-{_digits(value, DIGITS_OF_VALUE)}"


def _escaped(character: str) -> str:
    if character in PLAIN:
        return character
    return f"%{ord(character):02X}" if character.isascii() and character.isprintable() else "_"


def _whole_escapes(text: str) -> str:
    """Without an escape that was cut in its middle."""
    tail = text[-2:].find("%")
    return text if tail < 0 else text[: len(text[:-2]) + tail]


def day_of(wall_ns: int) -> str | None:
    """The day in UTC of a moment of the wall clock."""
    if not 0 < wall_ns // 10**9 <= LAST_SECOND:
        return None
    return datetime.fromtimestamp(wall_ns // 10**9, timezone.utc).date().isoformat()


def key_of(info: SessionInfo) -> str:
    """Names a session in the data set, wherever its folder lies: two hosts may begin one in the same second."""
    told = (info.session_id, info.created_wall_ns, info.created_monotonic_ns, info.boot_id, info.host, info.pid)
    plain = "".join(character if character in PLAIN else "_" for character in info.session_id[:LONGEST_ID])
    return f"{plain.lstrip('._') or 'session'}-{_digits(json.dumps(told), DIGITS_OF_KEY)}"


def _digits(text: str, count: int) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:count]
