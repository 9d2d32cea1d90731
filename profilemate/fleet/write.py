"""Rows into Parquet files, a row group at a time, so that memory does not grow with a session."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from profilemate.fleet.packages import load
from profilemate.fleet.paths import Place
from profilemate.fleet.tables import FleetTable

if TYPE_CHECKING:
    import polars as pl

ROWS_OF_GROUP = 100_000
"""Rows that are held before they are written; a row of the widest stream has some 500 bytes here."""
COMPRESSION = "zstd"


class _File:
    """One Parquet file of a table and a place."""

    def __init__(self, path: Path, schema: Any) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self.rows = 0
        self._schema = schema
        self._pending: list[Any] = []
        self._num_pending = 0
        self._writer = load("pyarrow.parquet").ParquetWriter(path, schema, compression=COMPRESSION)

    def add(self, rows: Any) -> None:
        """Rows as an Arrow table with the schema's columns."""
        self._pending.append(rows.select(self._schema.names).cast(self._schema))
        self._num_pending += rows.num_rows
        self.rows += rows.num_rows
        if self._num_pending >= ROWS_OF_GROUP:
            self._write_group()

    def _write_group(self) -> None:
        if self._num_pending:
            rows = load("pyarrow").concat_tables(self._pending)
            self._writer.write_table(rows, row_group_size=ROWS_OF_GROUP)
        self._pending, self._num_pending = [], 0

    def finish(self) -> None:
        """Everything is on the disk."""
        self._write_group()
        self._writer.close()
        descriptor = os.open(self.path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def abandon(self) -> None:
        """Let go of the file."""
        self._pending = []
        self._writer.close()


class Staged:
    """The files of one session below a folder that no reader looks into. Use as a context manager.

    `rows` counts by table; `files` are paths below `root`, which are those below the data set.
    """

    def __init__(self, root: Path, key: str) -> None:
        """Nothing is written yet."""
        self.root = root
        self.key = key
        self.rows: dict[str, int] = {}
        self.files: list[str] = []
        self._open: dict[tuple[str, Place], _File] = {}

    def add(self, table: FleetTable, place: Place, frame: pl.DataFrame) -> None:
        """Write a frame that has all columns of the table."""
        if not frame.height:
            return
        file = self._open.get((table.name, place))
        if file is None:
            name = Path(table.name, place.folder, f"{self.key}-{len(self.files)}.parquet")
            self.files.append(str(name))
            file = self._open[table.name, place] = _File(self.root / name, table.schema)
        file.add(frame.to_arrow())
        self.rows[table.name] = self.rows.get(table.name, 0) + frame.height

    def add_rows(self, table: FleetTable, rows: Iterable[tuple[Place, dict[str, Any]]]) -> None:
        """Write rows, each a value by column."""
        import polars

        by_place: dict[Place, list[dict[str, Any]]] = {}
        for place, row in rows:
            by_place.setdefault(place, []).append(row)
        arrow = load("pyarrow")
        for place, own in by_place.items():
            self.add(table, place, polars.DataFrame(arrow.Table.from_pylist(own, schema=table.schema)))

    def finish_files(self) -> None:
        """Close what is open, so that files of the next process are its own."""
        for file in self._open.values():
            file.finish()
        self._open = {}

    def __enter__(self) -> Staged:
        """Nothing is open yet."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Where something failed the files are let go of; who made the folder removes it."""
        for file in self._open.values():
            if error is None:
                file.finish()
            else:
                file.abandon()
        self._open = {}
