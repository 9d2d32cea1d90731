"""Rows read many at a time are those found by hand, whatever the file holds; what waits on disk comes in order."""

from __future__ import annotations

import random
from pathlib import Path
from statistics import fmean, pstdev

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from profilemate.schema.table import Table, fields
from profilemate.session import spool, whole_chunks
from profilemate.session.durations import Durations
from profilemate.session.faults import Faults
from profilemate.session.segments import TORN_TAIL, open_segments
from profilemate.session.stream import MALFORMED, first_and_last_rows, stream_rows

TABLE = Table(
    "things", "A table.",
    fields(("time_ns", "int", ""), ("n", "int", ""), ("word", "str", ""), ("flag", "bool", ""), ("shared", "int", "")),
    "shared",
)  # fmt: skip
HEADER = "time_ns,n,word,flag,shared"
CELLS = st.sampled_from(
    ["", "0", "7", "-3", "12345678901234567", "1234567890123456789", "99999999999999999999", "1.5", "x", "True", "False",
     "maybe", " 4", "1_0", "a\r", "\r", "é", "٣"]
)  # fmt: skip
PLAIN = st.builds("{},{},{},{},{}".format, st.integers(0, 9), CELLS, CELLS, st.sampled_from(["True", "False", ""]),
                  st.sampled_from(["1", ""]))  # fmt: skip
LINES = st.one_of(PLAIN, PLAIN, PLAIN, st.lists(CELLS, max_size=7).map(",".join), st.just(""))


def by_hand(text: str, columns: list[str]) -> tuple[list[tuple[object, ...]], int]:
    """Rows and how many lines are none, from the format's own words: no reader is used."""
    names, rows, malformed = HEADER.split(","), [], 0
    for line in text.split("\n")[1:-1]:
        cells = dict(zip(names, line.split(","), strict=False))
        if len(line.split(",")) != len(names):
            malformed += 1
            continue
        if not cells["shared"]:
            continue
        row = [cell_by_hand(name, cells[name].rstrip("\r")) for name in columns]
        if any(isinstance(value, ValueError) for value in row):
            malformed += 1
        else:
            rows.append(tuple(row))
    return rows, malformed


def cell_by_hand(name: str, cell: str) -> object:
    if name == "word":
        return cell
    if name == "flag":
        return {"True": True, "False": False, "": None}.get(cell, ValueError())
    if not cell:
        return ValueError() if name == "time_ns" else None
    try:
        value = int(cell)
    except ValueError as error:
        return error
    return value if -(1 << 63) <= value < 1 << 63 else ValueError()


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    lines=st.lists(LINES, max_size=30),
    columns=st.lists(st.sampled_from(TABLE.columns), min_size=1, max_size=5, unique=True),
    chunk=st.sampled_from([1, 2, 3, 7, 256]),
    tail=st.sampled_from(["", "3,4"]),
)
@example(lines=["1,2,a\r,True,1", "2,3,\r,,1"], columns=["word", "n"], chunk=256, tail="")
@example(lines=["1,9223372036854775808,a,True,1", "2,9223372036854775807,b,,1"], columns=["n"], chunk=256, tail="")
@example(lines=["1,,,,1", ",2,,,1", "3,,,,"], columns=["time_ns", "n", "word", "flag"], chunk=256, tail="")
def test_rows_are_those_found_by_hand(
    lines: list[str], columns: list[str], chunk: int, tail: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(whole_chunks, "CHUNK_ROWS", chunk)
    text = "".join(line + "\n" for line in [HEADER, *lines])
    (tmp_path / "things.csv").write_bytes((text + tail).encode())
    faults = Faults()
    rows = list(stream_rows(open_segments(tmp_path, "things", faults), TABLE, columns, faults, lambda count: None))
    expected, malformed = by_hand(text, columns)
    assert rows == expected
    found = {fault.what: fault.count for fault in faults.list()}
    assert found == {what: count for what, count in ((MALFORMED, malformed), (TORN_TAIL, int(bool(tail)))) if count}


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lines=st.lists(LINES, max_size=30), chunk=st.sampled_from([1, 2, 5, 256]))
def test_the_first_and_last_rows_are_those_of_all_rows(
    lines: list[str], chunk: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As long as the last two of a key are not both broken, which is what the reader promises to survive."""
    monkeypatch.setattr(whole_chunks, "CHUNK_ROWS", chunk)
    text = "".join(line + "\n" for line in [HEADER, *lines])
    (tmp_path / "things.csv").write_text(text, newline="")
    faults = Faults()
    ends = first_and_last_rows(open_segments(tmp_path, "things", faults), TABLE, "time_ns", faults, lambda count: None)
    rows, _ = by_hand(text, list(TABLE.columns))
    assert {key for key in ends} == {row[0] for row in rows}
    for key, (first, last) in ends.items():
        mine = [row for row in rows if row[0] == key]
        assert first == mine[0] and last in mine


def test_things_come_in_order_whatever_of_them_is_on_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "MOST_IN_MEMORY", 7)
    order = random.Random(5)
    items = [(order.randrange(20), number) for number in range(100)]
    held: spool.SortedSpool[tuple[int, int]] = spool.SortedSpool(lambda item: item[0])
    held.extend(items)
    assert len(held) == 100 and len(held._waiting) == 2
    assert list(held) == list(held) == sorted(items, key=lambda item: item[0])


def test_the_files_of_a_spool_are_private_and_go_with_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(spool, "MOST_IN_MEMORY", 2)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    held: spool.SortedSpool[int] = spool.SortedSpool(lambda item: item)
    held.extend([1])
    assert list(tmp_path.iterdir()) == []
    held.extend([3, 2])
    (folder,) = tmp_path.iterdir()
    assert folder.stat().st_mode & 0o077 == 0 and list(held) == [1, 2, 3]
    del held
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("count", [1, 2, 4095, 4096, 4097, 10_000])
def test_durations_are_exact_however_many_wait(count: int) -> None:
    order = random.Random(count)
    values = [order.randrange(1, 5_000_000_000) for _ in range(count)]
    durations = Durations()
    for number, value in enumerate(values):
        durations.add(value)
        if number % 1000 == 0:
            assert durations.count == number + 1
    assert (durations.count, durations.total_ns) == (count, sum(values))
    assert (durations.min_ns, durations.max_ns) == (min(values), max(values))
    assert durations.mean_ns == pytest.approx(fmean(values)) and durations.std_ns == pytest.approx(pstdev(values))
    median = sorted(values)[-(-count // 2) - 1]
    assert durations.percentile_ns(50) == pytest.approx(median, rel=1 / 256)
