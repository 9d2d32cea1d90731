"""Several sessions -> one: what is decided, and the folder that is made of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from profilemate.schema import names
from profilemate.session.errors import SessionError
from profilemate.sessions.inventory import MODE
from profilemate.sessions.merge.clocks import Clock, place_clocks
from profilemate.sessions.merge.engines import Shift, shifts_of
from profilemate.sessions.merge.pairs import find_pairs
from profilemate.sessions.merge.parts import Part, read_parts, refuse_unfit
from profilemate.sessions.merge.seen import Renamed
from profilemate.sessions.merge.sentences import clock_notes
from profilemate.sessions.merge.write import free_name, in_one_step, write_process, write_session


@dataclass(frozen=True)
class Plan:
    """All that is known before anything is written. `ids` are request ids of engines that take the front end's."""

    parts: tuple[Part, ...]
    clocks: dict[str, Clock]
    shifts: tuple[Shift, ...]
    ids: Renamed
    notes: tuple[str, ...]

    @property
    def reference(self) -> Clock:
        """The clock that the others are put on."""
        return next(clock for clock in self.clocks.values() if clock.is_reference)

    @property
    def begun_ns(self) -> int:
        """Wall time, on the reference, at which the first of the sessions began."""
        moments = [self._begun_ns(part) for part in self.parts]
        return min(moments)

    def _begun_ns(self, part: Part) -> int:
        info = part.session.info
        clock = self.clocks.get(info.boot_id)
        return info.created_wall_ns if clock is None else info.created_monotonic_ns + clock.offset_ns


def plan(paths: Sequence[Path], force: bool = False, on_read: Callable[[int], None] = lambda num_bytes: None) -> Plan:
    """Read what is needed of the sessions and decide. Raises SessionError where they are not to be joined."""
    parts = read_parts(paths)
    for part in parts:
        part.session.on_read = on_read
    doubts = refuse_unfit(parts, force)
    pairs = find_pairs(parts)
    clocks = place_clocks(parts, pairs)
    shifts = shifts_of(parts)
    notes = [*clock_notes(clocks.values()), *(shift.note for shift in shifts if shift.note), *doubts]
    if num_renamed := len(pairs.ids):
        notes.append(
            f"{num_renamed:,} requests had other ids in the engine (another secret); they have the front end's here"
        )
    return Plan(parts, clocks, shifts, pairs.ids, tuple(notes))


def write(made: Plan, output: Path) -> None:
    """Make the session's folder. Raises SessionError where there is something already."""
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise SessionError(f"{output} is there already")
    output.parent.mkdir(parents=True, exist_ok=True)
    in_one_step(output, lambda folder: _fill(made, folder, output.name))


def _fill(made: Plan, folder: Path, name: str) -> None:
    processes = folder / names.PROCESSES_FOLDER
    processes.mkdir(mode=MODE)
    for part, shift in zip(made.parts, made.shifts, strict=True):
        for process in part.processes:
            target = processes / free_name(processes, process.name)
            write_process(part, process, target, made.clocks[part.boot_of(process)], shift, made.ids)
    write_session(folder, session_record(made, name))


def session_record(made: Plan, name: str) -> dict[str, Any]:
    """session.json of the joined session: its beginning on the reference's clock, where it came from, and what is uncertain."""
    begun_ns, reference = made.begun_ns, made.reference
    first = next(part for part in made.parts if any(part.boot_of(p) == reference.boot for p in part.processes))
    settings = {key: value for key, value in first.session.info.settings.items() if key != "directory"}
    return {
        "format": names.FORMAT,
        "session_id": name,
        "created_wall_ns": begun_ns,
        "created_monotonic_ns": begun_ns - reference.offset_ns,
        "boot_id": reference.boot,
        "host": reference.host,
        "profilemate_version": first.session.info.profilemate_version,
        "settings": settings,
        "merged": [part_record(part, shift) for part, shift in zip(made.parts, made.shifts, strict=True)],
        "clocks": [clock_record(clock) for clock in made.clocks.values()],
        "clock_notes": list(made.notes),
    }


def part_record(part: Part, shift: Shift) -> dict[str, Any]:
    """One of the sessions."""
    info = part.session.info
    return {
        "session_id": info.session_id,
        "label": part.label,
        "host": info.host,
        "boot_id": info.boot_id,
        "created_wall_ns": info.created_wall_ns,
        "processes": len(part.processes),
        "engine_numbers_up_by": shift.by,
    }


def clock_record(clock: Clock) -> dict[str, Any]:
    """One clock, in nanoseconds; `error_ns` is null where nothing bounds it."""
    return {
        "boot_id": clock.boot,
        "host": clock.host,
        "sessions": list(clock.labels),
        "is_reference": clock.is_reference,
        "wall_minus_monotonic_ns": clock.offset_ns,
        "moved_ns": clock.moved_ns,
        "error_ns": None if clock.error_ns is None else list(clock.error_ns),
        "requests_seen_on_both": clock.requests,
        "requests_disagree_by_ns": clock.disagree_ns,
        "wall_clock_moved_by_ns": clock.spread_ns,
    }
