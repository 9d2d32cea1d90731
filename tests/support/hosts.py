"""One recorded session as two hosts would have recorded it: each with processes, a boot and a wall clock of its own."""

from __future__ import annotations

import shutil
from pathlib import Path

import cutting
from cutting import Stream

BOOT = "33333333-3333-4333-8333-333333333333"
VLLM_MOMENTS = ("queued_ns", "scheduled_ns", "first_token_ns", "last_token_ns")
"""What a front end's rows have of the engine's clock."""


def split(
    source: Path, directory: Path, there: str, wall_ns: int, monotonic_ns: int, host: str = "hostb"
) -> tuple[Path, Path]:
    """The processes whose names hold `there` go to another host, whose wall clock is ahead by so much.

    Its kernel's monotonic clock is ahead by `monotonic_ns`. vLLM sends an engine's moments to the front end as they are, so the
    front end's rows have them on that clock.
    """
    here = cutting.copy(source, directory / "a" / source.name)
    other = cutting.copy(source, directory / "b" / source.name)
    for folder in cutting.processes(here):
        if there in folder.name:
            shutil.rmtree(folder)
    for folder in cutting.processes(other):
        if there not in folder.name:
            shutil.rmtree(folder)
    _elsewhere(other, wall_ns, monotonic_ns, host)
    for folder in cutting.processes(here):
        _front_end(folder, _requests(other), monotonic_ns)
    return here, other


def _elsewhere(session: Path, wall_ns: int, monotonic_ns: int, host: str) -> None:
    record = cutting.read_record(session / "session.json")
    cutting.changed_record(
        session / "session.json",
        host=host,
        boot_id=BOOT,
        created_wall_ns=record["created_wall_ns"] + wall_ns,
        created_monotonic_ns=record["created_monotonic_ns"] + monotonic_ns,
    )
    for folder in cutting.processes(session):
        cutting.move_clock(folder, monotonic_ns, BOOT)
        clock = cutting.read_record(folder / "process.json")["clock"]
        clock["wall_ns"] += wall_ns
        cutting.changed_record(folder / "process.json", clock=clock, host=host)


def _requests(session: Path) -> set[str]:
    """Requests of its engines."""
    paths = session.glob("processes/*/engine_requests.csv")
    return {stream.cell(row, "request") for stream in map(Stream, paths) for row in stream.rows}


def _front_end(folder: Path, theirs: set[str], monotonic_ns: int) -> None:
    if not (folder / "request_ends.csv").exists():
        return
    ends = Stream(folder / "request_ends.csv")
    for row in ends.rows:
        if ends.cell(row, "request") in theirs:
            for place in [ends.columns.index(name) for name in VLLM_MOMENTS]:
                row[place] = str(int(row[place]) + monotonic_ns) if row[place] else ""
    ends.write()
