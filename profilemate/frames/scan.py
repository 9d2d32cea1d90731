"""Rows of a stream as a lazy polars frame, read block by block; damage is left out and named as the other reader does.

A block that is not wholly as it should be goes through `session.stream`, which is slow and says of each row what it is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import chain
from typing import TYPE_CHECKING, Any, BinaryIO

from profilemate.frames.packages import load
from profilemate.schema.table import Table
from profilemate.session.records import ProcessInfo
from profilemate.session.session import Session
from profilemate.session.stream import ABSENT, REQUIRED, TORN_TAIL, WRONG_HEADER, open_segments, typed_rows

if TYPE_CHECKING:
    import polars as pl

BLOCK_BYTES = 16 << 20


def schema_of(table: Table) -> dict[str, Any]:
    """Columns of a stream as polars types; an empty cell is null."""
    polars = load("polars")
    kinds = {"int": polars.Int64, "str": polars.String, "bool": polars.Boolean}
    return {field.name: kinds[field.kind] for field in table.fields}


def scan(session: Session, process: ProcessInfo, table: Table) -> pl.LazyFrame:
    """All rows of a table of one process, oldest first; only the columns that are used are parsed."""
    polars = load("polars")
    from polars.io.plugins import register_io_source

    schema = schema_of(table)

    def source(
        with_columns: list[str] | None, predicate: Any, n_rows: int | None, batch_size: int | None
    ) -> Iterator[Any]:
        columns = list(with_columns) if with_columns is not None else list(schema)
        left = n_rows
        for segment in open_segments(process.folder, table.name, session.faults):
            found: Counter[str] = Counter()
            with segment.file as file:
                for frame in _frames(session, file, table, columns, found):
                    if predicate is not None:
                        frame = frame.filter(predicate)
                    if left is not None:
                        frame = frame.head(left)
                        left -= frame.height
                    yield frame
                    if left == 0:
                        return
            session.faults.replace(segment.name, found)

    return polars.LazyFrame(schema=schema) if not schema else register_io_source(source, schema=schema)


def _frames(
    session: Session, file: BinaryIO, table: Table, columns: list[str], found: Counter[str]
) -> Iterator[pl.DataFrame]:
    header = file.readline().decode("utf-8", "replace").rstrip("\r\n").split(",")
    if header == [""] or (table.present and table.present not in header and table.columns[0] in header):
        return
    absent = {name for name in table.columns if name not in header}
    if absent & REQUIRED or 2 * len(absent) >= len(table.columns):
        found[WRONG_HEADER] += 1
        return
    rest = b""
    while block := file.read(BLOCK_BYTES):
        session.on_read(len(block))
        whole, end, rest = (rest + block).rpartition(b"\n")
        if end:
            yield _frame(whole + b"\n", header, table, columns, found)
    if rest:
        found[TORN_TAIL] += 1


def _frame(
    block: bytes, header: list[str], table: Table, columns: list[str], found: Counter[str]
) -> pl.DataFrame:
    polars = load("polars")
    schema = schema_of(table)
    needed = list(dict.fromkeys([*columns, *([table.present] if table.present else [])]))
    if block.count(b",") == block.count(b"\n") * (len(header) - 1):
        try:
            frame = polars.read_csv(
                block, has_header=False, quote_char=None,
                schema={name: schema.get(name, polars.String) for name in header},
                columns=[place for place, name in enumerate(header) if name in needed],
            )
        except polars.exceptions.PolarsError:
            frame = None
        if frame is not None:
            if table.present:
                frame = frame.filter(polars.col(table.present).is_not_null())
            missing = [polars.lit(None, schema[name]).alias(name) for name in columns if name not in header]
            return frame.with_columns(missing).select(columns)
    lines = chain([",".join(header)], block.decode("utf-8", "replace").splitlines())
    rows = list(typed_rows(lines, table, columns, found))
    return polars.DataFrame(rows, schema={name: schema[name] for name in columns}, orient="row")


__all__ = ["ABSENT", "scan", "schema_of"]
