"""Whole lines of a stream as polars frames: a block at a time through polars' CSV parser, a doubtful one row by row.

polars fills short rows, cuts long ones where not all columns are read, and takes some numbers and booleans that the probe
does not write. So a block goes to it only when its bytes show that every line has the right number of cells and that the
two readers see the same in them. One that does not is halved until the doubtful part is small.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from profilemate.frames.shape import Shape
from profilemate.session.stream import MALFORMED

if TYPE_CHECKING:
    import polars as pl

SMALL_BYTES = 1 << 16
"""A doubtful block of at most this size is gone through row by row."""

NOT_STRUCTURE = bytes(set(range(256)) - set(b",\n"))
NOT_STRUCTURE_OR_SPACE = bytes(set(range(256)) - set(b",\n\r\t "))
SPACED_CELLS = (b", ", b",\t", b"\n ", b"\n\t")
"""An integer cell of spaces alone is empty for polars and wrong for Python."""
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
MANY_ZEROS = b"0" * 64
"""Python refuses integers of many thousand digits, leading zeros counted; polars does not."""


def plain_rows(lines: bytes, width: int) -> int:
    """How many whole lines these are; 0 where one has not `width` cells, or polars may see in it what Python does not.

    What polars refuses is seen when it does.
    """
    if lines.startswith(BYTE_ORDER_MARK) or MANY_ZEROS in lines:
        return 0
    left = lines.translate(None, NOT_STRUCTURE_OR_SPACE)
    if left != _structure(left, width):
        if lines.startswith((b" ", b"\t")) or any(spaced in lines for spaced in SPACED_CELLS):
            return 0
        left = left.translate(None, b" \t")
        if left != _structure(left, width):
            return 0
    return len(left) // width


def _structure(left: bytes, width: int) -> bytes:
    return (b"," * (width - 1) + b"\n") * (len(left) // width)


@dataclass(frozen=True)
class FileRows:
    """How the rows of one file are read, by its header. At least one of the columns is one that the file has."""

    shape: Shape
    header: tuple[str, ...]
    columns: tuple[str, ...]

    @property
    def width(self) -> int:
        """Cells of a line."""
        return len(self.header)

    @cached_property
    def _places(self) -> dict[str, int]:
        return {name: self.header.index(name) for name in self.columns if name in self.header}

    @cached_property
    def _present(self) -> int | None:
        return self.header.index(self.shape.present) if self.shape.present else None

    @cached_property
    def _dtypes(self) -> dict[str, Any]:
        return self.shape.dtypes()

    def frames(self, lines: bytes, num_plain: int, found: Counter[str]) -> Iterator[pl.DataFrame]:
        """Frames of the columns of whole lines, of which `plain_rows` said so many; rows that do not fit are counted."""
        frame = self._at_once(lines, num_plain) if num_plain else None
        middle = lines.rfind(b"\n", 0, len(lines) // 2) + 1 or lines.find(b"\n") + 1
        if frame is not None:
            yield frame
        elif len(lines) <= SMALL_BYTES or middle == len(lines):
            yield self._row_by_row(lines, found)
        else:
            for part in (lines[:middle], lines[middle:]):
                yield from self.frames(part, plain_rows(part, self.width), found)

    @cached_property
    def _parsed(self) -> dict[str, Any]:
        """Every column of the file by a name of its own, that of a wanted one, with the type that polars shall read."""
        import polars

        names = {place: name for name, place in self._places.items()}
        texts = [name for name in names.values() if self.shape.fields[name].kind != "int"]
        columns = [names.get(place, _unnamed(place)) for place in range(self.width)]
        return {name: polars.Int64 if name in self._places and name not in texts else polars.String for name in columns}

    @cached_property
    def _present_name(self) -> str | None:
        return None if self._present is None else list(self._parsed)[self._present]

    def _at_once(self, lines: bytes, num_rows: int) -> pl.DataFrame | None:
        """None where polars refuses the block, or where a column holds what only a look at each row can judge."""
        import polars

        names = list(self._places)
        if self._present_name not in (None, *names):
            names.append(str(self._present_name))
        block = polars.scan_csv(lines, has_header=False, quote_char=None, schema=self._parsed)
        try:
            frame = block.select(names).collect()
        except (polars.exceptions.PolarsError, OSError, ValueError):
            return None
        if frame.height != num_rows:
            return None
        if self._present_name is not None:
            frame = frame.filter(polars.col(self._present_name).is_not_null())
        return self._completed(frame) if self._is_right(frame) else None

    def _is_right(self, frame: pl.DataFrame) -> bool:
        required = (name for name in self._places if name in self.shape.required)
        booleans = (name for name in self._places if self.shape.fields[name].kind == "bool")
        return all(not frame[name].null_count() for name in required) and all(
            set(frame[name].unique()) <= {"True", "False", None} for name in booleans
        )

    def _completed(self, frame: pl.DataFrame) -> pl.DataFrame:
        """The columns in order, with booleans as such, and those that this file lacks empty."""
        import polars

        if tuple(frame.columns) == self.columns and polars.Boolean not in self._dtypes.values():
            return frame
        columns = []
        for name in self.columns:
            if name not in self._places:
                columns.append(polars.lit(None, self._dtypes[name]).alias(name))
            elif self.shape.fields[name].kind == "bool" and frame.schema[name] == polars.String:
                columns.append(polars.col(name) == "True")
            else:
                columns.append(polars.col(name))
        return frame.select(columns)

    def _row_by_row(self, lines: bytes, found: Counter[str]) -> pl.DataFrame:
        import polars

        readers = [(self.shape.reader(name), place) for name, place in self._places.items()]
        rows = []
        for line in lines[:-1].decode("utf-8", "replace").split("\n"):
            cells = line.split(",")
            if len(cells) != self.width:
                found[MALFORMED] += 1
            elif self._present is None or cells[self._present]:
                try:
                    rows.append([read(cells[place].rstrip("\r")) for read, place in readers])
                except ValueError:
                    found[MALFORMED] += 1
        schema = {name: self._dtypes[name] for name in self._places}
        return self._completed(polars.DataFrame(rows, schema=schema, orient="row"))


def _unnamed(place: int) -> str:
    """Of a column that nobody asked for; no table has a column with a space."""
    return f"column {place}"
