"""A session's streams as the data set's tables: read block by block, placed by model, host and engine."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from profilemate.fleet.paths import Place, day_of
from profilemate.fleet.session_columns import KV_TOTALS
from profilemate.fleet.tables import SESSION, TIME, FleetTable, fleet_tables, numbers_engines
from profilemate.fleet.write import Staged
from profilemate.frames.scan import ENGINE_NUMBER, PROCESS, TIME_SEC, process_frames
from profilemate.frames.session import Session
from profilemate.frames.shape import Shape
from profilemate.session.records import ProcessInfo, text
from profilemate.session.segments import TORN_TAIL
from profilemate.session.views import engine_config, graph_workers

if TYPE_CHECKING:
    import polars as pl

LAST_MICROSECOND = 253_402_300_799_999_999
"""Of the year 9999: a moment that damage put beyond it is not known."""

BLOCKS_OF_TOTALS = ("graph_totals", "forward_totals", "engine_step_totals")
"""Tables of blocks of cumulative rows; a block whose end is torn does not count, and no file here tells that it is."""


@dataclass
class Counted:
    """What goes into `sessions`: the last row of each engine's counters, and the last forward pass of each worker."""

    engines: dict[tuple[str, int], dict[str, int | None]] = field(default_factory=dict)
    forwards: dict[str, int] = field(default_factory=dict)

    def note(self, table: str, process: ProcessInfo, frame: pl.DataFrame) -> None:
        """Look at rows as they pass."""
        import polars

        if table == "engine_steps":
            counters = list(KV_TOTALS.values())
            last = frame.filter(polars.col("in_use").is_not_null()).group_by("local_engine").agg(
                polars.col(counters).last()
            )  # fmt: skip
            for row in last.iter_rows(named=True):
                self.engines[process.name, row.pop("local_engine")] = row
        elif table == "forward_passes" and frame.height:
            self.forwards[process.name] = frame["forward"][-1]


@dataclass(frozen=True)
class Places:
    """Where the rows of each process lie."""

    session: Session
    numbers: dict[tuple[str, int], int]
    """The number in the session of each scheduler, by its process and its number there."""

    @classmethod
    def of(cls, session: Session) -> Places:
        """Numbers of schedulers are found by going through the session."""
        spans = session.engine_spans
        return cls(session, {(span.process.name, span.local_engine): span.engine for span in spans})

    @property
    def of_session(self) -> Place:
        """Of rows that are about the whole session."""
        info = self.session.info
        hosts = [process.host for process in self.session.processes if process.host]
        host = info.host or (hosts[0] if hosts else "")
        return Place(day_of(info.created_wall_ns), self.model() or None, host or None, None)

    def of_process(self, process: ProcessInfo) -> Place:
        """Of a process's rows that are not a scheduler's."""
        host = process.host or self.of_session.host
        return Place(self.of_session.day, self.model(process) or None, host, self._engine(process))

    def model(self, process: ProcessInfo | None = None) -> str:
        """The model of a process, of the session's first engine where it names none."""
        own = process.engine_config.get("model") if process else None
        return text(own or engine_config(self.session).get("model"))

    def _engine(self, process: ProcessInfo) -> int | None:
        """Its only scheduler's number, its data-parallel rank as a worker, its index; a front end has none."""
        own = {number for (name, _), number in self.numbers.items() if name == process.name}
        if len(own) == 1:
            return own.pop()
        if "Worker" in process.roles:
            return process.rank("dp")
        return process.engine_index


def write_streams(staged: Staged, session: Session, places: Places) -> Counted:
    """Write every stream of every process; returns what was counted on the way."""
    counted = Counted()
    for process in session.processes:
        for table in fleet_tables().values():
            if table.is_stream:
                for frame in _frames(session, places, process, table, staged.key):
                    counted.note(table.name, process, frame)
                    _place(staged, places, process, table, frame)
        staged.finish_files()
    return counted


def _place(staged: Staged, places: Places, process: ProcessInfo, table: FleetTable, frame: pl.DataFrame) -> None:
    place = places.of_process(process)
    if not numbers_engines(table):
        staged.add(table, place, frame)
        return
    for (number,), part in frame.partition_by(ENGINE_NUMBER, as_dict=True, maintain_order=True).items():
        staged.add(table, place._replace(engine=number if isinstance(number, int) else place.engine), part)


def _frames(
    session: Session, places: Places, process: ProcessInfo, table: FleetTable, key: str
) -> Iterator[pl.DataFrame]:
    shape = Shape(session.streams[table.name])
    columns = [_expression(column.name, column.source, session, process, places, key) for column in table.columns]
    frames = process_frames(session, process, shape, tuple(shape.fields))
    if table.name in BLOCKS_OF_TOTALS:
        frames = _whole_blocks(session, process, table.name, frames)
    for frame in frames:
        if frame.height:
            yield frame.select(columns)


def _expression(name: str, source: str, session: Session, process: ProcessInfo, places: Places, key: str) -> pl.Expr:
    """A column of the data set from those of the stream."""
    import polars

    since_began = polars.col("time_ns") + process.offset_ns
    if source:
        return polars.col(source).alias(name)
    if name == SESSION:
        return polars.lit(key).alias(name)
    if name == PROCESS:
        return polars.lit(process.name).alias(name)
    if name == TIME_SEC:
        return (since_began / 1e9).alias(name)
    if name == TIME:
        return _wall_time(since_began, session.info.created_wall_ns).alias(name)
    assert name == ENGINE_NUMBER
    own = {local: number for (folder, local), number in places.numbers.items() if folder == process.name}
    return polars.col("engine").replace_strict(own, default=None, return_dtype=polars.Int64).alias(name)


def _wall_time(since_began: pl.Expr, created_wall_ns: int) -> pl.Expr:
    import polars

    kind: Any = polars.Datetime("us", "UTC")
    if not created_wall_ns:
        return polars.lit(None, kind)
    microseconds = (since_began + created_wall_ns) // 1000
    return polars.when(microseconds.is_between(0, LAST_MICROSECOND)).then(microseconds).cast(kind)


def _whole_blocks(
    session: Session, process: ProcessInfo, table: str, frames: Iterator[pl.DataFrame]
) -> Iterator[pl.DataFrame]:
    """Without the rows of the last block where its end is torn. There are few of them, so that all are held."""
    import polars

    found = [frame for frame in frames if frame.height]
    if not found:
        return
    rows = polars.concat(found)
    if session.faults.has(f"{process.name}/{table}.csv", TORN_TAIL):
        rows = rows.filter(polars.col("time_ns") != rows["time_ns"][-1])
    yield rows


def shown_workers(session: Session) -> set[str]:
    """Processes whose forward passes stand for their engines."""
    return {worker.process.name for worker in graph_workers(session)}
