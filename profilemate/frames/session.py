"""A session for people who compute: its tables as polars frames, its engines, its configuration, its health."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from profilemate.export import readme_files
from profilemate.export.analysis import Analysis, analyze
from profilemate.export.notes import engine_config
from profilemate.frames.packages import load
from profilemate.frames.scan import scan
from profilemate.schema.probe_tables import PROBE_TABLES
from profilemate.schema.table import Table
from profilemate.session.errors import SessionError
from profilemate.session.find import find_session
from profilemate.session.session import Session as StreamSession
from profilemate.trackers import NAMES
from profilemate.trackers.view import tables_of

if TYPE_CHECKING:
    import polars as pl


def open_session(path: str | os.PathLike[str] = "latest") -> Session:
    """Open a session folder, a folder of sessions (its latest one), or `latest`. Raises SessionError."""
    return Session(find_session(os.fspath(path)))


class Session(StreamSession):
    """What `profilemate.open` gives. Nothing is kept but the processes: each call reads the files as they are then."""

    @cached_property
    def streams(self) -> dict[str, tuple[Table, ...]]:
        """Tables by the name of their file; the trackers that share a file each have a table of it."""
        found: dict[str, tuple[Table, ...]] = {}
        for table in [*PROBE_TABLES, *(table for tracker in NAMES for table in tables_of(tracker))]:
            found[table.name] = (*found.get(table.name, ()), table)
        return found

    @cached_property
    def files(self) -> tuple[str, ...]:
        """Names of the README's CSV files of this session, without `.csv`."""
        return tuple(name.removesuffix(".csv") for name in readme_files.file_names(self) if name.endswith(".csv"))

    def scan(self, name: str) -> pl.LazyFrame:
        """A stream or one of the README's files by name, lazily; nothing is read before `collect`.

        A stream has its own columns (times in nanoseconds of each process's monotonic clock), and `process` (name of the
        process folder) and `time_sec` (seconds since the session began) before them. Raises SessionError for another name.
        """
        if name in self.streams:
            return self._scan_stream(self.streams[name])
        if name in self.files:
            return self._scan_file(f"{name}.csv")
        known = ", ".join([*self.streams, *self.files])
        raise SessionError(f"there is no table {name!r}; there are {known}")

    def table(self, name: str) -> pl.DataFrame:
        """The same, read at once."""
        return self.scan(name).collect(engine="streaming")

    def pandas(self, name: str) -> Any:
        """The same as a pandas data frame. Raises SessionError where pandas or pyarrow is missing."""
        load("pandas")
        load("pyarrow")
        return self.table(name).to_pandas()

    @cached_property
    def analysis(self) -> Analysis:
        """What the trackers' own analyses say: exact counts, the same as in metadata.json."""
        return analyze(self)

    @cached_property
    def metadata(self) -> dict[str, Any]:
        """metadata.json's content as of now: summary, health, notes, findings."""
        return readme_files.current_metadata(self)

    @cached_property
    def config(self) -> Mapping[str, Any]:
        """vLLM's configuration by allow-list, of the first engine."""
        return engine_config(self.analysis)

    def _scan_stream(self, tables: tuple[Table, ...]) -> pl.LazyFrame:
        polars = load("polars")
        merged = _merged(tables)
        frames = []
        for process in self.processes:
            frame = scan(self, process, merged)
            time = (polars.col("time_ns") + process.offset_ns) / 1e9 if "time_ns" in merged.columns else polars.lit(None)
            frames.append(
                frame.select(polars.lit(process.name).alias("process"), time.alias("time_sec"), *merged.columns)
            )
        return polars.concat(frames) if frames else polars.LazyFrame(schema={"process": polars.String})

    def _scan_file(self, file: str) -> pl.LazyFrame:
        readme_files.make_current(self)
        return load("polars").scan_csv(Path(self.path) / file, infer_schema_length=None)


def _merged(tables: tuple[Table, ...]) -> Table:
    """One table with the columns of all that share a file."""
    by_name = {field.name: field for table in tables for field in table.fields}
    present = tables[0].present if len(tables) == 1 else ""
    return Table(tables[0].name, tables[0].doc, tuple(by_name.values()), present)
