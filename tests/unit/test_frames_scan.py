"""The two readers of streams on the same bytes: rows, values and faults are the same, whatever is in the file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sample_rows import DECODE, add_server, capture, step
from session_builder import SessionBuilder, at, line

from profilemate.frames import blocks, scan
from profilemate.frames.session import Session, open_session
from profilemate.schema.table import Field, Table
from profilemate.session import cell_values, segments, stream
from profilemate.session.errors import SessionError
from profilemate.session.session import Session as StreamSession
from profilemate.trackers.cuda_graphs import events as graphs
from profilemate.trackers.encoder_decoder import events as encoder
from profilemate.trackers.engine_steps import events as engine_steps
from profilemate.trackers.forward_passes import events as passes
from profilemate.trackers.kv_cache import events as kv
from profilemate.trackers.prefix_lookups import events as lookups

TABLES = (kv.EVICTIONS, graphs.CAPTURES, kv.STEPS, engine_steps.STEPS, passes.LATENCIES, lookups.LOOKUPS)
Found = tuple[list[tuple[Any, ...]], list[tuple[str, int]]]


def by_scan(session: SessionBuilder, table: Table, columns: tuple[str, ...], engine: Any = "streaming") -> Found:
    """Rows and faults of a table by the frames' reader."""
    opened = StreamSession(session.path)
    frame = scan.scan(opened, opened.processes, (table,), dict)
    rows = frame.select(columns).collect(engine=engine).rows()
    return rows, [(fault.what, fault.count) for fault in opened.faults.list()]


def by_stream(session: SessionBuilder, table: Table, columns: tuple[str, ...]) -> Found:
    """The same by the other one; an empty text is null in a frame."""
    opened = StreamSession(session.path)
    rows = [
        tuple(None if cell == "" else cell for cell in row)
        for process in opened.processes
        for row in opened.rows(process, table, *columns)
    ]
    return rows, [(fault.what, fault.count) for fault in opened.faults.list()]


ODD_CELLS = [
    b"", b" ", b"  7", b"7 ", b"\t7", b"+7", b"-7", b"--7", b"1_000", b"007", b"0" * 30 + b"5", b"0" * 5000 + b"5", b"7.0",
    b"1e3", b"nan", b"None", b"null", b"0x7", b"9223372036854775807", b"9223372036854775808", b"-9223372036854775808",
    b"-9223372036854775809", b"99999999999999999999", b"9" * 400, "\u0663".encode(), b"True", b"False", b"true", b"TRUE",
    b"0", b"1", b"\x00", b"a\x00b", b"\xff\xfe", b"\xe2\x82", b"\xed\xa0\x80", b"\xef\xbb\xbf1", b'"', b'"a', b'""', b"#1",
    "\u2028\x0b\x0c\x1c".encode(), b"a b", b"7\r", b"\r", b"x" * 90, b"\x1f\x8b\x08", b"x\x01", b"(\xb5/\xfd",
]  # fmt: skip
PLAIN = {
    "int": st.integers(-(2**63), 2**63 - 1).map(lambda value: str(value).encode()),
    "bool": st.sampled_from([b"True", b"False", b""]),
    "str": st.sampled_from([b"", b"allocation", b"a b", b"FULL"]),
}


