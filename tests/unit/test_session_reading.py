"""Reading streams: segments, torn rows and files that are not what they should be."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from sample_rows import DECODE, add_engine, add_server, dispatch, step
from session_builder import SessionBuilder, at, line

from profilemate.export import readme_files
from profilemate.schema import names
from profilemate.session import alive, segments, stream
from profilemate.session.errors import SessionError
from profilemate.session.find import find_session, sessions_in
from profilemate.session.records import printable
from profilemate.session.session import Session
from profilemate.trackers.cuda_graphs import events as graphs
from profilemate.trackers.kv_cache import analyze as kv_cache
from profilemate.trackers.kv_cache import events as kv

EVICTION = {"engine": 0, "block_id": 1, "allocated_ns": 5, "used_ns": 4, "cause": "allocation"}


def evictions(session: SessionBuilder) -> tuple[list[int], dict[str, int]]:
    """Block ids of the evictions as read, and the faults of that file."""
    opened = Session(session.path)
    ids = [row[0] for process in opened.processes for row in opened.rows(process, kv.EVICTIONS, "block_id")]
    return ids, {fault.what: fault.count for fault in opened.faults.list() if "kv_evictions" in fault.where}


def test_segments_come_in_order_of_their_numbers(session: SessionBuilder) -> None:
    engine = session.process("EngineCore")
    for segment, block_id in ((10, 3), (9, 2), (None, 4), (1, 1)):
        engine.rows(kv.EVICTIONS, {**EVICTION, "time_ns": 1, "block_id": block_id}, segment=segment)
    assert evictions(session) == ([1, 2, 3, 4], {})


def test_a_torn_last_row_is_left_out_even_if_it_has_all_columns(session: SessionBuilder) -> None:
    row = line(kv.EVICTIONS, {**EVICTION, "time_ns": 2, "block_id": 9})
    session.process("EngineCore").rows(kv.EVICTIONS, {**EVICTION, "time_ns": 1}, tail=row[:-4])
    assert evictions(session) == ([1], {segments.TORN_TAIL: 1})


def test_a_torn_row_in_the_middle_is_left_out(session: SessionBuilder) -> None:
    engine = session.process("EngineCore").rows(kv.EVICTIONS, {**EVICTION, "time_ns": 1}, tail="123,0,4\n")
    engine.rows(kv.EVICTIONS, {**EVICTION, "time_ns": 3, "block_id": 2})
    assert evictions(session) == ([1, 2], {stream.MALFORMED: 1})


@pytest.mark.parametrize(
    ("data", "ids", "faults"),
    [
        (b"", [], {}),
        (b"time_ns,eng", [], {segments.TORN_TAIL: 1}),
        (os.urandom(300_000).replace(b"\n", b"x") + b"\n", [], {segments.HUGE_LINE: 1}),
        (b"\x00\xff\xfe\n1,2\n", [], {stream.WRONG_HEADER: 1}),
        (b"a,b,c\n1,2,3\n", [], {stream.WRONG_HEADER: 1}),
        (b"new,block_id,time_ns\n1,7,9\n", [7], {}),
        (b"time_ns,block_id\r\n1,7\r\n", [7], {}),
        (b"time_ns,block_id\nx,=1+1\n1,\xff\n1," + b"9" * 400 + b"\n2,5\n", [5], {stream.MALFORMED: 3}),
        (b"block_id\n" + b"z" * 400_000 + b"\n4\n", [4], {segments.HUGE_LINE: 1}),
    ],
)
def test_files_that_are_not_as_they_should_be(
    session: SessionBuilder, data: bytes, ids: list[int], faults: dict[str, int]
) -> None:
    session.process("EngineCore").raw("kv_evictions.csv", data)
    found_ids, found = evictions(session)
    assert found_ids == ids
    if segments.HUGE_LINE not in faults or ids:
        assert found == faults
    readme_files.write(Session(session.path))


def test_links_pipes_and_folders_are_not_streams(session: SessionBuilder) -> None:
    engine = session.process("EngineCore")
    (engine.folder / "kv_evictions.csv").symlink_to("/etc/hostname")
    os.mkfifo(engine.folder / "kv_evictions.1.csv")
    (engine.folder / "kv_evictions.2.csv").mkdir()
    ids, faults = evictions(session)
    assert ids == []
    assert len(faults) >= 2


def test_a_file_set_aside_while_reading_is_read_once(session: SessionBuilder) -> None:
    engine = session.process("EngineCore").rows(kv.EVICTIONS, {**EVICTION, "time_ns": 1})
    opened = Session(session.path)
    rows = opened.rows(opened.processes[0], kv.EVICTIONS, "block_id")
    os.rename(engine.folder / "kv_evictions.csv", engine.folder / "kv_evictions.1.csv")
    engine.rows(kv.EVICTIONS, {**EVICTION, "time_ns": 2, "block_id": 2})
    os.unlink(engine.folder / "kv_evictions.1.csv")
    assert [row[0] for row in rows] == [1]


@pytest.mark.parametrize(
    "content", [None, "", "{", "[]", '{"ranks": 3, "hooks": [1], "pid": "x", "clock": {"wall_ns": 1}}']
)
def test_without_a_process_record_the_folder_and_its_tables_tell(session: SessionBuilder, content: str | None) -> None:
    engine = session.nameless("EngineCore_DP1").rows(kv.STEPS, step(1, 2, 10))
    engine.rows(graphs.PASSES, dispatch(1, DECODE, 8, 1))
    if content is not None:
        engine.raw("process.json", content.encode())
    opened = Session(session.path)
    assert opened.processes[0].roles == ("EngineCore", "Worker")
    assert opened.processes[0].pid == 900_000_001
    readme_files.write(opened)
    assert len(session.lines("cuda_graph_usage.csv")) == 1
    assert len(session.lines("kv_cache_usage.csv")) == 2


def test_without_session_json_the_first_process_is_the_start(session: SessionBuilder) -> None:
    add_engine(session)
    (session.path / "session.json").unlink()
    readme_files.write(Session(session.path))
    assert session.lines("kv_cache_usage.csv")[0].startswith("1.200000,")
    assert any("session.json: missing" in fault for fault in session.metadata()["faults"])


@pytest.mark.parametrize("format_number", [names.FORMAT - 1, names.FORMAT + 1])
def test_another_format_is_refused(tmp_path: Path, format_number: int) -> None:
    other = SessionBuilder(tmp_path, format=format_number)
    with pytest.raises(SessionError, match=f"has format {format_number}, this ProfileMate reads format {names.FORMAT}"):
        Session(other.path)


def test_an_engine_killed_before_its_first_step_still_shows_usage(session: SessionBuilder) -> None:
    row = {"engine": 0, "total_blocks": 200}
    session.process("EngineCore").rows(
        kv.USAGE,
        {**row, "time_ns": at(2), "kind": "interval", "in_use": 5},
        {**row, "time_ns": at(3), "kind": "peak", "in_use": 9},
    )
    opened = Session(session.path)
    points = list(kv_cache.usage_points(opened, kv_cache.spans_of(opened)))
    assert [(point.kind, point.in_use) for point in points] == [("interval", 5), ("peak", 9)]


def test_the_last_row_counts_where_it_is_whole(session: SessionBuilder) -> None:
    session.process("EngineCore").rows(kv.STEPS, step(1, 2, 10), tail=f"{at(3)},0,x" + "," * 25 + "\n")
    opened = Session(session.path)
    assert kv_cache.analyze(opened).totals.step == 1


def test_a_million_rows_need_little_memory(session: SessionBuilder) -> None:
    import tracemalloc

    engine = session.process("EngineCore")
    block = b"".join(b"%d,0,1,5,4,allocation\n" % number for number in range(10_000))
    engine.raw("kv_evictions.csv", kv.EVICTIONS.header.encode() + block * 20)
    opened = Session(session.path)
    tracemalloc.start()
    count = sum(1 for _ in opened.rows(opened.processes[0], kv.EVICTIONS, "time_ns"))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 200_000
    assert peak < 8 << 20


def test_processes_are_ordered_by_role_and_rank(session: SessionBuilder) -> None:
    for role, ranks in (("Worker_TP1", {"tp": 1}), ("Worker_TP0", {"tp": 0}), ("EngineCore", {}), ("APIServer", {})):
        session.process(role, ranks=ranks)
    assert [process.role for process in Session(session.path).processes] == [
        "APIServer", "EngineCore", "Worker_TP0", "Worker_TP1",
    ]  # fmt: skip


def test_finding_a_session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROFILEMATE_DIR", str(tmp_path))
    with pytest.raises(SessionError, match="there is no session in"):
        find_session("latest")
    for name in ("session_20250101_000001", "session_20250101_000001_10", "session_20250101_000001_2", "other"):
        SessionBuilder(tmp_path, name)
    (tmp_path / "session_20300101_000000").symlink_to(tmp_path / "other")
    (tmp_path / "session_20300101_000001").mkdir()  # of a process that was killed as it made it
    assert [path.name for path in sessions_in(tmp_path)][-2] == "session_20250101_000001_10"
    assert find_session().name == "session_20250101_000001_10"
    assert find_session(str(tmp_path)).name == "session_20250101_000001_10"
    assert find_session("session_20250101_000001_2").name == "session_20250101_000001_2"
    assert find_session(str(tmp_path / "other" / "session.json")).name == "other"
    with pytest.raises(SessionError, match="there is no session at"):
        find_session(str(tmp_path / "missing"))


def test_only_the_same_process_is_alive(session: SessionBuilder) -> None:
    stat = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    here = {"pid": os.getpid(), "start_time": int(stat[19]), "boot_id": alive.boot_id()}
    session.process("Worker", **here)
    session.process("Worker", **{**here, "start_time": 1})
    session.process("Worker", **{**here, "boot_id": "another"})
    opened = Session(session.path)
    assert [process.start_time == int(stat[19]) and process.boot_id != "another" for process in opened.processes] == [
        alive.is_alive(process) for process in opened.processes
    ]
    assert len(alive.living(opened)) == 1
    assert not alive.wait_until_ended(session.path, 0.01)


def test_waiting_ends_at_once_without_living_processes(server: SessionBuilder) -> None:
    assert alive.wait_until_ended(server.path, 60)


def test_gone_rows_are_counted_while_other_processes_are_read(session: SessionBuilder) -> None:
    add_server(session)
    session.process("Worker", ranks={"dp": 1}).raw("forward_passes.csv", b"\x00" * 100)
    readme_files.write(Session(session.path))
    assert session.lines("cuda_graph_usage.csv")[0].startswith("FULL,8,8,True,False,3,")
    assert any("forward_passes.csv: last row torn" in fault for fault in session.metadata()["faults"])


def test_a_column_that_an_older_version_did_not_write_is_unknown(session: SessionBuilder) -> None:
    engine = session.process("EngineCore").rows(kv.STEPS, step(1, 2, 10))
    table = engine.folder / "engine_steps.csv"
    table.write_text("\n".join(row.rpartition(",")[0] for row in table.read_text().splitlines()) + "\n")
    opened = Session(session.path)
    totals = kv_cache.analyze(opened).totals
    assert (totals.allocated, totals.operations) == (60, 90)
    assert next(opened.rows(opened.processes[0], kv.STEPS, "time_ns", "in_use", kv.STEPS.columns[-1]))[2] is None


@pytest.mark.parametrize(
    ("told", "total", "words"), [((3, 4), 7, "preemptions 7"), ((3, None), None, "preemptions unknown")]
)
def test_preemptions_of_a_version_that_does_not_tell_are_not_zero(
    told: tuple[int | None, int | None], total: int | None, words: str, session: SessionBuilder
) -> None:
    """As under vLLM 0.11; of two engines the sum is known where both are."""
    for index, preemptions in enumerate(told):
        row = {**step(1, 2, 10), "preemptions": preemptions}
        session.process("EngineCore", engine_index=index).rows(kv.STEPS, row)
    assert kv_cache.analyze(Session(session.path)).totals.preemptions == total
    readme_files.write(Session(session.path))
    assert words in session.text("kv_cache_summary.txt")


def test_totals_are_unknown_without_engine_steps(session: SessionBuilder) -> None:
    row = {"engine": 0, "total_blocks": 200, "time_ns": at(2), "kind": "interval", "in_use": 5}
    session.process("EngineCore").rows(kv.USAGE, row)
    readme_files.write(Session(session.path))
    assert "evictions unknown" in session.text("kv_cache_summary.txt")
    assert "EngineCore: no whole row of engine_steps, so its totals are unknown" in session.metadata()["notes"]


def test_the_users_configured_folder_is_searched_after_the_environments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PROFILEMATE_DIR", raising=False)
    monkeypatch.delenv("VLLM_PROFILING_DIR", raising=False)
    SessionBuilder(tmp_path / "configured", "session_20400101_000001")
    SessionBuilder(tmp_path / "environment", "session_20400101_000002")
    assert find_session("latest", str(tmp_path / "configured")).name == "session_20400101_000001"
    monkeypatch.setenv("PROFILEMATE_DIR", str(tmp_path / "environment"))
    assert find_session("latest", str(tmp_path / "configured")).name == "session_20400101_000002"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("größe", "größe"),
        (os.fsencode("größe").decode("ascii", "surrogateescape"), None),
        ("a\x1b[31mb", "a?[31mb"),
        (b"a\xc2\x9b31mb".decode("ascii", "surrogateescape"), "a??31mb"),
        (b"a\xff".decode("utf-8", "surrogateescape"), "a?"),
        ("a\u202eb\ud800", "a?b?"),
    ],
)
def test_a_line_is_shown_without_what_a_terminal_would_obey(text: str, shown: str | None) -> None:
    assert printable(text) == (text if shown is None else shown)
