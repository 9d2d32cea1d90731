"""A session for people who compute: its tables as polars frames, its engines, its configuration, its health."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from profilemate.export import readme_files
from profilemate.export.analysis import Analysis, analyze
from profilemate.export.user_files import TIME, user_tables
from profilemate.frames import engines, missing
from profilemate.frames.describe import DESCRIPTION, ENGINES_NAME, WORDS, csv_files, our_streams, overviews, streams
from profilemate.frames.overviews import ENGINES, OVERVIEWS, frame_of
from profilemate.frames.packages import load
from profilemate.frames.readme_tables import ReadmeTables
from profilemate.frames.scan import PROCESS, TIME_SEC, process_frames, scan
from profilemate.frames.shape import Shape
from profilemate.frames.user_streams import with_types
from profilemate.schema.table import Table
from profilemate.session.errors import SessionError
from profilemate.session.find import find_session
from profilemate.session.health import Health, read_health
from profilemate.session.session import Session as StreamSession
from profilemate.session.views import EngineSpan, engine_config

if TYPE_CHECKING:
    import polars as pl

    from profilemate.session.records import ProcessInfo


def open_session(path: str | os.PathLike[str] = "latest") -> Session:
    """Open a session folder, a folder of sessions (its latest one), or `latest`. Raises SessionError."""
    from profilemate.cli.locate import configured_directory

    return Session(find_session(os.fspath(path), configured_directory()))


class Session(StreamSession):
    """What `profilemate.open` gives. Rows are read from the files each time that they are asked for.

    Processes are those at the time of opening; `analysis` and `metadata` those at the time when they were first asked for.
    """

    def __init__(self, path: Path) -> None:
        """Read session.json and every process.json. Raises SessionError where there is no session."""
        super().__init__(path)
        self._readme_tables = ReadmeTables(self)
        self._spans: tuple[str, tuple[EngineSpan, ...]] | None = None

    @cached_property
    def streams(self) -> dict[str, tuple[Table, ...]]:
        """Our tables by the name of their file; the trackers that share a file each have a table of it."""
        return our_streams()

    @property
    def files(self) -> tuple[str, ...]:
        """Names of the README's CSV files of this session, without `.csv`."""
        return tuple(name.removesuffix(".csv") for name in readme_files.file_names(self) if name.endswith(".csv"))

    @property
    def user_streams(self) -> dict[str, Table]:
        """Tables of the user's own trackers: a time and text, as far as their headers tell."""
        return {table.name: table.table for table in user_tables(self)}

    @property
    def names(self) -> tuple[str, ...]:
        """Everything that `scan` and `table` take."""
        return tuple(dict.fromkeys([*OVERVIEWS, ENGINES_NAME, *self.streams, *self.user_streams, *self.files]))

    def scan(self, name: str) -> pl.LazyFrame:
        """A stream, one of the README's files or an overview by name, lazily. Raises SessionError for another name.

        A stream has its own columns (times in nanoseconds of each process's monotonic clock), `process` (name of the
        process folder) and `time_sec` (seconds since the session began) before them, and `engine_number` (number of the
        scheduler in the session) after them where it has an `engine` (number in the process). Its rows are read by
        `collect`, so the files may have more by then. The others are as of now.
        """
        load("polars")
        if name in OVERVIEWS or name == ENGINES_NAME:
            return self._overview(name).lazy()
        if name in self.streams:
            return scan(self, self.processes, self.streams[name], self._engine_numbers)
        users = self.user_streams
        if name in users:
            texts = tuple(column for column in users[name].columns if column not in (TIME, PROCESS, TIME_SEC))
            return with_types(scan(self, self.processes, (users[name],), self._engine_numbers), texts)
        if name in self.files:
            return self._readme_tables.scan(f"{name}.csv")
        raise SessionError(f"there is no table {name!r}; there are {', '.join(self.names)}")

    def scan_process(self, process: ProcessInfo, name: str) -> pl.LazyFrame:
        """Rows of a stream of one process, as `scan` has them; no file of another is read. Raises SessionError as it does."""
        load("polars")
        if name not in self.streams:
            raise SessionError(f"there is no stream {name!r}; there are {', '.join(self.streams)}")
        return scan(self, [process], self.streams[name], self._engine_numbers)

    def table(self, name: str) -> pl.DataFrame:
        """What `scan` gives, read at once."""
        return self.scan(name).collect(engine="streaming")

    def pandas(self, name: str) -> Any:
        """The same as a pandas data frame, integers and booleans as types that have a "not known".

        Raises SessionError where pandas or pyarrow is missing.
        """
        pandas, arrow = (load(module, "pip install pandas pyarrow") for module in ("pandas", "pyarrow"))
        types = {arrow.int64(): pandas.Int64Dtype(), arrow.bool_(): pandas.BooleanDtype()}
        return self.table(name).to_arrow().to_pandas(types_mapper=types.get)

    def describe(self, name: str) -> pl.DataFrame:
        """The columns of a table: name, type and meaning, the meaning empty where the README has it. Raises SessionError."""
        load("polars")
        known = {table.name: table.columns for table in [*streams(), *overviews(), *csv_files()]}
        if name in known:
            return frame_of(DESCRIPTION, list(known[name]))
        types = self.scan(name).collect_schema()
        return frame_of(DESCRIPTION, [(column, WORDS[str(kind)], "") for column, kind in types.items()])

    @property
    def engine_spans(self) -> tuple[EngineSpan, ...]:
        """Every scheduler with its number and the times of its first and last row, in order of beginning."""
        load("polars")
        fingerprint = self.fingerprint()
        if self._spans is None or self._spans[0] != fingerprint:
            self._spans = (fingerprint, engines.engine_spans(self))
        return self._spans[1]

    @property
    def engines(self) -> pl.DataFrame:
        """One row per scheduler: its number in the session, its process, its times."""
        return self.table(ENGINES_NAME)

    @property
    def hooks(self) -> pl.DataFrame:
        """One row per hook and process: its state, calls and failures."""
        return self.table("hooks")

    @property
    def health(self) -> Health:
        """What the probe says about itself: hooks, and rows that were lost."""
        return read_health(self)

    @property
    def settings(self) -> Mapping[str, Any]:
        """ProfileMate's settings with which the session was recorded."""
        known = [self.info.settings, *(process.settings for process in self.processes)]
        return next((settings for settings in known if settings), {})

    @cached_property
    def analysis(self) -> Analysis:
        """What the trackers' own analyses say: exact counts, the same as in metadata.json."""
        return analyze(self)

    @cached_property
    def metadata(self) -> dict[str, Any]:
        """metadata.json's content: summary, health, notes, findings."""
        return readme_files.current_metadata(self)

    @cached_property
    def config(self) -> Mapping[str, Any]:
        """Configuration of vLLM by allow-list, of the first engine."""
        return engine_config(self)

    def missing(self, read_all: bool = True) -> list[str]:
        """Sentences about what is missing or damaged, or still running. All streams are read for it, unless told not to."""
        if read_all:
            self.read_all()
        return missing.sentences(self)

    def read_all(self) -> None:
        """Go through every row of every stream, so that `faults` has all damage there is."""
        load("polars")
        tables = [*self.streams.values(), *((table,) for table in self.user_streams.values())]
        for shape in map(Shape, tables):
            for process in self.processes:
                for _ in process_frames(self, process, shape, tuple(shape.fields)):
                    pass

    def _engine_numbers(self) -> dict[tuple[str, int], int]:
        return {(span.process.name, span.local_engine): span.engine for span in self.engine_spans}

    def _overview(self, name: str) -> pl.DataFrame:
        if name == ENGINES_NAME:
            return frame_of(ENGINES, engines.rows(self.engine_spans))
        columns, rows = OVERVIEWS[name]
        return frame_of(columns, rows(self))
