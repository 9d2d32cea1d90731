"""What a session says about itself, as frames: its processes, its hooks, its damage, its lost rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from profilemate.schema import names
from profilemate.session.alive import is_alive
from profilemate.session.health import ProcessHook, read_health
from profilemate.session.records import ProcessInfo
from profilemate.session.session import Session
from profilemate.session.views import graph_workers

if TYPE_CHECKING:
    import polars as pl

Row = tuple[Any, ...]

PROCESSES = (
    ("process", "str", "name of its folder, as in the other tables"),
    ("role", "str", "APIServer, LLM, EngineCore or Worker, with its ranks as vLLM names them"),
    ("engine_index", "int", "vLLM's index of the engine; empty where it has none"),
    ("shown_engine", "int", "of a worker whose forward passes stand for an engine in the README's files: that engine"),
    ("dp_rank", "int", "data-parallel rank; empty where vLLM named none"),
    ("pp_rank", "int", "pipeline-parallel rank"),
    ("tp_rank", "int", "tensor-parallel rank"),
    ("host", "str", "where it ran"),
    ("pid", "int", "its process id there"),
    ("began_sec", "float", "when ProfileMate came into it, seconds since the session began"),
    ("clock_offset_ns", "int", "added to its monotonic times this gives nanoseconds since the session began"),
    ("is_recorded", "bool", "whether its process.json could be read"),
    ("is_running", "bool", "whether it runs on this machine now"),
    ("python", "str", "version"),
    ("vllm", "str", "version"),
    ("torch", "str", "version"),
    ("profilemate", "str", "version"),
)
HOOKS = (
    ("process", "str", "name of the process folder"),
    ("hook", "str", "name of the hook"),
    ("tracker", "str", "whose it is"),
    ("target", "str", "vLLM's module and function"),
    ("state", "str", "put_in, switched_off, does_not_fit, absent, waiting, not_in_this_version, tracker_off"),
    ("reason", "str", "why it is in that state"),
    ("calls", "int", "calls so far"),
    ("failures", "int", "exceptions in ProfileMate's own code"),
    ("as_of_sec", "float", "when the calls were last counted, seconds since the session began"),
)
LOST_ROWS = (
    ("process", "str", "name of the process folder"),
    ("table", "str", "the stream that lacks rows"),
    ("reason", "str", "size_cap, disk_floor, slow, or the errno name of a failed write"),
    ("rows", "int", "how many"),
)
FAULTS = (
    ("file", "str", "process folder and file"),
    ("fault", "str", "what is wrong, as far as was read so far"),
    ("count", "int", "how often"),
)
ENGINES = (
    ("engine_number", "int", "number of the scheduler in the session"),
    ("process", "str", "name of the process folder"),
    ("engine", "int", "its number in that process"),
    ("engine_index", "int", "vLLM's index of the engine"),
    ("began_sec", "float", "its first row, seconds since the session began"),
    ("ended_sec", "float", "its last row, seconds since the session began"),
    ("stream", "str", "where these rows are"),
)


def is_recorded(session: Session, process: ProcessInfo) -> bool:
    """Whether process.json said what the process is."""
    where = f"{process.name}/{names.PROCESS_FILE}"
    return all(fault.where != where for fault in session.faults.list())


def processes(session: Session) -> list[Row]:
    """One row per process, as PROCESSES."""
    shown = {worker.process.name: worker.engine for worker in graph_workers(session)}
    return [
        (
            process.name, process.role, process.engine_index, shown.get(process.name),
            *(process.ranks.get(group) for group in ("dp", "pp", "tp")), process.host, process.pid or None,
            process.at(process.began_ns) / 1e9 if process.began_ns else None, process.offset_ns,
            is_recorded(session, process), is_alive(process),
            *(process.versions.get(name) or None for name in ("python", "vllm", "torch", "profilemate")),
        )
        for process in session.processes
    ]  # fmt: skip


def hooks(session: Session) -> list[Row]:
    """One row per hook and process, as HOOKS."""
    return [_hook(hook) for hook in read_health(session).by_process]


def _hook(hook: ProcessHook) -> Row:
    record = hook.record
    as_of_sec = None if hook.as_of_ns is None else hook.as_of_ns / 1e9
    words = (record.name, record.tracker or None, record.target or None, hook.state, record.reason or None)
    return (hook.process, *words, hook.calls, hook.failures, as_of_sec)


def lost_rows(session: Session) -> list[Row]:
    """One row per process, stream and reason, as LOST_ROWS."""
    return [(lost.process, lost.table, lost.reason, lost.rows) for lost in read_health(session).lost]


def faults(session: Session) -> list[Row]:
    """One row per file and kind, as FAULTS."""
    return [(fault.where, fault.what, fault.count) for fault in session.faults.list()]


Columns = tuple[tuple[str, str, str], ...]
OVERVIEWS: dict[str, tuple[Columns, Callable[[Session], list[Row]]]] = {
    "processes": (PROCESSES, processes),
    "hooks": (HOOKS, hooks),
    "lost_rows": (LOST_ROWS, lost_rows),
    "faults": (FAULTS, faults),
}


def frame_of(columns: Columns, rows: list[Row]) -> pl.DataFrame:
    """Rows as a frame with the types of the columns."""
    import polars

    kinds = {"int": polars.Int64, "str": polars.String, "bool": polars.Boolean, "float": polars.Float64}
    return polars.DataFrame(rows, schema={name: kinds[kind] for name, kind, _ in columns}, orient="row")