@st.composite
def files(draw: st.DrawFn, table: Table) -> bytes:
    """A file of a table: mostly right rows, odd cells, rows of odd length, an odd header, an odd end."""
    names = [name.encode() for name in table.columns]
    header = draw(
        st.sampled_from(
            [names] * 6 + [[*names, b"later"], names[::-1], names[:-1], names[1:], [*names, names[0]], [b""]]
        )
    )
    kinds = {field.name.encode(): field.kind for field in table.fields}
    odd = draw(st.booleans())
    rows = []
    for _ in range(draw(st.integers(0, 12))):
        cells = [draw(PLAIN[kinds.get(name, "str")]) for name in header]
        if odd and draw(st.booleans()):
            cells[draw(st.integers(0, len(cells) - 1))] = draw(st.sampled_from(ODD_CELLS))
        if odd and draw(st.integers(0, 5)) == 0:
            cells = draw(
                st.sampled_from([cells[:-1], [*cells, b""], [*cells, b"", b""], cells[:1], [b"z" * 300], [b""]])
            )
        rows.append(b",".join(cells))
    ending = draw(st.sampled_from([b"\n"] * 5 + [b"\r\n"]))
    tail = draw(st.sampled_from([b"", b"", b"12", b"1,2,3", b"z" * 300, b"\n", b"\r\n", b"\xff"]))
    return b"".join(part + ending for part in [b",".join(header), *rows]) + tail


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of a few rows, so that small files have all that large ones have."""
    monkeypatch.setattr(segments, "BLOCK_BYTES", 128)
    monkeypatch.setattr(scan, "BLOCK_BYTES", 512)
    monkeypatch.setattr(blocks, "SMALL_BYTES", 100)
    monkeypatch.setattr(segments, "LONGEST_LINE_BYTES", 1000)


@pytest.mark.parametrize("table", TABLES, ids=lambda table: f"{table.name}-{table.present}")
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(data=st.data())
def test_both_readers_give_the_same(
    table: Table, data: st.DataObject, tmp_path_factory: Any, small_blocks: None
) -> None:
    session = SessionBuilder(tmp_path_factory.mktemp("session"))
    session.process("EngineCore").raw(f"{table.name}.csv", data.draw(files(table)))
    assert by_scan(session, table, table.columns) == by_stream(session, table, table.columns)
    lead = [name for name in table.columns if name in cell_values.REQUIRED]
    others = [name for name in table.columns if name not in lead]
    some = data.draw(st.lists(st.sampled_from(others), unique=True, max_size=3)) if others else []
    header = (
        (next(iter(session.path.glob("processes/*/*.csv"))).read_bytes().split(b"\n")[0]).decode().strip().split(",")
    )
    if set(table.columns) <= set(header):
        assert by_scan(session, table, (*lead, *some)) == by_stream(session, table, (*lead, *some))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    content=st.lists(st.sampled_from([b"1", b",", b"\n", b"\r", b" ", b"\xff", b"x", b"\x00"]), max_size=200).map(
        b"".join
    )
)
def test_garbage_after_a_right_header(content: bytes, tmp_path_factory: Any, small_blocks: None) -> None:
    session = SessionBuilder(tmp_path_factory.mktemp("session"))
    table = passes.LATENCIES
    session.process("Worker").raw(f"{table.name}.csv", table.header.encode() + content)
    assert by_scan(session, table, table.columns) == by_stream(session, table, table.columns)


@pytest.mark.parametrize("cell", [*ODD_CELLS, b"FALSE", b"false", b"t"])
def test_an_odd_boolean(session: SessionBuilder, cell: bytes) -> None:
    rows = [line(graphs.CAPTURES, capture(1, {**DECODE, "uniform": value})).encode() for value in (True, "@")]
    data = graphs.CAPTURES.header.encode() + b"".join(rows).replace(b"@", cell)
    session.process("Worker").raw("graph_captures.csv", data)
    for columns in (graphs.CAPTURES.columns, ("time_ns", "uniform")):
        assert by_scan(session, graphs.CAPTURES, columns) == by_stream(session, graphs.CAPTURES, columns)


@pytest.mark.parametrize("cell", ODD_CELLS)
@pytest.mark.parametrize("column", ["block_id", "engine", "cause"])
def test_a_single_odd_cell_in_a_large_block(
    session: SessionBuilder, column: str, cell: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "SMALL_BYTES", 1000)
    row = {"time_ns": 1, "engine": 0, "block_id": 7, "allocated_ns": 5, "used_ns": 4, "cause": "allocation"}
    right = line(kv.EVICTIONS, row).encode()
    odd = line(kv.EVICTIONS, {**row, column: "@"}).encode().replace(b"@", cell)
    session.process("EngineCore").raw(
        "kv_evictions.csv", kv.EVICTIONS.header.encode() + right * 200 + odd + right * 200
    )
    for columns in (kv.EVICTIONS.columns, ("time_ns", column), (column,)):
        found = by_scan(session, kv.EVICTIONS, columns)
        assert found == by_stream(session, kv.EVICTIONS, columns)
        assert len(found[0]) >= 400


@pytest.mark.parametrize("rows", [b"\xef\xbb\xbf1,2\n3,4\n", b" ,2\n3,4\n", b"\t,2\n3,4\n", b"\x1f\x8b,2\n3,4\n"])
@pytest.mark.parametrize("table", [passes.LATENCIES, encoder.LATENCIES], ids=lambda table: table.name)
def test_an_odd_beginning_of_a_block(session: SessionBuilder, table: Table, rows: bytes) -> None:
    session.process("Worker").raw(f"{table.name}.csv", table.header.encode() + rows)
    found = by_scan(session, table, table.columns)
    assert found == ([(3, 4)], [(stream.MALFORMED, 1)])
    assert found == by_stream(session, table, table.columns)


@pytest.mark.parametrize("rows", [b"1\n\n2\n", b"\n\n", b"\n1\n", b"1\n2\n\n", b"1\n,\n"])
def test_a_table_of_a_single_column(session: SessionBuilder, rows: bytes) -> None:
    table = Table("moments", "", (Field("time_ns", "int", ""),))
    session.process("Worker").raw("moments.csv", b"time_ns\n" + rows)
    assert by_scan(session, table, ("time_ns",)) == by_stream(session, table, ("time_ns",))


def test_a_short_and_a_long_row_do_not_make_up_for_each_other(session: SessionBuilder) -> None:
    data = b"forward,device_ns\n1,2\n3\n4,5,6\n7,8\n"
    session.process("Worker").raw("forward_latencies.csv", data)
    assert by_scan(session, passes.LATENCIES, ("forward",)) == ([(1,), (7,)], [(stream.MALFORMED, 2)])


def test_of_a_shared_file_the_rows_with_cells_of_the_table_are_given(session: SessionBuilder) -> None:
    whole = step(1, 2.0, 5)
    session.process("EngineCore").rows(
        kv.STEPS, whole, {**whole, "in_use": None, "total_blocks": "x"}, {**whole, "total_blocks": None}
    )
    found = by_scan(session, kv.STEPS, kv.STEPS.columns)
    assert found == by_stream(session, kv.STEPS, kv.STEPS.columns)
    assert (len(found[0]), found[1]) == (1, [(stream.MALFORMED, 1)])
    assert by_scan(session, kv.STEPS, ("step",))[0] == [(1,), (1,)]


def test_a_shared_file_is_one_frame_with_the_columns_of_all(session: SessionBuilder) -> None:
    engine = session.process("EngineCore")
    names = dict.fromkeys(kv.STEPS.columns + engine_steps.STEPS.columns)
    both = Table(
        "engine_steps", "", tuple({f.name: f for t in (kv.STEPS, engine_steps.STEPS) for f in t.fields}.values())
    )
    cells = step(1, 2.0, 5)
    engine.rows(
        both,
        {**cells, "update_ns": 9, "limit": "no_work"},
        {"time_ns": at(3), "engine": 0, "step": 2, "update_ns": 8},
        cells,
    )
    opened = open_session(session.path)
    frame = opened.table("engine_steps")
    assert set(frame.columns[2:-1]) == set(names) and frame.height == 3
    assert (frame.columns[:2], frame.columns[-1]) == (["process", "time_sec"], "engine_number")
    assert frame["in_use"].to_list() == [5, None, 5] and frame["update_ns"].to_list() == [9, 8, None]
    assert not opened.faults.list()


@pytest.mark.parametrize("table", [kv.STEPS, engine_steps.STEPS])
def test_a_shared_file_of_one_tracker_alone(session: SessionBuilder, table: Table) -> None:
    session.process("EngineCore").rows(table, {"time_ns": at(2), "engine": 0, "step": 1, table.present: 4})
    opened = open_session(session.path)
    frame = opened.table("engine_steps")
    assert frame[table.present].to_list() == [4] and not opened.faults.list()
    other = engine_steps.STEPS if table is kv.STEPS else kv.STEPS
    assert frame[other.present].to_list() == [None]


def test_a_file_that_is_no_shared_one(session: SessionBuilder) -> None:
    session.process("EngineCore").raw("engine_steps.csv", b"a,b\n1,2\n")
    opened = open_session(session.path)
    assert opened.table("engine_steps").height == 0
    assert [fault.what for fault in opened.faults.list()] == [stream.WRONG_HEADER]


def test_an_older_file_lacks_a_column_and_a_newer_one_has_more(session: SessionBuilder) -> None:
    session.process("EngineCore").raw("kv_evictions.csv", b"time_ns,engine,block_id,used_ns,later\n1,0,7,,x\n")
    opened = open_session(session.path)
    assert opened.scan("kv_evictions").select("block_id", "cause", "used_ns").collect().rows() == [(7, None, None)]
    assert opened.scan("kv_evictions").select("cause").collect().rows() == [(None,)]
    assert not opened.faults.list()


def test_segments_links_pipes_and_folders(session: SessionBuilder) -> None:
    engine = session.process("EngineCore")
    for segment, block_id in ((10, 3), (9, 2), (None, 4), (1, 1)):
        engine.rows(kv.EVICTIONS, {"time_ns": 1, "engine": 0, "block_id": block_id}, segment=segment)
    (engine.folder / "kv_evictions.11.csv").symlink_to("/etc/hostname")
    os.mkfifo(engine.folder / "kv_evictions.12.csv")
    (engine.folder / "kv_evictions.13.csv").mkdir()
    found = by_scan(session, kv.EVICTIONS, ("block_id",))
    assert found == by_stream(session, kv.EVICTIONS, ("block_id",))
    assert found[0] == [(1,), (2,), (3,), (4,)] and len(found[1]) == 3


def test_a_file_set_aside_or_removed_while_reading_is_read_once(session: SessionBuilder) -> None:
    engine = session.process("EngineCore").rows(kv.EVICTIONS, {"time_ns": 1, "engine": 0, "block_id": 1})
    opened = StreamSession(session.path)
    frames = scan.process_frames(opened, opened.processes[0], scan.Shape((kv.EVICTIONS,)), ("block_id",))
    engine.rows(kv.EVICTIONS, {"time_ns": 1, "engine": 0, "block_id": 0}, segment=1)
    seen = [next(frames)["block_id"].to_list()]
    os.rename(engine.folder / "kv_evictions.csv", engine.folder / "kv_evictions.2.csv")
    engine.rows(kv.EVICTIONS, {"time_ns": 1, "engine": 0, "block_id": 2})
    os.unlink(engine.folder / "kv_evictions.2.csv")
    assert seen + [frame["block_id"].to_list() for frame in frames] == [[0], [1]]


def many_rows(session: SessionBuilder, count: int) -> Session:
    """An engine with so many evictions."""
    rows = b"".join(b"%d,%d,%d,5,4,allocation\n" % (at(1) + n, n % 3, n) for n in range(count))
    session.process("EngineCore").raw("kv_evictions.csv", kv.EVICTIONS.header.encode() + rows)
    return open_session(session.path)


@pytest.mark.parametrize("engine", ["in-memory", "streaming"])
def test_projection_predicate_and_head(session: SessionBuilder, engine: Any) -> None:
    frame = many_rows(session, 50_000).scan("kv_evictions")
    count = frame.filter(pl.col("engine") == 1, pl.col("block_id") >= 49_000).select(pl.len()).collect(engine=engine)
    assert count.item() == sum(1 for n in range(49_000, 50_000) if n % 3 == 1)
    assert frame.head(7).select("block_id").collect(engine=engine)["block_id"].to_list() == list(range(7))
    late = frame.filter(pl.col("block_id") > 30_000).head(2).select("block_id", "process").collect(engine=engine)
    assert late["block_id"].to_list() == [30_001, 30_002]
    first = frame.head(10).filter(pl.col("engine") == 2).select("block_id").collect(engine=engine)
    assert first["block_id"].to_list() == [2, 5, 8]
    assert frame.select(pl.len()).collect(engine=engine).item() == 50_000
    twice = frame.join(frame.group_by("engine").agg(most=pl.col("block_id").max()), on="engine").filter(
        pl.col("block_id") == pl.col("most")
    )
    assert sorted(twice.collect(engine=engine)["block_id"].to_list()) == [49_997, 49_998, 49_999]


def test_head_reads_the_beginning_of_a_file_only(session: SessionBuilder) -> None:
    opened, read = many_rows(session, 200_000), []
    opened.on_read = read.append
    assert opened.scan("kv_evictions").select("time_sec", "block_id").head(3).collect().height == 3
    assert 0 < sum(read) < 2 << 20 < next(session.path.glob("processes/*/*.csv")).stat().st_size


def test_only_wanted_columns_are_parsed(session: SessionBuilder, monkeypatch: pytest.MonkeyPatch) -> None:
    opened, seen, parse = many_rows(session, 10), [], blocks.FileRows._at_once

    def noting(rows: blocks.FileRows, lines: bytes, num_rows: int) -> pl.DataFrame | None:
        frame = parse(rows, lines, num_rows)
        seen.append([] if frame is None else frame.columns)
        return frame

    monkeypatch.setattr(blocks.FileRows, "_at_once", noting)
    opened.scan("kv_evictions").filter(pl.col("engine") == 1).select("used_ns").collect()
    opened.scan("kv_evictions").select("process").collect()
    assert [sorted(columns) for columns in seen] == [["engine", "used_ns"], ["time_ns"]]


def test_a_row_that_is_damaged_where_nobody_looks_counts(session: SessionBuilder) -> None:
    session.process("EngineCore").raw("kv_evictions.csv", kv.EVICTIONS.header.encode() + b"1,0,x,5,4,allocation\n")
    assert by_scan(session, kv.EVICTIONS, ("time_ns",)) == ([(1,)], [])
    assert by_scan(session, kv.EVICTIONS, ("time_ns", "block_id")) == ([], [(stream.MALFORMED, 1)])


def test_the_memory_of_an_aggregation_does_not_grow_with_the_file(tmp_path: Path) -> None:
    """In a process of its own: peak memory of three times the rows is about the same."""
    import subprocess
    import sys

    import environment

    code = (
        "import sys, profilemate, polars as pl\n"
        "frame = profilemate.open(sys.argv[1]).scan('kv_evictions')\n"
        "frame = frame.select((pl.col('used_ns') - pl.col('allocated_ns')).sum(), pl.len())\n"
        "print(frame.collect(engine='streaming').row(0))\n"
        "print(next(line for line in open('/proc/self/status') if line.startswith('VmHWM')).split()[1])\n"
    )
    block = b"".join(b"%d,0,%d,5,7,allocation\n" % (at(1) + n, n) for n in range(100_000))
    peaks = []
    for repeats in (10, 40):
        session = SessionBuilder(tmp_path / str(repeats))
        session.process("EngineCore").raw("kv_evictions.csv", kv.EVICTIONS.header.encode() + block * repeats)
        done = subprocess.run(
            [sys.executable, "-c", code, str(session.path)], cwd=environment.ROOT, env=environment.clean(),
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        sums, peak = done.stdout.splitlines()
        assert sums == f"({2 * 100_000 * repeats}, {100_000 * repeats})"
        peaks.append(int(peak))
    assert peaks[1] - peaks[0] < 80_000, f"{peaks} KiB: 130 MB more of file"


def test_booleans_and_captures(session: SessionBuilder) -> None:
    session.process("Worker").rows(graphs.CAPTURES, capture(1, DECODE), capture(2, {**DECODE, "uniform": None}))
    frame = open_session(session.path).table("graph_captures")
    assert frame.schema["uniform"] == pl.Boolean and frame["uniform"].to_list() == [True, None]
    assert frame["time_sec"].to_list() == [1.0, 2.0] and "engine_number" not in frame.columns


def test_all_streams_of_a_small_server(session: SessionBuilder) -> None:
    add_server(session)
    opened = open_session(session.path)
    for name, tables in opened.streams.items():
        if len(tables) == 1:
            columns = tables[0].columns
            assert opened.table(name).select(columns).rows() == by_stream(session, tables[0], columns)[0], name
    assert not opened.faults.list()


def test_one_process_alone_has_the_rows_that_it_has_among_all(session: SessionBuilder) -> None:
    for index, seconds in enumerate((1, 2)):
        session.process("EngineCore", engine_index=index).rows(kv.STEPS, step(1, seconds, 5), step(2, seconds + 1, 6))
    opened = open_session(session.path)
    whole = opened.table("engine_steps")
    for process in opened.processes:
        alone = opened.scan_process(process, "engine_steps").collect()
        assert alone.height == 2 and alone.equals(whole.filter(pl.col("process") == process.name))
    with pytest.raises(SessionError, match="there is no stream 'hooks'"):
        opened.scan_process(opened.processes[0], "hooks")
