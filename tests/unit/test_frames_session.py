"""What `profilemate.open` gives of sessions of every kind: engines, processes, README files, damage, copies."""

from __future__ import annotations

import gc
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from sample_rows import HOOKS, add_engine, add_server, step
from session_builder import BOOT, CREATED_WALL_NS, SECOND, ProcessBuilder, SessionBuilder, at

import profilemate
from profilemate.export import atomic, readme_files, retention
from profilemate.frames import packages
from profilemate.frames.readme_types import BOOLEANS, FLOATS, TEXTS, kind_of
from profilemate.frames.session import Session, open_session
from profilemate.schema.probe_tables import GAPS
from profilemate.session import segments, stream, views
from profilemate.session.errors import SessionError
from profilemate.trackers import NAMES
from profilemate.trackers.engine_steps import events as engine_steps
from profilemate.trackers.kv_cache import events as kv
from profilemate.trackers.prefix_lookups import events as lookups
from profilemate.trackers.view import view_of


def add_steps(session: SessionBuilder, index: int | None, *rows: tuple[float, int]) -> ProcessBuilder:
    """An engine core with engine steps: seconds, and the number of the scheduler in it."""
    engine = session.process("EngineCore", engine_index=index)
    return engine.rows(kv.STEPS, *(step(n, seconds, 5, engine=local) for n, (seconds, local) in enumerate(rows, 1)))


START_TICKS = int(Path("/proc/self/stat").read_bytes().rpartition(b")")[2].split()[19])
THIS = {"pid": os.getpid(), "start_time": START_TICKS, "boot_id": "", "host": os.uname().nodename}
"""The record of a process that runs here."""


# Engines


ENGINE_WORLDS = {
    "one": [(0, [(1, 0), (2, 0)])],
    "two at the same time": [(1, [(1, 0), (9, 0)]), (0, [(2, 0), (8, 0)])],
    "two of one index": [(0, [(1, 0), (5, 0)]), (0, [(2, 0), (6, 0)])],
    "one after the other": [(0, [(1, 0), (2, 0)]), (0, [(3, 0), (4, 0)])],
    "several in a process": [(None, [(1, 0), (2, 1), (3, 0), (4, 1)]), (1, [(2.5, 0)])],
    "none": [],
}


@pytest.mark.parametrize("world", ENGINE_WORLDS)
def test_engines_are_numbered_as_the_other_reader_does(session: SessionBuilder, world: str) -> None:
    for index, rows in ENGINE_WORLDS[world]:
        add_steps(session, index, *rows)
    opened = open_session(session.path)
    spans = views.engine_spans(opened, kv.STEPS, kv.USAGE, kv.EVICTIONS)
    expected = [(s.engine, s.process.name, s.local_engine, s.first_ns / 1e9, s.last_ns / 1e9) for s in spans]
    columns = ["engine_number", "process", "engine", "began_sec", "ended_sec"]
    assert opened.engines.select(columns).rows() == expected


def test_the_number_of_an_engine_in_every_stream(session: SessionBuilder) -> None:
    first = add_steps(session, 0, (1, 0), (3, 0))
    second = add_steps(session, 0, (1.5, 0), (2.5, 1), (4, 0))
    row = {"time_ns": at(2), "lookup": 1, "asked_tokens": 1}
    first.rows(lookups.LOOKUPS, {**row, "engine": 0})
    second.rows(lookups.LOOKUPS, {**row, "engine": 1}, {**row, "engine": 0}, {**row, "engine": 7})
    opened = open_session(session.path)
    assert opened.table("prefix_lookups")["engine_number"].to_list() == [0, 2, 1, None]
    steps = opened.scan("engine_steps").filter(pl.col("engine_number") == 2).select("time_sec").collect()
    assert steps["time_sec"].to_list() == [2.5]


def test_an_engine_whose_rows_lie_in_several_files(session: SessionBuilder) -> None:
    engine = add_steps(session, 0, (5, 0), (6, 0))
    engine.rows(kv.STEPS, step(1, 1, 5), step(2, 2, 5), segment=1).rows(kv.STEPS, step(3, 3, 5), segment=2)
    assert open_session(session.path).engines.select("began_sec", "ended_sec").rows() == [(1.0, 6.0)]


def test_an_engine_whose_steps_are_gone_is_known_by_another_stream(session: SessionBuilder) -> None:
    session.process("EngineCore").rows(
        kv.USAGE, {"time_ns": at(2), "engine": 0, "kind": "peak", "in_use": 3, "total_blocks": 9}
    )
    assert open_session(session.path).engines.select("stream", "began_sec").rows() == [("kv_usage", 2.0)]


