"""Sessions with hostile streams and folders: each maker changes a copy of a golden session."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from hostile_values import BASES, BIG, ODD_FILES, change, change_cells, folder_of, in_place_of, maker, text_columns

MANY_COLUMNS = b"time_ns," + b",".join(b"c%d" % number for number in range(8000))
ODD_STREAMS: dict[str, Callable[[Path], None]] = {
    **ODD_FILES,
    "empty": lambda path: path.touch(),
    "nul": lambda path: path.write_bytes(bytes(1 << 20)) and None,
    "binary": lambda path: path.write_bytes(bytes(range(256)) * 4096) and None,
    "line": lambda path: path.write_bytes(b"time_ns,x," + b"7" * (50 << 20)) and None,
    "commas": lambda path: path.write_bytes(b"time_ns\n" + b"," * (4 << 20) + b"\n") and None,
    "line_ends": lambda path: path.write_bytes(b"time_ns\n" + b"\n" * (1 << 17)) and None,
    "columns": lambda path: path.write_bytes(MANY_COLUMNS + b"\n" + b"," * 8000 + b"\n") and None,
    "same_columns": lambda path: path.write_bytes(b"time_ns,time_ns,a,a\n1,2,3,4\n") and None,
    "utf16": lambda path: path.write_bytes("time_ns,a\n1,2\n".encode("utf-16")) and None,
    "compressed": lambda path: path.write_bytes(b"\x1f\x8b\x08\x00" + bytes(range(256)) * 64) and None,
    "sparse": lambda path: (path.write_bytes(b"time_ns,a\n1,2\n"), os.truncate(path, 32 << 20))[1],
}  # fmt: skip
"""What may lie in a stream's place."""


def _plant_streams(name: str, plant: Callable[[Path], None]) -> None:
    def make(session: Path) -> None:
        for folder in sorted((session / "processes").iterdir()):
            for path in sorted(folder.glob("*.csv")):
                if name in ("line", "sparse", "binary", "line_ends", "commas") and path.stem not in (
                    "engine_steps",
                    "kv_evictions",
                    "request_ends",
                ):
                    continue
                plant(in_place_of(path))
        plant(folder_of(session) / "my_tracker.csv")
        plant(folder_of(session) / "engine_steps.1.csv")

    make.__name__ = f"streams_{name}"
    make.__doc__ = f"{name} in place of every stream"
    maker(make)


for _name, _make in ODD_STREAMS.items():
    _plant_streams(_name, _make)


def _rewritten(name: str, rewrite: Callable[[bytes], bytes], told: str) -> None:
    def make(session: Path) -> None:
        for path in session.glob("processes/*/*.csv"):
            path.write_bytes(rewrite(path.read_bytes()))

    make.__name__ = f"streams_with_{name}"
    make.__doc__ = told
    maker(make)


