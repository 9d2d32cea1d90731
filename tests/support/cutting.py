"""Session folders as plain text: read, cut and written with nothing of ProfileMate's own."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

Cells = list[str]
Record = dict[str, Any]


class Stream:
    """One CSV file of a process: its columns and its rows as text."""

    def __init__(self, path: Path) -> None:
        """Read it whole; the streams of the recordings have no torn row."""
        self.path = path
        header, *lines = path.read_text().splitlines()
        self.columns = header.split(",")
        self.rows = [line.split(",") for line in lines]

    def cell(self, row: Cells, name: str) -> str:
        """A cell by its column."""
        return row[self.columns.index(name)]

    def keep(self, wanted: Callable[[Cells], bool]) -> Stream:
        """Only these rows."""
        self.rows = [row for row in self.rows if wanted(row)]
        return self

    def last_of_each(self, column: str) -> Stream:
        """Of a cumulative stream, the newest row of each value of a column."""
        place = self.columns.index(column)
        self.rows = list({row[place]: row for row in self.rows}.values())
        return self

    def change(self, changed: Callable[[str], str], *names: str) -> Stream:
        """Apply a function to cells of columns that are not empty."""
        for place in [self.columns.index(name) for name in names if name in self.columns]:
            for row in self.rows:
                row[place] = changed(row[place]) if row[place] else ""
        return self

    def without(self, names: Iterable[str]) -> Stream:
        """Leave columns out."""
        places = [place for place, name in enumerate(self.columns) if name not in set(names)]
        self.columns = [self.columns[place] for place in places]
        self.rows = [[row[place] for place in places] for row in self.rows]
        return self

    def text(self) -> str:
        """As the probe writes it."""
        return "".join(",".join(row) + "\n" for row in [self.columns, *self.rows])

    def write(self, torn: str = "") -> None:
        """Back to where it came from; `torn` is what a killed process had written of another row."""
        self.path.write_text(self.text() + torn)

    def add(self, **cells: Any) -> Stream:
        """One row; what is not given is empty."""
        self.rows.append([str(cells.get(name, "")) for name in self.columns])
        return self


def new_stream(path: Path, *columns: str) -> Stream:
    """A stream without rows."""
    path.write_text(",".join(columns) + "\n")
    return Stream(path)


def read_record(path: Path) -> Record:
    """A JSON object."""
    return dict(json.loads(path.read_text()))


def write_record(path: Path, record: Record) -> None:
    """In one line per entry, hooks one a line: small, and a change shows."""
    hooks = record.get("hooks")
    plain = {name: value for name, value in record.items() if name != "hooks"}
    lines = [f" {json.dumps(name)}: {json.dumps(value)}" for name, value in plain.items()]
    if hooks is not None:
        lines.append(' "hooks": [\n' + ",\n".join("  " + json.dumps(hook) for hook in hooks) + "\n ]")
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n")


def processes(session: Path, role: str = "") -> list[Path]:
    """Process folders whose name begins so."""
    return sorted(path for path in (session / "processes").iterdir() if path.name.startswith(role))


def streams(folder: Path) -> list[Stream]:
    """All of a process."""
    return [Stream(path) for path in sorted(folder.glob("*.csv"))]


def copy(source: Path, target: Path) -> Path:
    """Only what the processes wrote: session.json and processes/."""
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    if (source / "session.json").exists():
        shutil.copy(source / "session.json", target)
    shutil.copytree(source / "processes", target / "processes")
    return target


def changed_record(path: Path, **changes: Any) -> Record:
    """Change entries of a JSON file; None takes one out."""
    record = {**read_record(path), **changes}
    kept = {name: value for name, value in record.items() if name not in changes or changes[name] is not None}
    write_record(path, kept)
    return kept


MOMENTS = (
    "time_ns", "scheduled_ns", "peak_time_ns", "allocated_ns", "used_ns", "arrival_ns", "end_ns", "queued_ns",
    "first_token_ns", "last_token_ns", "newest_ns", "median_ns", "oldest_ns", "reach_ns",
)  # fmt: skip
"""Columns that are moments of the monotonic clock, in whatever stream."""


def move_clock(folder: Path, by_ns: int, boot: str) -> None:
    """As if the process had run under a kernel whose monotonic clock is ahead by so much."""
    record = read_record(folder / "process.json")
    clock = {**record["clock"], "monotonic_ns": record["clock"]["monotonic_ns"] + by_ns}
    cost = {**record["cost"], "began_ns": record["cost"]["began_ns"] + by_ns}
    ended = record.get("ended_ns") and record["ended_ns"] + by_ns
    write_record(folder / "process.json", {**record, "boot_id": boot, "clock": clock, "cost": cost, "ended_ns": ended})
    for stream in streams(folder):
        stream.change(lambda cell: str(int(cell) + by_ns), *MOMENTS).write()