def test_an_engine_without_any_row_that_tells_has_no_number(session: SessionBuilder) -> None:
    session.process("EngineCore").rows(engine_steps.TOTALS, {"time_ns": at(2), "engine": 0, "through_step": 1})
    assert open_session(session.path).table("engine_step_totals").select("engine", "engine_number").rows() == [
        (0, None)
    ]


def test_the_number_is_found_without_the_slow_reader(session: SessionBuilder, monkeypatch: pytest.MonkeyPatch) -> None:
    add_steps(session, 3, (1, 0))
    opened = open_session(session.path)
    monkeypatch.setattr(stream, "layout_of", None)
    assert opened.table("engine_steps")["engine_number"].to_list() == [3]


# Clocks and processes


def test_clocks_are_aligned(session: SessionBuilder) -> None:
    here = add_steps(session, 0, (1, 0))
    clock = {"wall_ns": CREATED_WALL_NS + 20 * SECOND, "monotonic_ns": 100 * SECOND}
    there = session.process("EngineCore", engine_index=1, boot_id="another", clock=clock)
    there.rows(kv.STEPS, {**step(1, 0, 5), "time_ns": 103 * SECOND})
    opened = open_session(session.path)
    times = dict(opened.table("engine_steps").select("process", "time_sec").rows())
    assert times == {here.folder.name: 1.0, there.folder.name: 23.0}
    assert any("aligned by the wall clocks" in said and there.folder.name in said for said in opened.missing())
    assert not any(here.folder.name in said for said in opened.missing())


def test_processes_as_a_frame(session: SessionBuilder) -> None:
    session.process("EngineCore", cost={"began_ns": at(3)}, **THIS)
    for rank in (0, 1):
        session.process("Worker", ranks={"dp": 2, "pp": 0, "tp": rank, "pp_size": 1})
    frame = open_session(session.path).table("processes")
    assert frame["is_running"].to_list() == [True, False, False]
    assert frame["began_sec"].to_list() == [3.0, None, None]
    assert frame.select("dp_rank", "tp_rank", "shown_engine").rows() == [(None, None, None), (2, 0, 2), (2, 1, None)]
    assert frame["is_recorded"].all() and frame["vllm"].unique().to_list() == ["0.32.0"]


def test_hooks_settings_and_configuration(server: SessionBuilder) -> None:
    opened = open_session(server.path)
    hooks = {row["hook"]: row for row in opened.hooks.iter_rows(named=True)}
    assert hooks["BlockPool.touch"]["calls"] == 12 and hooks["BlockPool.touch"]["as_of_sec"] == 2.9
    assert hooks["graph.old"]["state"] == "does_not_fit" and hooks["graph.old"]["reason"] == "has no x"
    assert len(hooks) == len(HOOKS)
    assert opened.settings["log_interval"] == 100 and opened.config["num_gpu_blocks"] == 201
    assert [hook.name for hook in opened.health.misfits] == ["graph.old"]


# What is missing


def test_a_whole_session_of_all_trackers_lacks_nothing(tmp_path: Path) -> None:
    session = SessionBuilder(tmp_path, settings={"trackers": list(NAMES)})
    session.process("EngineCore", host=os.uname().nodename).rows(kv.STEPS, step(1, 1, 5))
    assert open_session(session.path).missing() == []


def test_everything_that_is_wrong_is_said(session: SessionBuilder) -> None:
    engine = add_engine(session)
    engine.rows(GAPS, {"time_ns": at(3), "table": "kv_evictions", "rows": 9, "reason": "size_cap"})
    engine.rows(GAPS, {"time_ns": at(3), "table": "kv_usage", "rows": 4, "reason": "ENOSPC"})
    engine.raw("kv_usage.csv", kv.USAGE.header.encode() + b"1,0,peak,x,5\n1,0,peak,5\n1,0")
    lost = session.nameless("Worker")
    said = open_session(session.path).missing()
    for words in (
        "graph.old did not fit this vLLM: has no x", "never called: BlockPool.free",
        "the size cap removed the 9 oldest rows of kv_evictions", "4 rows of kv_usage never reached the disk (ENOSPC)",
        f"{lost.folder.name}: no readable process.json", f"kv_usage.csv: {stream.MALFORMED} (2 times)", segments.TORN_TAIL,
        "trackers that were off: cpu_operations",
    ):  # fmt: skip
        assert sum(words in one for one in said) == 1, (words, said)


def test_columns_that_another_version_did_not_write(session: SessionBuilder) -> None:
    engine = session.process("EngineCore").raw("kv_evictions.csv", b"time_ns,engine,block_id,used_ns\n")
    engine.rows(kv.STEPS, step(1, 1, 5))
    said = [one for one in open_session(session.path).missing() if "another version" in one]
    assert said == [
        f"{engine.folder.name}/kv_evictions.csv: another version wrote it, without allocated_ns, cause: these are empty"
    ]