_rewritten("windows_line_ends", lambda data: data.replace(b"\n", b"\r\n"), "CR LF")
_rewritten("lone_carriage_returns", lambda data: data.replace(b"\n", b"\r"), "CR alone: one torn line")
_rewritten("a_byte_order_mark", lambda data: b"\xef\xbb\xbf" + data, "a mark before the header")
_rewritten(
    "quotes", lambda data: b"\n".join(b'"' + line.replace(b",", b'","') + b'"' for line in data.split(b"\n")), "quotes"
)
_rewritten("no_header", lambda data: data.partition(b"\n")[2], "the header is gone")
_rewritten(
    "half_of_each_line",
    lambda data: b"\n".join(line[: len(line) // 2] for line in data.split(b"\n")),
    "torn everywhere",
)
_rewritten("nul_bytes", lambda data: data.replace(b"0", b"\x00"), "a NUL for each 0")
_rewritten("high_bytes", lambda data: data.replace(b"1", b"\xff"), "bytes that are not UTF-8")
_rewritten("rows_twice", lambda data: data + data, "a second header and all rows again")
_rewritten("rows_reversed", lambda data: _reversed(data), "the newest row first")


def _reversed(data: bytes) -> bytes:
    header, *rows = data.splitlines(keepends=True)
    return b"".join([header, *rows[::-1]])


def _numbers(name: str, base: str, cell: str) -> None:
    def make(session: Path) -> None:
        for path in session.glob("processes/*/*.csv"):
            name = path.name.partition(".")[0]
            header = path.read_text().partition("\n")[0].split(",")
            change_cells(path, set(header) - text_columns(name), lambda number: cell)

    make.__name__ = name
    make.__doc__ = f"every number is {cell[:24]}"
    BASES[name] = base
    maker(make)


_numbers("every_number_is_the_largest", "server", str(BIG))
_numbers("every_number_is_the_least", "server", str(-BIG - 1))
_numbers("every_number_is_nothing", "server", "0")
_numbers("every_number_is_below_nothing", "server", "-1")
_numbers("every_number_is_a_million_million", "server", str(10**12))
_numbers("every_number_has_many_digits", "server", "9" * 5000)
_numbers("every_number_of_everything_is_the_largest", "everything", str(BIG))
_numbers("every_number_of_everything_is_a_million_million", "everything", str(10**12))
_numbers("every_number_of_everything_is_below_nothing", "everything", "-1")


@maker
def other_tables(session: Path) -> None:
    """Every stream has the content of another."""
    for folder in sorted((session / "processes").iterdir()):
        paths = sorted(folder.glob("*.csv"))
        contents = [path.read_bytes() for path in paths]
        for path, content in zip(paths, contents[1:] + contents[:1], strict=True):
            path.write_bytes(content)


@maker
def thousands_of_processes(session: Path) -> None:
    """Three thousand process folders without anything."""
    for number in range(3000):
        (session / "processes" / f"Worker_DP{number}.host.{number + 1}.{number + 1}").mkdir()


@maker
def thousands_of_tables(session: Path) -> None:
    """Two thousand tables of a user's, in one process."""
    for number in range(2000):
        (folder_of(session) / f"t{number}.csv").write_text("time_ns,a\n1,2\n")


@maker
def thousands_of_segments(session: Path) -> None:
    """Two thousand segments of one stream: more files than a process may open."""
    path = folder_of(session) / "kv_evictions.csv"
    first = b"".join(path.read_bytes().splitlines(keepends=True)[:2])
    for number in range(2000):
        path.with_name(f"kv_evictions.{number + 1}.csv").write_bytes(first)


@maker
def processes_is_a_file(session: Path) -> None:
    """A file where the process folders should be."""
    in_place_of(session / "processes").write_text("x")


@maker
def processes_is_a_link(session: Path) -> None:
    """The process folders lie elsewhere."""
    elsewhere = Path(shutil.move(session / "processes", session / "elsewhere"))
    (session / "processes").symlink_to(elsewhere)


@maker
def process_folder_is_a_link(session: Path) -> None:
    """A process folder is a link to the root of all."""
    (session / "processes" / "Worker.host.1.2").symlink_to("/")


@maker
def exports_are_links(session: Path) -> None:
    """Files that an export writes are links to a file outside; they are replaced, and the file outside stays."""
    for name in (
        "metadata.json",
        "cuda_graph_usage.csv",
        "kv_cache_summary.txt",
        "report.html",
        "detail_removed.json.x",
        "my.csv",
    ):
        in_place_of(session / name).symlink_to(session.parent.parent / "canary")
    (session / f".metadata.json.{os.getpid()}.new").symlink_to(session.parent.parent / "canary")


@maker
def exports_are_folders(session: Path) -> None:
    """Files that an export writes are folders."""
    for name in ("cuda_graph_usage.csv", "report.html", f".metadata.json.{os.getpid()}.new", ".x.1.new"):
        in_place_of(session / name).mkdir()


@maker
def a_cap_of_nothing(session: Path) -> None:
    """Settings that would have an export tidy up elsewhere."""
    change(session / "session.json", settings={"directory": "/", "folder_cap_bytes": 1, "trackers": "x"})
