"""Files of a stream, opened as they lie, and the whole lines of each in bounded memory; damage is counted and named."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from profilemate.session.faults import Faults
from profilemate.session.plain_files import NotPlainError, open_plain
from profilemate.session.records import printable

BLOCK_BYTES = 1 << 18
LONGEST_LINE_BYTES = 1 << 16

TORN_TAIL = "last row torn, left out"
HUGE_LINE = f"lines over {LONGEST_LINE_BYTES >> 10} KiB, left out"


class OpenSegment(NamedTuple):
    """A file of a stream that is open for reading, and its name relative to the session."""

    name: str
    file: BinaryIO


def segment_paths(folder: Path, table: str) -> list[Path]:
    """Set-aside segments of a stream, oldest first."""
    pattern = re.compile(re.escape(table) + r"\.(\d{1,9})\.csv")
    try:
        names = os.listdir(folder)
    except OSError:
        return []
    found = ((int(match[1]), name) for name in names if (match := pattern.fullmatch(name)))
    return [folder / name for _, name in sorted(found)]


def open_segments(folder: Path, table: str, faults: Faults) -> list[OpenSegment]:
    """Open every file of a stream at once, so that one set aside or removed meanwhile is read once and whole.

    The current file is opened before the older ones are listed: should it be set aside in between, its inode tells.
    """
    current = _open(folder / f"{table}.csv", faults)
    inode = _inode(current) if current else -1
    opened: list[OpenSegment] = []
    for path in segment_paths(folder, table):
        segment = _open(path, faults)
        if segment and _inode(segment) == inode:
            segment.file.close()
        elif segment:
            opened.append(segment)
    return [*opened, current] if current else opened


def _inode(segment: OpenSegment) -> int:
    return os.fstat(segment.file.fileno()).st_ino


def _open(path: Path, faults: Faults) -> OpenSegment | None:
    name = f"{printable(path.parent.name)}/{path.name}"
    try:
        descriptor = open_plain(path)
    except FileNotFoundError:
        return None
    except NotPlainError:
        faults.note(name, "not a plain file, left out")
        return None
    except OSError as error:
        faults.note(name, f"cannot be read: {error.strerror}")
        return None
    return OpenSegment(name, os.fdopen(descriptor, "rb"))


def read_blocks(
    file: BinaryIO, found: Counter[str], on_read: Callable[[int], None], largest: int = BLOCK_BYTES
) -> Iterator[bytes]:
    """Whole lines of a file, many at once with their line ends, in bounded memory; the blocks grow to `largest` bytes.

    Lines over LONGEST_LINE_BYTES are left out. What follows the last line end is torn and not a line.
    """
    rest, skipping, size = b"", False, BLOCK_BYTES
    while block := file.read(size):
        on_read(len(block))
        size = min(2 * size, largest)
        if skipping:
            _, end, block = block.partition(b"\n")
            if not end:
                continue
            skipping = False
        whole = block.rfind(b"\n") + 1
        lines = b"".join((rest, memoryview(block)[:whole])) if whole else b""
        rest = block[whole:] if whole else rest + block
        if has_huge_line(lines):
            lines = _without_huge_lines(lines, found)
        if lines:
            yield lines
        if len(rest) > LONGEST_LINE_BYTES:
            found[HUGE_LINE] += 1
            rest, skipping = b"", True
    if rest:
        found[TORN_TAIL] += 1


def has_huge_line(lines: bytes) -> bool:
    """Whether one of these whole lines is over LONGEST_LINE_BYTES, found without looking at each."""
    start = 0
    while len(lines) - start > LONGEST_LINE_BYTES:
        end = lines.rfind(b"\n", start, start + LONGEST_LINE_BYTES + 1)
        if end < 0:
            return True
        start = end + 1
    return False


def _without_huge_lines(lines: bytes, found: Counter[str]) -> bytes:
    all_lines = lines[:-1].split(b"\n")
    kept = [line + b"\n" for line in all_lines if len(line) <= LONGEST_LINE_BYTES]
    found[HUGE_LINE] += len(all_lines) - len(kept)
    return b"".join(kept)


def read_lines(file: BinaryIO, found: Counter[str], on_read: Callable[[int], None]) -> Iterator[str]:
    """Whole lines of a file in bounded memory, without their line ends."""
    for lines in read_blocks(file, found, on_read):
        yield from lines[:-1].decode("utf-8", "replace").split("\n")
