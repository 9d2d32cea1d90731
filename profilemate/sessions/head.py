"""A little of each file, so that thousands of sessions are listed in a second: the head of a record, the end of a stream."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from profilemate.session.plain_files import open_plain
from profilemate.session.records import json_object, read_json

HEAD_BYTES = 16 << 10
TAIL_BYTES = 4 << 10
END_BYTES = 64
LONGEST_TIME = 20
HOOKS = b'"hooks": ['
"""The last entry of process.json, and nine tenths of it."""


def record_head(path: str | Path) -> dict[str, Any]:
    """A JSON record without its hooks; read whole where they do not come last. Raises OSError or ValueError."""
    descriptor = open_plain(path)
    try:
        text = os.read(descriptor, HEAD_BYTES)
        is_whole = len(text) < HEAD_BYTES
        end = text[-END_BYTES:] if is_whole else _read_from(descriptor, -END_BYTES)
    finally:
        os.close(descriptor)
    head, hooks, _ = text.partition(HOOKS)
    if hooks and b"".join(end.split()).endswith(b"]}"):
        return _object(head.rstrip().rstrip(b",") + b"}") or read_json(Path(path))
    return (_object(text) if is_whole else {}) or read_json(Path(path))


def _object(text: bytes) -> dict[str, Any]:
    """A JSON object; an empty one where it is none."""
    try:
        return json_object(text)
    except ValueError:
        return {}


def last_lines(path: str | Path) -> list[str]:
    """The last whole lines of a stream, as many as a few KiB hold; none where it cannot be read."""
    try:
        descriptor = open_plain(path)
    except OSError:
        return []
    try:
        text = _read_from(descriptor, -TAIL_BYTES)
    except OSError:
        return []
    finally:
        os.close(descriptor)
    lines = text[: text.rfind(b"\n") + 1].decode("utf-8", "replace").splitlines()
    return lines[1:]  # the header, or the rest of a line whose beginning was not read


def _read_from(descriptor: int, before_end: int) -> bytes:
    """The last bytes of a file; all of it where it is shorter."""
    start = max(0, os.fstat(descriptor).st_size + before_end)
    return os.pread(descriptor, -before_end, start)


def last_time_ns(path: str | Path) -> int | None:
    """The time of a stream's last whole row: its first column. None where there is none."""
    for line in reversed(last_lines(path)):
        cell = line.partition(",")[0]
        if cell.isascii() and cell.isdecimal() and len(cell) < LONGEST_TIME:
            return int(cell)
    return None
