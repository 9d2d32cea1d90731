"""Sessions that somebody prepared: each maker changes a copy of a golden session, and its docstring says what it plants."""

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
    None, True, -1, 0, BIG, -BIG - 1, 1 << 62, 10**12, 10**400, 1e308, 5e-324, -0.0, "", "x", "9" * 5000, ESCAPES, FORMULAS[0], [],
    {}, [[]], [None], [BIG] * 3, {"": None}, "\ud800", "../../../../etc/passwd", [ESCAPES], {ESCAPES: ESCAPES}, [{}],
)  # fmt: skip
ODD_CELLS = (
    "", "0", "-1", "1", str(BIG), str(-BIG - 1), str(1 << 62), str(10**12), str(BIG + 1), "9" * 5000, "1.5", "1e5", "nan", "NaN", "inf",
    " 1", "1 ", "+1", "1_0", "0x10", "\u0661", "True", "true", "None", "x", "=1+1", '"', '"1"', "\x00", "\x1b[31m", "\r", "1\r", "\ufeff",
    "1 2 x", "9999999999 1", "-1 -1", " ", "FULL", "FULL|8", "None|None", "\u2028", "\u0085", "\x1c", "\x0b",
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
    """The process folder of a role."""
    return next(path for path in sorted((session / "processes").iterdir()) if path.name.startswith(role))


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
        path.write_text(json.dumps(_with_text(read(path), text, [0])))
    for path in session.glob("processes/*/*.csv"):
        change_cells(path, text_columns(path.name.partition(".")[0]), text)
    (folder_of(session) / "my_tracker.csv").write_bytes(
        ("time_ns,label\n" + "".join(f"{number},{text(number)}\n" for number in range(40))).encode(errors="surrogatepass")
    )


KEPT = {"format", "state", "tracker", "boot_id", "roles", "role"}
"""Words that decide what is read: with others in their place little of a session would be."""


def _with_text(value: Any, text: Callable[[int], str], count: list[int]) -> Any:
    count[0] += 1
    if isinstance(value, str):
        return text(count[0])
    if isinstance(value, list):
        return [_with_text(one, text, count) for one in value]
    if isinstance(value, dict):
        return {key: one if key in KEPT else _with_text(one, text, count) for key, one in value.items()}
    return value


# -- texts --------------------------------------------------------------------------------------------------------------


@maker
def escapes_everywhere(session: Path) -> None:
    """Terminal sequences in every text."""
    every_text(session, lambda number: f"{ESCAPES.replace(chr(13), '')}{number}")


@maker
def formulas_everywhere(session: Path) -> None:
    """What a spreadsheet would compute, in every text."""
    every_text(session, lambda number: FORMULAS[number % len(FORMULAS)])


@maker
def endless_texts(session: Path) -> None:
    """Every text as long as a line may be."""
    for path in [session / "session.json", *session.glob("processes/*/process.json")]:
        path.write_text(json.dumps(_with_text(read(path), lambda number: "w" * 20_000, [0])))
    for path in session.glob("processes/*/*.csv"):
        change_cells(path, text_columns(path.name.partition(".")[0]), lambda number: "w" * 4000)


@maker
def odd_folder_names(session: Path) -> None:
    """Names of process folders with everything that a file system takes."""
    for number, path in enumerate(sorted((session / "processes").iterdir())):
        name = (b"=cmd\n\x1b]0;t\x07%s%n {x}", b"--help\xff\xfe", "\u202e\u200b'; rm -rf".encode())[number]
        os.rename(path, os.fsencode(path.parent) + b"/" + name)
    (session / "processes" / ("n" * 255)).mkdir()


@maker
def odd_file_names(session: Path) -> None:
    """Names of files that are no table's, or nearly."""
    for name in (b"\x1b[31m.csv", b"..csv", b".csv", b"\xff.csv", b"a b.csv", b"-rf.csv", b"x.99999999999.csv", b"metadata.json"):
        Path(os.fsdecode(os.fsencode(folder_of(session)) + b"/" + name)).write_text("time_ns,a\n1,2\n")
    (folder_of(session) / "engine_steps.000000001.csv").write_text("time_ns\n")
    (folder_of(session) / "\u0661\u0662.csv").write_text("time_ns,a\n1,2\n")
    (folder_of(session) / "own.\u0661.csv").write_text("time_ns,a\n1,2\n")


@maker
def clashing_user_tables(session: Path) -> None:
    """Tables of a user's with the names of files of ours, and columns of ours."""
    for name in ("cuda_graph_usage", "metadata", "report", "session", "kv_cache_summary", "CUDA_GRAPH_USAGE", "con", "nul"):
        (folder_of(session) / f"{name}.csv").write_text("time_ns,process,timestamp_sec,time_sec,engine_number\n1,2,3,4,5\n")


# -- records ------------------------------------------------------------------------------------------------------------


def _plant(name: str, plant: Callable[[Path], None], where: str, told: str) -> None:
    def make(session: Path) -> None:
        path = session / "session.json" if where == "session" else folder_of(session) / "process.json"
        plant(in_place_of(path))

    make.__name__ = f"{where}_record_{name}"
    make.__doc__ = told
    maker(make)


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
for _name, _make in ODD_FILES.items():
    for _where in ("session", "process"):
        _plant(_name, _make, _where, f"{_name} in place of a record")

ODD_RECORDS: dict[str, bytes] = {
    "nested": b"[" * 200_000,
    "nested_object": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "many_lists": b'{"engine_config": [' + b"[]," * 2_000_000 + b"[]]}",
    "digits": b'{"pid": ' + b"9" * 1_000_000 + b"}",
    "large": b'{"host": "' + b"h" * (17 << 20) + b'"}',
    "twice": b'{"role": "Worker", "role": ["x"], "pid": {}, "pid": 5, "hooks": 3, "hooks": [{"name": "a"}, 3, null]}',
    "bom": b'\xef\xbb\xbf{"role": "EngineCore"}',
    "utf16": '{"role": "EngineCore"}'.encode("utf-16"),
    "not_utf8": b'{"role": "\xff\xfe"}',
    "not_numbers": b'{"engine_config": {"max_num_seqs": NaN, "a": Infinity, "b": -Infinity, "block_size": 1e999}, "pid": NaN, '
    b'"clock": {"wall_ns": Infinity, "monotonic_ns": NaN}, "cost": {"entry_ns": NaN, "began_ns": 1e999}}',
}  # fmt: skip
for _name, _data in ODD_RECORDS.items():
    for _where in ("session", "process"):
        _plant(_name, lambda path, data=_data: path.write_bytes(data) and None, _where, f"{_name}: JSON that is none")  # type: ignore[misc]


def _nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = {"a": [value]}
    return value


@maker
def deep_settings(session: Path) -> None:
    """As deep as JSON is read, which is deeper than it is written."""
    for depth, role in ((40, "Worker"), (230, "EngineCore"), (480, "APIServer")):
        path = folder_of(session, role) / "process.json"
        record = read(path)
        deep = f"{json.dumps(record)[:-1]}, \"settings\": {'[' * depth}{']' * depth}, \"engine_config\": {json.dumps(_nested(depth))}}}"
        path.write_text(deep)
    change(session / "session.json", settings=_nested(200))


@maker
def wrong_types(session: Path) -> None:
    """Every value of every record is of another kind."""
    for number, path in enumerate([session / "session.json", *session.glob("processes/*/process.json")]):
        record = read(path)
        path.write_text(
            json.dumps({key: ODD_VALUES[(n + number) % len(ODD_VALUES)] if key != "format" else 2 for n, key in enumerate(record)})
        )


@maker
def huge_configuration(session: Path) -> None:
    """Every number of vLLM's configuration is as large as one can be."""
    _every_number(session, lambda value: BIG)


@maker
def zero_configuration(session: Path) -> None:
    """Every number of vLLM's configuration is nothing."""
    _every_number(session, lambda value: 0)


@maker
def negative_configuration(session: Path) -> None:
    """Every number of vLLM's configuration is below nothing."""
    _every_number(session, lambda value: -value)


@maker
def large_configuration(session: Path) -> None:
    """Every number is one that a loop would take hours for."""
    _every_number(session, lambda value: 10**11)


def _every_number(session: Path, number: Callable[[Any], Any]) -> None:
    def changed(value: Any) -> Any:
        if isinstance(value, (list, tuple)):
            return [changed(one) for one in value]
        if isinstance(value, dict):
            return {key: changed(one) for key, one in value.items()}
        return number(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else value

    for path in session.glob("processes/*/process.json"):
        record = read(path)
        change(path, engine_config=changed(record["engine_config"]), ranks=changed(record["ranks"]))


@of("everything")
def huge_configuration_of_everything(session: Path) -> None:
    """The same where every tracker was on."""
    _every_number(session, lambda value: BIG)


@of("everything")
def large_configuration_of_everything(session: Path) -> None:
    """The same where every tracker was on."""
    _every_number(session, lambda value: 10**11)


@maker
def many_sizes(session: Path) -> None:
    """A ladder of a hundred thousand graphs."""
    for path in session.glob("processes/*/process.json"):
        config = {**read(path)["engine_config"], "cudagraph_capture_sizes": list(range(100_000)), "asked_capture_sizes": [BIG] * 1000}
        change(path, engine_config=config)


@of("trimmed")
def stored_metadata_of_other_types(session: Path) -> None:
    """The metadata of a session without detail, every value another kind."""
    path = session / "metadata.json"
    path.write_text(json.dumps(_rotated(read(path), [0])))


def _rotated(value: Any, count: list[int]) -> Any:
    count[0] += 1
    if isinstance(value, dict) and value:
        return {key: _rotated(one, count) for key, one in value.items()}
    if isinstance(value, list) and value:
        return [_rotated(one, count) for one in value]
    return ODD_VALUES[count[0] % len(ODD_VALUES)]


@of("trimmed")
def stored_metadata_of_numbers(session: Path) -> None:
    """The same with one number everywhere."""
    path = session / "metadata.json"
    path.write_text(json.dumps(_all(read(path), BIG)))


def _all(value: Any, leaf: Any) -> Any:
    if isinstance(value, dict):
        return {key: _all(one, leaf) for key, one in value.items()}
    return [_all(one, leaf) for one in value] if isinstance(value, list) else leaf


@of("trimmed")
def stored_metadata_that_escapes(session: Path) -> None:
    """Terminal sequences in the metadata of a session without detail."""
    path = session / "metadata.json"
    path.write_text(json.dumps(_with_text(read(path), lambda number: ESCAPES, [0])))


@of("trimmed")
def stored_names_that_lead_out(session: Path) -> None:
    """Files of the user's that lie elsewhere, as metadata.json has them."""
    change(session / "metadata.json", user_files=["../../canary", "/etc/passwd", "..", "", None, {}, "session.json", "a/b.csv"])


@of("trimmed")
def stored_metadata_is_a_pipe(session: Path) -> None:
    """A FIFO for metadata.json."""
    os.mkfifo(in_place_of(session / "metadata.json"))


@of("trimmed")
def stored_metadata_is_a_link(session: Path) -> None:
    """A link to another file for metadata.json."""
    in_place_of(session / "metadata.json").symlink_to("/proc/self/environ")


# -- files --------------------------------------------------------------------------------------------------------------

ODD_STREAMS: dict[str, Callable[[Path], None]] = {
    **ODD_FILES,
    "empty": lambda path: path.touch(),
    "nul": lambda path: path.write_bytes(bytes(1 << 20)) and None,
    "binary": lambda path: path.write_bytes(bytes(range(256)) * 4096) and None,
    "line": lambda path: path.write_bytes(b"time_ns,x," + b"7" * (50 << 20)) and None,
    "commas": lambda path: path.write_bytes(b"time_ns\n" + b"," * (4 << 20) + b"\n") and None,
    "line_ends": lambda path: path.write_bytes(b"time_ns\n" + b"\n" * (1 << 20)) and None,
    "columns": lambda path: path.write_bytes(b"time_ns," + b",".join(b"c%d" % n for n in range(8000)) + b"\n" + b"," * 8000 + b"\n") and None,
    "same_columns": lambda path: path.write_bytes(b"time_ns,time_ns,a,a\n1,2,3,4\n") and None,
    "utf16": lambda path: path.write_bytes("time_ns,a\n1,2\n".encode("utf-16")) and None,
    "compressed": lambda path: path.write_bytes(b"\x1f\x8b\x08\x00" + bytes(range(256)) * 64) and None,
    "sparse": lambda path: (path.write_bytes(b"time_ns,a\n1,2\n"), os.truncate(path, 256 << 20))[1],
}  # fmt: skip
"""What may lie in a stream's place."""


def _plant_streams(name: str, plant: Callable[[Path], None]) -> None:
    def make(session: Path) -> None:
        for folder in sorted((session / "processes").iterdir()):
            for path in sorted(folder.glob("*.csv")):
                if name in ("line", "sparse", "binary") and path.stem not in ("engine_steps", "kv_evictions", "request_ends"):
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
_rewritten("quotes", lambda data: b"\n".join(b'"' + line.replace(b",", b'","') + b'"' for line in data.split(b"\n")), "quotes")
_rewritten("no_header", lambda data: data.partition(b"\n")[2], "the header is gone")
_rewritten("half_of_each_line", lambda data: b"\n".join(line[: len(line) // 2] for line in data.split(b"\n")), "torn everywhere")
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


# -- folders ------------------------------------------------------------------------------------------------------------


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
    for number in range(2000):
        shutil.copy(path, path.with_name(f"kv_evictions.{number + 1}.csv"))


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
    for name in ("metadata.json", "cuda_graph_usage.csv", "kv_cache_summary.txt", "report.html", "detail_removed.json.x", "my.csv"):
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
