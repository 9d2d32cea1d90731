"""Tables of a user's trackers on the reading side: told by what lies in the folders, with nothing of the user's there."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from sample_rows import add_server
from session_builder import SessionBuilder, at

from profilemate.export import readme_files, retention
from profilemate.session.session import Session


def stream(*columns: str, rows: tuple[tuple[object, ...], ...] = ()) -> bytes:
    """A stream as the probe writes it."""
    lines = [",".join(columns), *(",".join(map(str, row)) for row in rows)]
    return "".join(line + "\n" for line in lines).encode()


def export(session: SessionBuilder) -> dict[str, object]:
    """Export and return metadata.json."""
    readme_files.write(Session(session.path))
    return session.metadata()


def test_rows_of_all_processes_are_merged_in_order_of_time(session: SessionBuilder) -> None:
    one = session.process("EngineCore").raw(
        "calls.1.csv", stream("time_ns", "what", "number", rows=((at(1), "a", -5), (at(4), "=b", 1.5)))
    )
    one.raw("calls.csv", stream("time_ns", "what", "number", rows=((at(3), "c", ""),)))
    two = session.process("Worker").raw("calls.csv", stream("time_ns", "what", "more", rows=((at(2), "d", 7),)))
    assert export(session)["files"]["calls.csv"] == 4  # type: ignore[index]
    assert session.text("calls.csv").splitlines() == [
        "timestamp_sec,process,what,number,more",
        f"1.000000,{one.folder.name},a,-5,",
        f"2.000000,{two.folder.name},d,,7",
        f"3.000000,{one.folder.name},c,,",
        f"4.000000,{one.folder.name},'=b,1.5,",
    ]


def test_a_file_is_made_where_no_row_was_and_is_missed_where_it_is_gone(session: SessionBuilder) -> None:
    session.process("EngineCore").raw("calls.csv", stream("time_ns", "what"))
    assert export(session)["user_files"] == ["calls.csv"]
    assert session.text("calls.csv") == "timestamp_sec,process,what\n"
    assert readme_files.is_current(Session(session.path))
    (session.path / "calls.csv").unlink()
    assert not readme_files.is_current(Session(session.path))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("..calls.csv", stream("time_ns", "what")),
        ("a-b.csv", stream("time_ns", "what")),
        ("calls.csv", stream("what", "time_ns")),
        ("calls.csv", stream("time_ns", "=what")),
        ("calls.csv", stream("time_ns", "what", "what")),
        ("calls.csv", b"time_ns,what"),
        ("calls.csv", b"time_ns," + b"x" * (1 << 17) + b"\n"),
        ("calls.csv", b"\xff\xfe\n"),
        ("health.csv", stream("time_ns", "what")),
        ("engine_steps.csv", stream("time_ns", "engine", "step")),
    ],
)
def test_what_is_no_stream_of_a_users_is_no_file(session: SessionBuilder, name: str, content: bytes) -> None:
    session.process("EngineCore").raw(name, content)
    assert export(session)["user_files"] == []
    assert not retention.remove_detail(session.path) or name == "engine_steps.csv"


def test_a_link_is_not_followed(session: SessionBuilder, tmp_path: Path) -> None:
    (tmp_path / "secret.csv").write_bytes(stream("time_ns", "secret", rows=((at(1), "word"),)))
    process = session.process("EngineCore")
    os.symlink(tmp_path / "secret.csv", process.folder / "calls.csv")
    assert export(session)["user_files"] == []


def test_a_table_named_as_a_file_of_ours_is_left_out_and_said(session: SessionBuilder) -> None:
    session.process("EngineCore").raw("kv_cache_usage.csv", stream("time_ns", "what", rows=((at(1), "x"),)))
    record = export(session)
    assert session.text("kv_cache_usage.csv").startswith("timestamp_sec,usage_pct")
    assert any("kv_cache_usage of a user's tracker is not exported" in note for note in record["notes"])  # type: ignore[attr-defined]


def test_rows_that_come_when_a_call_ends_are_ordered_by_when_it_began(session: SessionBuilder) -> None:
    rows = tuple((at(n - n % 3 * 2.5), n) for n in range(3, 9000))
    session.process("EngineCore").raw("calls.csv", stream("time_ns", "number", rows=rows))
    export(session)
    times = [float(line.split(",")[0]) for line in session.lines("calls.csv")]
    assert len(times) == len(rows) and times == sorted(times)


def test_retention_removes_the_streams_and_then_the_files(session: SessionBuilder) -> None:
    add_server(session)
    process = session.process("EngineCore").raw("calls.csv", stream("time_ns", "what", rows=((at(1), "x"),)))
    export(session)
    retention.remove_detail(session.path)
    assert not (process.folder / "calls.csv").exists() and (session.path / "calls.csv").exists()
    assert "calls.csv" in retention.event_files(session.path)
    retention.remove_events(session.path)
    assert not (session.path / "calls.csv").exists()
    assert any("calls.csv" in note and "removed" in note for note in session.metadata()["notes"])


@pytest.mark.parametrize("named", [["../../other.csv"], ["/etc/x.csv"], ["kv_cache_summary.txt"], [7], "calls.csv"])
def test_retention_removes_no_file_that_metadata_names_wrongly(session: SessionBuilder, named: object) -> None:
    (session.path / "metadata.json").write_text(json.dumps({"user_files": named}))
    (session.path / "calls.csv").write_text("")
    (session.path.parent.parent / "other.csv").write_text("")
    assert retention.event_files(session.path) == []
