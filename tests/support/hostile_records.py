"""Sessions with hostile texts and records: each maker changes a copy of a golden session."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hostile_values import (
    BIG,
    ESCAPES,
    FORMULAS,
    ODD_FILES,
    ODD_VALUES,
    change,
    change_cells,
    every_text,
    folder_of,
    in_place_of,
    maker,
    of,
    read,
    text_columns,
    with_text,
)


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
        path.write_text(json.dumps(with_text(read(path), lambda number: "w" * 20_000, [0])))
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
    for name in (
        b"\x1b[31m.csv",
        b"..csv",
        b".csv",
        b"\xff.csv",
        b"a b.csv",
        b"-rf.csv",
        b"x.99999999999.csv",
        b"metadata.json",
    ):
        Path(os.fsdecode(os.fsencode(folder_of(session)) + b"/" + name)).write_text("time_ns,a\n1,2\n")
    (folder_of(session) / "engine_steps.000000001.csv").write_text("time_ns\n")
    (folder_of(session) / "\u0661\u0662.csv").write_text("time_ns,a\n1,2\n")
    (folder_of(session) / "own.\u0661.csv").write_text("time_ns,a\n1,2\n")


@maker
def clashing_user_tables(session: Path) -> None:
    """Tables of a user's with the names of files of ours, and columns of ours."""
    for name in (
        "cuda_graph_usage",
        "metadata",
        "report",
        "session",
        "kv_cache_summary",
        "CUDA_GRAPH_USAGE",
        "con",
        "nul",
    ):
        (folder_of(session) / f"{name}.csv").write_text(
            "time_ns,process,timestamp_sec,time_sec,engine_number\n1,2,3,4,5\n"
        )


def _plant(name: str, plant: Callable[[Path], None], where: str, told: str) -> None:
    def make(session: Path) -> None:
        path = session / "session.json" if where == "session" else folder_of(session) / "process.json"
        plant(in_place_of(path))

    make.__name__ = f"{where}_record_{name}"
    make.__doc__ = told
    maker(make)


for _name, _make in ODD_FILES.items():
    for _where in ("session", "process"):
        _plant(_name, _make, _where, f"{_name} in place of a record")

ODD_RECORDS: dict[str, bytes] = {
    "nested": b"[" * 200_000,
    "nested_object": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "many_lists": b'{"engine_config": [' + b"[]," * 600_000 + b"[]]}",
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
        nested = f'"settings": {"[" * depth}{"]" * depth}, "engine_config": {json.dumps(_nested(depth))}'
        deep = f"{json.dumps(record)[:-1]}, {nested}}}"
        path.write_text(deep)
    change(session / "session.json", settings=_nested(200))


@maker
def wrong_types(session: Path) -> None:
    """Every value of every record is of another kind."""
    for number, path in enumerate([session / "session.json", *session.glob("processes/*/process.json")]):
        record = read(path)
        path.write_text(
            json.dumps(
                {
                    key: ODD_VALUES[(n + number) % len(ODD_VALUES)] if key != "format" else 2
                    for n, key in enumerate(record)
                }
            )
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
        config = {
            **read(path)["engine_config"],
            "cudagraph_capture_sizes": list(range(100_000)),
            "asked_capture_sizes": [BIG] * 1000,
        }
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
    path.write_text(json.dumps(with_text(read(path), lambda number: ESCAPES, [0])))


@of("trimmed")
def stored_names_that_lead_out(session: Path) -> None:
    """Files of the user's that lie elsewhere, as metadata.json has them."""
    change(
        session / "metadata.json",
        user_files=["../../canary", "/etc/passwd", "..", "", None, {}, "session.json", "a/b.csv"],
    )


@of("trimmed")
def stored_metadata_is_a_pipe(session: Path) -> None:
    """A FIFO for metadata.json."""
    os.mkfifo(in_place_of(session / "metadata.json"))


@of("trimmed")
def stored_metadata_is_a_link(session: Path) -> None:
    """A link to another file for metadata.json."""
    in_place_of(session / "metadata.json").symlink_to("/proc/self/environ")
