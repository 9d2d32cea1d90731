"""The text of a cell as the value that its column's kind says; ValueError for text of another kind."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from profilemate.schema.table import Table
from profilemate.session.whole_chunks import SHORT_INTEGER, Convert, booleans, integers, required_integers, texts

Reader = Callable[[str], Any]

LONGEST_INTEGER = 20

REQUIRED = {"time_ns", "engine", "forward", "through_forward", "in_use", "total_blocks"}
"""Integer columns without which a row says nothing; an empty cell elsewhere reads as None, "not known"."""


def integer(cell: str) -> int | None:
    """An integer cell; one beyond 64 bits is refused, so that no later division overflows."""
    if len(cell) > SHORT_INTEGER:
        return _long_integer(cell)
    return int(cell) if cell else None


def _long_integer(cell: str) -> int:
    value = int(cell)
    if not -(1 << 63) <= value < 1 << 63:
        raise ValueError(cell[:SHORT_INTEGER])
    return value


def required_integer(cell: str) -> int:
    """An integer cell that may not be empty."""
    return _long_integer(cell) if len(cell) > SHORT_INTEGER else int(cell)


def boolean(cell: str) -> bool | None:
    """True, False or unknown."""
    if cell not in ("True", "False", ""):
        raise ValueError(cell)
    return cell == "True" if cell else None


def readers_of(table: Table, columns: Sequence[str]) -> list[Reader]:
    """How the cells of these columns are read. Raises KeyError for a column that the table lacks."""
    kinds = {field.name: field.kind for field in table.fields}
    return [_reader(kinds[column], column) for column in columns]


def _reader(kind: str, column: str) -> Reader:
    if kind == "int":
        return required_integer if column in REQUIRED else integer
    return boolean if kind == "bool" else str


CONVERTS: dict[Reader, Convert] = {
    integer: integers, required_integer: required_integers, boolean: booleans, str: texts,
}  # fmt: skip
"""The same for whole columns."""