def test_damage_in_rows_is_known_without_reading_only_as_far_as_was_read(session: SessionBuilder) -> None:
    add_engine(session).raw("kv_usage.csv", kv.USAGE.header.encode() + b"1,0,peak,x,5\n")
    opened = open_session(session.path)
    assert not any("kv_usage" in said for said in opened.missing(read_all=False))
    opened.table("kv_usage")
    opened.scan("kv_usage").select("kind").collect()
    assert any("kv_usage" in said for said in opened.missing(read_all=False)), "a look at less takes nothing back"
    assert opened.table("faults")["count"].to_list() == [1]


def test_a_session_without_anything(session: SessionBuilder) -> None:
    (session.path / "session.json").unlink()
    opened = open_session(session.path)
    said = opened.missing()
    assert any("session.json: missing" in one for one in said) and "no vLLM process was recorded" in said
    assert all(opened.table(name).height == 0 for name in opened.names if name != "faults")


def test_a_running_session_gives_more_rows_later(session: SessionBuilder) -> None:
    engine = session.process("EngineCore", **THIS).rows(kv.STEPS, step(1, 1, 5), tail="123,0")
    opened = open_session(session.path)
    frame = opened.scan("engine_steps")
    assert frame.collect().height == 1 and opened.table("kv_evictions").height == 0
    usage_rows = opened.table("kv_cache_usage").height
    assert any("is still running" in said for said in opened.missing())
    path = engine.folder / "engine_steps.csv"
    path.write_text(path.read_text().removesuffix("123,0"))
    engine.rows(kv.STEPS, step(2, 2, 6), step(3, 3, 7, engine=1))
    engine.rows(kv.USAGE, {"time_ns": at(2), "engine": 0, "kind": "interval", "in_use": 3, "total_blocks": 200})
    assert frame.collect().height == 3 and opened.table("kv_cache_usage").height > usage_rows
    assert opened.engines.height == 2
    assert not any(segments.TORN_TAIL in said for said in opened.missing())


# Copies, folders that cannot be written, sessions without detail


def test_a_copied_folder(server: SessionBuilder, tmp_path: Path) -> None:
    there = tmp_path / "elsewhere" / server.path.name
    shutil.copytree(server.path, there)
    before, after = open_session(server.path), open_session(tmp_path / "elsewhere")
    assert after.path == there
    for name in before.names:
        assert before.table(name).equals(after.table(name)), name


@pytest.fixture
def read_only(server: SessionBuilder, monkeypatch: pytest.MonkeyPatch) -> SessionBuilder:
    """A session that was not exported, in a folder that refuses new files even to root."""
    for path in server.path.iterdir():
        if path.name not in ("session.json", "processes"):
            path.unlink()
    real = os.open

    def refusing(path: Any, flags: int, *more: Any, **named: Any) -> int:
        if flags & os.O_CREAT and str(path).startswith(str(server.path)):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, flags, *more, **named)

    monkeypatch.setattr(atomic.os, "open", refusing)
    return server


