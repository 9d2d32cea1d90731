"""A little of each file, so that thousands of sessions are listed in a second: the head of a record, the end of a stream."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, BinaryIO

from profilemate.session.records import read_json

HEAD_BYTES = 16 << 10
TAIL_BYTES = 4 << 10
END_BYTES = 64
LONGEST_TIME = 20
HOOKS = b'"hooks": ['
"""The last entry of process.json, and nine tenths of it."""


def record_head(path: str | Path) -> dict[str, Any]:
    """A JSON record without its hooks; read whole where they do not come last. Raises OSError or ValueError."""
    with open_plain(path) as file:
        head, hooks, rest = file.read(HEAD_BYTES).partition(HOOKS)
        if len(head) + len(hooks) + len(rest) == HEAD_BYTES:
            file.seek(-END_BYTES, os.SEEK_END)
            rest = file.read()
    if hooks and b"".join(rest[-END_BYTES:].split()).endswith(b"]}"):
        try:
            record = json.loads(head.rstrip().rstrip(b",") + b"}")
        except ValueError:
            return read_json(Path(path))
        return record if isinstance(record, dict) else {}
    return read_json(Path(path))


def last_lines(path: str | Path) -> list[str]:
    """The last whole lines of a stream, as many as a few KiB hold; none where it cannot be read."""
    try:
        with open_plain(path) as file:
            size = os.fstat(file.fileno()).st_size
            file.seek(max(0, size - TAIL_BYTES))
            text = file.read(TAIL_BYTES)
    except OSError:
        return []
    lines = text[: text.rfind(b"\n") + 1].decode("utf-8", "replace").splitlines()
    return lines[1:]  # the header, or the rest of a line whose beginning was not read


def last_time_ns(path: str | Path) -> int | None:
    """The time of a stream's last whole row: its first column. None where there is none."""
    for line in reversed(last_lines(path)):
        cell = line.partition(",")[0]
        if cell.isascii() and cell.isdecimal() and len(cell) < LONGEST_TIME:
            return int(cell)
    return None


def open_plain(path: str | Path) -> BinaryIO:
    """Open for reading, never through a link and never waiting for a pipe."""
    return os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
