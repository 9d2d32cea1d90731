"""What hostile sessions are made of: odd values, cells, texts and files, and changing a session's records and rows."""

from __future__ import annotations

import json
import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

from profilemate.schema.probe_tables import PROBE_TABLES
from profilemate.schema.table import Table
from profilemate.trackers import NAMES
from profilemate.trackers.view import tables_of

Maker = Callable[[Path], None]
MAKERS: dict[str, Maker] = {}
BASES: dict[str, str] = {}

ESCAPES = "\x1b]8;;http://x/\x07k\x1b[31m\x9b2J\u202egnp\u2066\x00\r\t\x08\x7f\u200b\ud83d"
"""A link, colours, a cleared screen, turned text, a lone half of a pair: what no terminal may get."""

FORMULAS = ("=cmd|' /C calc'!A0", "+1+1", "-1+1", "@SUM(1)", "\t=1", "\uff1d1+1", "x;=1+1", '"=1+1"', " =1", "-", "=")
BIG = (1 << 63) - 1
ODD_VALUES: tuple[Any, ...] = (
    None, True, -1, 0, BIG, -BIG - 1, 1 << 62, 10**12, 10**400, 1e308, 5e-324, -0.0, "", "x", "9" * 5000, ESCAPES, FORMULAS[0],
    [], {}, [[]], [None], [BIG] * 3, {"": None}, "\ud800", "../../../../etc/passwd", [ESCAPES], {ESCAPES: ESCAPES}, [{}],
)  # fmt: skip
ODD_CELLS = (
    "", "0", "-1", "1", str(BIG), str(-BIG - 1), str(1 << 62), str(10**12), str(BIG + 1), "9" * 5000, "1.5", "1e5",
    "nan", "NaN", "inf", " 1", "1 ", "+1", "1_0", "0x10", "\u0661", "True", "true", "None", "x", "=1+1",
    '"', '"1"', "\x00", "\x1b[31m", "\r",
    "1\r", "\ufeff", "1 2 x", "9999999999 1", "-1 -1", " ", "FULL", "FULL|8", "None|None", "\u2028", "\u0085", "\x1c", "\x0b",
)  # fmt: skip


def maker(function: Maker) -> Maker:
    """Put it on the list; it changes a copy of `server`."""
    MAKERS[function.__name__] = function
    return function


def of(base: str) -> Callable[[Maker], Maker]:
    """The same for another golden session."""

    def put(function: Maker) -> Maker:
        BASES[function.__name__] = base
        return maker(function)

    return put


def folder_of(session: Path, role: str = "EngineCore") -> Path:
    """The process folder of a role, else the first one."""
    folders = sorted((session / "processes").iterdir())
    return next((path for path in folders if path.name.startswith(role)), folders[0])


def in_place_of(path: Path) -> Path:
    """The path, with nothing there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    return path


def read(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text()))


def change(path: Path, **values: Any) -> None:
    """Values of a record."""
    path.write_text(json.dumps({**read(path), **values}))


def all_tables() -> list[Table]:
    """Every table that there is."""
    return [*PROBE_TABLES, *(table for tracker in NAMES for table in tables_of(tracker))]


def text_columns(name: str) -> set[str]:
    """Columns of a stream that hold text."""
    return {field.name for table in all_tables() if table.name == name for field in table.fields if field.kind == "str"}


def change_cells(path: Path, columns: set[str], text: Callable[[int], str]) -> None:
    """Every cell of these columns, by its number."""
    lines = path.read_text().splitlines()
    header = lines[0].split(",")
    places = [place for place, name in enumerate(header) if name in columns]
    for number, line in enumerate(lines[1:], 1):
        cells = line.split(",")
        for place in places:
            cells[place] = text(number + place)
        lines[number] = ",".join(cells)
    path.write_bytes(("\n".join(lines) + "\n").encode("utf-8", "surrogatepass"))


def every_text(session: Path, text: Callable[[int], str]) -> None:
    """Every text that a session can hold of others' words: records, cells, names of tables' columns excepted."""
    for path in [session / "session.json", *session.glob("processes/*/process.json")]:
        path.write_text(json.dumps(with_text(read(path), text, [0])))
    for path in session.glob("processes/*/*.csv"):
        change_cells(path, text_columns(path.name.partition(".")[0]), text)
    (folder_of(session) / "my_tracker.csv").write_bytes(
        ("time_ns,label\n" + "".join(f"{number},{text(number)}\n" for number in range(40))).encode(
            errors="surrogatepass"
        )
    )


KEPT = {"format", "state", "tracker", "boot_id", "roles", "role"}
"""Words that decide what is read: with others in their place little of a session would be."""


def with_text(value: Any, text: Callable[[int], str], count: list[int]) -> Any:
    count[0] += 1
    if isinstance(value, str):
        return text(count[0])
    if isinstance(value, list):
        return [with_text(one, text, count) for one in value]
    if isinstance(value, dict):
        return {key: one if key in KEPT else with_text(one, text, count) for key, one in value.items()}
    return value


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as one:
        here = os.open(path.parent, os.O_RDONLY)
        one.bind(f"/proc/self/fd/{here}/{path.name}")
        os.close(here)


ODD_FILES: dict[str, Callable[[Path], None]] = {
    "fifo": lambda path: os.mkfifo(path),
    "socket": _socket,
    "endless": lambda path: path.symlink_to("/dev/zero"),
    "terminal": lambda path: path.symlink_to("/dev/tty"),
    "loop": lambda path: path.symlink_to(path.name),
    "dangling": lambda path: path.symlink_to("nowhere"),
    "folder": lambda path: path.mkdir(),
}