def test_files_of_a_read_only_folder_are_made_elsewhere_and_removed(
    read_only: SessionBuilder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    usage = profilemate.open(read_only.path).scan("cuda_graph_usage")
    gc.collect()
    assert len(list((tmp_path / "temporary").iterdir())) == 1
    assert usage.filter(pl.col("replay_count") > 0).select("replay_count").head(1).collect().rows() == [(3,)]
    del usage
    gc.collect()
    assert list((tmp_path / "temporary").iterdir()) == []
    assert sorted(path.name for path in read_only.path.iterdir()) == ["processes", "session.json"]


def test_where_no_file_can_be_made_at_all(read_only: SessionBuilder, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = open_session(read_only.path)
    monkeypatch.setattr(tempfile, "tempdir", str(read_only.path))
    monkeypatch.setattr(readme_files, "write", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(SessionError, match=r"neither there \(No space left on device\) nor in a temporary folder"):
        opened.table("cuda_graph_usage")
    assert opened.table("engine_steps").height == 2


def test_a_session_whose_detail_was_removed(server: SessionBuilder) -> None:
    retention.remove_detail(server.path)
    (server.path / "kv_cache_evictions.csv").unlink()
    opened = open_session(server.path)
    assert opened.table("engine_steps").height == 0
    assert opened.table("cuda_graph_usage")["replay_count"].sum() == 4
    with pytest.raises(SessionError, match="the rows that it was made from were removed"):
        opened.table("kv_cache_evictions")
    assert opened.missing()[0].startswith("the rows of this session were removed")
    assert opened.metadata["summary"]


# Types


def test_an_empty_file_has_the_same_types_as_a_full_one(server: SessionBuilder, tmp_path: Path) -> None:
    empty = SessionBuilder(tmp_path / "empty")
    empty.process("EngineCore")
    full, bare = open_session(server.path), open_session(empty.path)
    for name in bare.files:
        assert bare.table(name).schema == full.table(name).schema, name
    assert bare.table("kv_cache_evictions").schema["lifetime_sec"] == pl.Float64


def test_ids_stay_text_and_what_is_not_known_is_null(server: SessionBuilder) -> None:
    evictions = open_session(server.path).table("kv_cache_evictions")
    assert evictions["lifetime_sec"].to_list() == [4.0, None] and evictions["cause"].to_list() == [
        "allocation",
        "invalidation",
    ]
    usage = open_session(server.path).table("cuda_graph_usage")
    assert usage.filter(pl.col("runtime_mode") == "PIECEWISE")["num_reqs"].to_list() == [None]
    assert usage.schema["uniform"] == pl.Boolean
    path = server.path / "request_lifecycle.csv"
    header = path.read_text().splitlines()[0]
    path.write_text(header + "\n1234567890123456" + "," * header.count(",") + "\n")
    assert open_session(server.path).table("request_lifecycle")["request_id"].to_list() == ["1234567890123456"]


def test_each_type_is_one_of_a_column_that_there_is() -> None:
    columns = {name for tracker in NAMES for file in view_of(tracker).csv_files for name in file.header}
    assert columns >= TEXTS | BOOLEANS | FLOATS
    assert not {name for name in columns if kind_of(name) == "int" and name.endswith(("_id", "_name", "_ratio", "_mean"))} - {
        "block_id", "expert_id"
    }  # fmt: skip


def test_pandas_keeps_integers_and_what_is_not_known(server: SessionBuilder) -> None:
    frame = open_session(server.path).pandas("kv_evictions")
    assert str(frame["allocated_ns"].dtype) == "Int64" and frame["allocated_ns"].isna().tolist() == [False, True]
    assert frame["allocated_ns"][0] == at(-1.4)


# Tables of the user's own


def test_tables_of_the_users_own(session: SessionBuilder) -> None:
    rows = b"%d,7,1.5,x,007,True,0\n%d,,2,,1,,-3\n"
    session.process("EngineCore").raw(
        "calls.csv", b"time_ns,number,ratio,word,code,flag,node\n" + rows % (at(1), at(2))
    )
    session.process("Worker").raw("calls.csv", b"time_ns,number,word,later,code\n%d,9,5,6,\n" % at(3))
    opened = open_session(session.path)
    frame = opened.table("calls")
    assert frame["number"].to_list() == [7, None, 9] and frame["ratio"].to_list() == [1.5, 2.0, None]
    assert frame["code"].to_list() == ["007", "1", None] and frame["flag"].to_list() == [True, None, None]
    assert frame["time_sec"].to_list() == [1.0, 2.0, 3.0] and frame["node"].to_list() == [0, -3, None]
    assert "calls" in opened.names and frame.columns[:3] == ["process", "time_sec", "time_ns"]


def test_a_users_column_with_a_name_of_ours(session: SessionBuilder) -> None:
    session.process("EngineCore").raw("calls.csv", b"time_ns,process,time_sec\n%d,x,y\n" % at(1))
    frame = open_session(session.path).table("calls")
    assert frame["time_sec"].to_list() == [1.0] and frame["process"][0].startswith("EngineCore")


# What cannot be


def test_an_unknown_name_says_which_there_are(server: SessionBuilder) -> None:
    with pytest.raises(SessionError, match=r"no table 'nothing'; there are processes, .*engine_steps.*kv_cache_usage"):
        open_session(server.path).scan("nothing")


def test_a_missing_package_is_named_with_the_line_that_brings_it(
    server: SessionBuilder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(name: str) -> Any:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(packages, "import_module", absent)
    with pytest.raises(SessionError, match=r"this needs the package polars: pip install 'profilemate\[report\]'"):
        open_session(server.path).table("engine_steps")
    with pytest.raises(SessionError, match=r"this needs the package pandas: pip install pandas pyarrow"):
        open_session(server.path).pandas("engine_steps")


def test_open_finds_the_latest_of_a_folder(tmp_path: Path) -> None:
    add_server(SessionBuilder(tmp_path, "session_20251124_160000"))
    add_server(SessionBuilder(tmp_path, "session_20251124_160001"))
    assert profilemate.open(tmp_path).path.name == "session_20251124_160001"
    with pytest.raises(SessionError):
        profilemate.open(tmp_path / "nowhere")


def test_the_base_reader_is_still_there(server: SessionBuilder) -> None:
    opened = Session(server.path)
    assert json.loads(json.dumps(opened.metadata["summary"]))["kv_cache"]
    assert [process.boot_id for process in opened.processes] == [BOOT] * 3
