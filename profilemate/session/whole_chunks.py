"""Rows of a stream many at a time, column by column; whatever is not plain is left to the reader that goes cell by cell."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any

CHUNK_ROWS = 256
"""So many rows of a stream are in memory at a time; a merge holds as many of each of its streams."""

SHORT_INTEGER = 18
"""Characters of an integer that surely needs no more than 64 bits."""

Column = Sequence[Any]
Convert = Callable[[Column], Column]
"""Raises ValueError, or KeyError, for a cell that is not of the kind, or that this is too simple for."""


def chunks(lines: Iterator[str]) -> Iterator[list[str]]:
    """The same lines, some at a time."""
    while chunk := list(islice(lines, CHUNK_ROWS)):
        yield chunk


def split(chunk: list[str], width: int, present: int | None) -> list[list[str]] | None:
    """Cells of each line, without those whose cell `present` is empty; None where a line needs a closer look."""
    cells = [line.split(",") for line in chunk]
    if set(map(len, cells)) != {width} or "\r" in "".join(chunk):
        return None
    return cells if present is None else [row for row in cells if row[present]]


def typed(
    cells: list[list[str]], converts: Sequence[Convert | None], places: Sequence[int], empty: Sequence[Any]
) -> list[tuple[Any, ...]] | None:
    """Rows of the wanted columns, `empty` in the place of one that has no converter; None where a cell does not fit."""
    if not cells:
        return []
    by_column = list(zip(*cells, strict=True))
    try:
        columns = [
            (nothing,) * len(cells) if convert is None else convert(by_column[place])
            for convert, place, nothing in zip(converts, places, empty, strict=True)
        ]
    except (ValueError, KeyError):
        return None
    return list(zip(*columns, strict=True))


def integers(column: Column) -> Column:
    """None for an empty cell."""
    if max(map(len, column)) > SHORT_INTEGER:
        raise ValueError
    if all(column):
        return list(map(int, column))
    return [int(cell) if cell else None for cell in column]


def required_integers(column: Column) -> Column:
    """No cell may be empty."""
    if max(map(len, column)) > SHORT_INTEGER:
        raise ValueError
    return list(map(int, column))


BOOLEANS = {"True": True, "False": False, "": None}


def booleans(column: Column) -> Column:
    """True, False or unknown."""
    return list(map(BOOLEANS.__getitem__, column))


def texts(column: Column) -> Column:
    """As they are."""
    return column
