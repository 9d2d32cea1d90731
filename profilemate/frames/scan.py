"""Rows of a stream as a lazy polars frame, read block by block in bounded memory; damage is left out and named.

The rows are those that `session.stream` gives of the same columns, and the faults are named as there.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

from profilemate.frames.blocks import FileRows, plain_rows
from profilemate.frames.shape import Shape
from profilemate.schema.table import Table
from profilemate.session.records import ProcessInfo
from profilemate.session.segments import LONGEST_LINE_BYTES, open_segments, read_blocks
from profilemate.session.session import Session
from profilemate.session.stream import MALFORMED, WRONG_HEADER

if TYPE_CHECKING:
    import polars as pl

BLOCK_BYTES = 8 << 20
READ_AHEAD = 2
"""Blocks that are read and looked at while polars parses one."""

PROCESS, TIME_SEC, ENGINE_NUMBER = "process", "time_sec", "engine_number"
"""Columns that a frame has beside those of its stream."""

EngineNumbers = Callable[[], Mapping[tuple[str, int], int]]
"""The number in the session of each scheduler, by its process and its number there."""

T = TypeVar("T")


def columns_of(shape: Shape) -> dict[str, Any]:
    """Columns of the frame of a stream with their polars types; a user's own of these names are hidden by ours."""
    import polars

    first = {PROCESS: polars.String, TIME_SEC: polars.Float64}
    last = {ENGINE_NUMBER: polars.Int64} if _has_integer(shape, "engine") else {}
    return {**first, **shape.dtypes(), **first, **last}


def _has_integer(shape: Shape, name: str) -> bool:
    return name in shape.fields and shape.fields[name].kind == "int"


def scan(
    session: Session, processes: Iterable[ProcessInfo], tables: tuple[Table, ...], engine_numbers: EngineNumbers
) -> pl.LazyFrame:
    """All rows of a stream, process by process and oldest first in each. Only the columns that are used are parsed."""
    from polars.io.plugins import register_io_source

    shape, processes = Shape(tables), tuple(processes)
    schema = columns_of(shape)

    def source(
        with_columns: list[str] | None, predicate: Any, n_rows: int | None, batch_size: int | None
    ) -> Iterator[pl.DataFrame]:
        columns = list(schema) if with_columns is None else with_columns
        left = n_rows
        for frame in _all_frames(session, processes, shape, columns, engine_numbers):
            if left is not None:
                frame = frame.head(left)
                left -= frame.height
            yield frame if predicate is None else frame.filter(predicate)
            if left == 0:
                return

    return register_io_source(source, schema=schema)


def _all_frames(
    session: Session,
    processes: tuple[ProcessInfo, ...],
    shape: Shape,
    columns: list[str],
    engine_numbers: EngineNumbers,
) -> Iterator[pl.DataFrame]:
    import polars

    schema = columns_of(shape)
    sources = {PROCESS: None, TIME_SEC: "time_ns", ENGINE_NUMBER: "engine"}
    used = [sources.get(column, column) for column in columns]
    needed = dict.fromkeys(column for column in used if column in shape.fields)
    numbers = engine_numbers() if ENGINE_NUMBER in columns and ENGINE_NUMBER in schema else {}
    yield polars.DataFrame(schema={name: schema[name] for name in columns})
    for process in processes:
        added = _added(process, shape, numbers)
        for frame in process_frames(session, process, shape, tuple(str(name) for name in needed)):
            yield frame.select(added.get(name, polars.col(name)) for name in columns)


def _added(process: ProcessInfo, shape: Shape, numbers: Mapping[tuple[str, int], int]) -> dict[str, pl.Expr]:
    import polars

    time = polars.lit(None, polars.Float64)
    if "time_ns" in shape.fields:
        time = (polars.col("time_ns") + process.offset_ns) / 1e9
    added = {PROCESS: polars.lit(process.name).alias(PROCESS), TIME_SEC: time.alias(TIME_SEC)}
    if _has_integer(shape, "engine"):
        own = {local: number for (name, local), number in numbers.items() if name == process.name}
        number = polars.col("engine").replace_strict(own, default=None, return_dtype=polars.Int64)
        added[ENGINE_NUMBER] = number.alias(ENGINE_NUMBER)
    return added


def process_frames(
    session: Session, process: ProcessInfo, shape: Shape, columns: tuple[str, ...]
) -> Iterator[pl.DataFrame]:
    """Frames of the columns of one process's stream. All its files are opened now, so that none is missed or read twice."""
    unseen = () if len(columns) == len(shape.fields) else (MALFORMED,)
    segments = open_segments(process.folder, shape.name, session.faults)
    with ExitStack() as files:
        for segment in segments:
            files.enter_context(segment.file)
        for segment in segments:
            found: Counter[str] = Counter()
            yield from _file_frames(session, segment.file, shape, columns, found)
            session.faults.replace(segment.name, found, at_least=unseen)


def _file_frames(
    session: Session, file: BinaryIO, shape: Shape, columns: tuple[str, ...], found: Counter[str]
) -> Iterator[pl.DataFrame]:
    blocks = read_blocks(file, found, lambda num_bytes: session.on_read(num_bytes), BLOCK_BYTES)
    head, _, first = next(blocks, b"").partition(b"\n")
    header = _cells(head)
    fits = shape.fits(header)
    if fits is False:
        found[WRONG_HEADER] += 1
    if not fits:
        return
    is_there = any(column in header for column in columns)
    rows = FileRows(shape, tuple(header), columns if is_there else (next(iter(shape.fields)), *columns))
    for lines, num_plain in _ahead(_judged(first, blocks, rows.width)):
        for frame in rows.frames(lines, num_plain, found):
            yield frame if is_there else frame.select(columns or frame.columns)


def _cells(head: bytes) -> list[str]:
    return head.decode("utf-8", "replace").rstrip("\r").split(",")


def lacking(session: Session, process: ProcessInfo, shape: Shape) -> dict[str, list[str]]:
    """By file of a process's stream: columns that the table has and the version that wrote it did not have."""
    found = {}
    for segment in open_segments(process.folder, shape.name, session.faults):
        with segment.file as file:
            names = shape.lacks(_cells(file.readline(LONGEST_LINE_BYTES).rstrip(b"\n")))
        if names:
            found[segment.name] = names
    return found


def _judged(first: bytes, blocks: Iterator[bytes], width: int) -> Iterator[tuple[bytes, int]]:
    if first:
        yield first, plain_rows(first, width)
    for lines in blocks:
        yield lines, plain_rows(lines, width)


def _ahead(items: Iterator[T]) -> Iterator[T]:
    """The same items, made by another thread while this one works on those before.

    That thread must not use polars: it is waited for by threads that polars' own work may need.
    """
    end: Any = object()
    with ThreadPoolExecutor(1) as pool:
        pending = deque(pool.submit(next, items, end) for _ in range(READ_AHEAD))
        while (item := pending.popleft().result()) is not end:
            pending.append(pool.submit(next, items, end))
            yield item
