"""Changes to a session folder that a generator of tests chooses: bytes, lines, cells, values and whole files."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from hostile_values import ODD_CELLS, ODD_FILES, ODD_VALUES, in_place_of

MOST_BYTES = 1 << 20


class Mutation(NamedTuple):
    """A change by name; the numbers choose a file, places in it and what comes there, whatever their size."""

    kind: str
    file: int
    place: int
    other: int

    def apply(self, session: Path) -> None:
        """Make it. A file that it does not suit stays as it is."""
        files = sorted(path for path in session.rglob("*") if path.is_file() and not path.is_symlink())
        wanted = ".json" if self.kind in JSON_KINDS else ".csv" if self.kind in ROW_KINDS else ""
        files = [path for path in files if path.suffix == wanted or not wanted]
        if files:
            KINDS[self.kind](files[self.file % len(files)], self, files)


def _bytes(change: Callable[[bytearray, Mutation], bytes | bytearray]) -> Callable[[Path, Mutation, list[Path]], None]:
    def apply(path: Path, mutation: Mutation, files: list[Path]) -> None:
        data = bytearray(path.read_bytes()[:MOST_BYTES])
        if data:
            path.write_bytes(change(data, mutation))

    return apply


def _flipped(data: bytearray, mutation: Mutation) -> bytearray:
    data[mutation.place % len(data)] ^= 1 << mutation.other % 8
    return data


def _inserted(data: bytearray, mutation: Mutation) -> bytearray:
    cell = ODD_CELLS[mutation.other % len(ODD_CELLS)].encode()
    place = mutation.place % len(data)
    return data[:place] + cell + data[place:]


def _lines(data: bytearray, mutation: Mutation) -> bytes:
    """One gone, twice, or exchanged with another."""
    lines = bytes(data).splitlines(keepends=True)
    here, there = mutation.place % len(lines), mutation.other % len(lines)
    if here == there:
        del lines[here]
    elif mutation.other % 2:
        lines.insert(there, lines[here])
    else:
        lines[here], lines[there] = lines[there], lines[here]
    return b"".join(lines)


def _cells(data: bytearray, mutation: Mutation, whole_column: bool = False) -> bytes:
    lines = bytes(data).split(b"\n")
    column = mutation.place % (lines[0].count(b",") + 1)
    rows = range(1, len(lines) - 1) if whole_column else [1 + (mutation.place // 64) % max(1, len(lines) - 2)]
    for row in rows:
        cells = lines[row].split(b",") if row < len(lines) else []
        if column < len(cells):
            cells[column] = ODD_CELLS[mutation.other % len(ODD_CELLS)].encode()
            lines[row] = b",".join(cells)
    return b"\n".join(lines)


def _value(path: Path, mutation: Mutation, files: list[Path]) -> None:
    """A value somewhere in a record."""
    try:
        record = json.loads(path.read_bytes())
    except ValueError:
        return
    places = list(_places(record))
    if places:
        holder, key = places[mutation.place % len(places)]
        holder[key] = ODD_VALUES[mutation.other % len(ODD_VALUES)]
    path.write_text(json.dumps(record))


def _places(value: Any) -> Any:
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in list(pairs):
        if key != "format":
            yield value, key
        yield from _places(one)


def _exchanged(path: Path, mutation: Mutation, files: list[Path]) -> None:
    other = files[mutation.other % len(files)]
    here, there = path.read_bytes(), other.read_bytes()
    path.write_bytes(there)
    other.write_bytes(here)


def _odd(path: Path, mutation: Mutation, files: list[Path]) -> None:
    plant = list(ODD_FILES.values())[mutation.other % len(ODD_FILES)]
    plant(in_place_of(path))


def _segment(path: Path, mutation: Mutation, files: list[Path]) -> None:
    shutil.copy(path, path.with_name(f"{path.name.partition('.')[0]}.{mutation.other % 12}.csv"))


KINDS: dict[str, Callable[[Path, Mutation, list[Path]], None]] = {
    "flip": _bytes(_flipped),
    "insert": _bytes(_inserted),
    "cut": _bytes(lambda data, mutation: data[: mutation.place % len(data)]),
    "lines": _bytes(_lines),
    "cell": _bytes(_cells),
    "column": _bytes(lambda data, mutation: _cells(data, mutation, whole_column=True)),
    "value": _value,
    "exchange": _exchanged,
    "remove": lambda path, mutation, files: os.unlink(path),
    "odd": _odd,
    "segment": _segment,
}
JSON_KINDS = ("value",)
ROW_KINDS = ("cell", "column", "segment", "lines")
