"""Writes session folders by hand, as the half inside vLLM does, for tests of the half that reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from profilemate.schema import names
from profilemate.schema.table import Table

BOOT = "boot-of-the-session"
CREATED_WALL_NS = 1_764_000_000_000_000_000
CREATED_MONOTONIC_NS = 5_000_000_000_000
SECOND = 1_000_000_000


def at(seconds: float) -> int:
    """Monotonic time of a process of the session's boot, so long after the session began."""
    return CREATED_MONOTONIC_NS + round(seconds * SECOND)


def line(table: Table, cells: dict[str, Any]) -> str:
    """One row as the probe writes it; what is not given is empty."""
    unknown = set(cells) - set(table.columns)
    assert not unknown, f"{table.name} has no column {unknown}"
    return ",".join("" if cells.get(name) is None else str(cells[name]) for name in table.columns) + "\n"


class ProcessBuilder:
    """One process folder."""

    def __init__(self, session: Path, role: str, pid: int, record: dict[str, Any] | None) -> None:
        """`record` overrides process.json; None leaves the file out."""
        self.folder = session / "processes" / f"{role}.host.{pid}.{pid}00"
        self.folder.mkdir(parents=True)
        if record is not None:
            content = {
                "format": names.FORMAT, "role": role, "roles": [role.split("_")[0]], "ranks": {}, "engine_index": 0,
                "host": "host",
                "pid": pid, "start_time": pid * 100, "boot_id": BOOT, "vllm": "0.32.0",
                "clock": {"wall_ns": CREATED_WALL_NS + SECOND, "monotonic_ns": CREATED_MONOTONIC_NS + SECOND},
                "engine_config": {}, "hooks": [], **record,
            }  # fmt: skip
            (self.folder / "process.json").write_text(json.dumps(content))

    def rows(self, table: Table, *rows: dict[str, Any], segment: int | None = None, tail: str = "") -> ProcessBuilder:
        """Append rows to the current file or to a set-aside segment; `tail` is torn text after them."""
        name = f"{table.name}.csv" if segment is None else f"{table.name}.{segment}.csv"
        path = self.folder / name
        text = path.read_text() if path.exists() else table.header
        path.write_text(text + "".join(line(table, row) for row in rows) + tail)
        return self

    def raw(self, name: str, data: bytes) -> ProcessBuilder:
        """A file of any content."""
        (self.folder / name).write_bytes(data)
        return self


class SessionBuilder:
    """One session folder."""

    def __init__(self, directory: Path, name: str = "session_20251124_160000", **record: Any) -> None:
        """`record` overrides session.json."""
        self.path = directory / name
        (self.path / "processes").mkdir(parents=True)
        content = {
            "format": names.FORMAT, "session_id": name, "created_wall_ns": CREATED_WALL_NS,
            "created_monotonic_ns": CREATED_MONOTONIC_NS, "boot_id": BOOT, "host": "host", "pid": 1,
            "profilemate_version": "0.1.0", "settings": {"directory": str(directory), "log_interval": 100}, **record,
        }  # fmt: skip
        (self.path / "session.json").write_text(json.dumps(content))
        self._pid = 900_000_000

    def process(self, role: str, **record: Any) -> ProcessBuilder:
        """A process with a pid that no kernel gives."""
        self._pid += 1
        return ProcessBuilder(self.path, role, self._pid, record)

    def nameless(self, role: str) -> ProcessBuilder:
        """A process that was killed before it wrote process.json."""
        self._pid += 1
        return ProcessBuilder(self.path, role, self._pid, None)

    def text(self, name: str) -> str:
        """Content of an exported file."""
        return (self.path / name).read_text()

    def lines(self, name: str) -> list[str]:
        """Its lines without the header."""
        return self.text(name).splitlines()[1:]

    def metadata(self) -> dict[str, Any]:
        """metadata.json."""
        return dict(json.loads(self.text("metadata.json")))
