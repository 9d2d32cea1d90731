"""Counting in tensors: padding, replays of what was captured, ids that are no expert, copies that come later."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from typing import Any

import environment
import pytest

DRIVE = environment.ROOT / "tests" / "probe" / "drive_moe_counters.py"
IDS = [[0, 1], [1, 2], [5, 0], [4, 3]]
WIDTH = 8


@pytest.fixture(scope="module")
def seen() -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, str(DRIVE)],
        env=environment.clean(),
        capture_output=True,
        text=True,
        timeout=environment.HANGS_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return dict(json.loads(done.stdout))


def counts(rows: list[list[int]]) -> list[int]:
    found = Counter(expert for row in rows for expert in row)
    return [found[expert] for expert in range(WIDTH)]


def test_a_replay_counts_the_real_rows_of_its_own_pass(seen: dict[str, Any]) -> None:
    """A dummy run adds nothing, a pass its first rows, whatever ids the padding has."""
    tables = seen["padding_and_replays"]
    real = [IDS[:3], IDS[:1], IDS[:4]]
    assert tables[0] == [[0] * WIDTH] * 2
    for number in range(3):
        ran = [row for rows in real[: number + 1] for row in rows]
        assert tables[number + 1] == [[0] * WIDTH, counts(ran)]


def test_a_pass_that_raised_leaves_no_weights(seen: dict[str, Any]) -> None:
    assert seen["a_pass_that_raised"] == counts(IDS[:1])


def test_every_type_of_ids(seen: dict[str, Any]) -> None:
    assert set(seen["types"]) == {"int64", "int32", "uint32", "int16", "uint8", "strided"}
    for name, found in seen["types"].items():
        assert found == counts(IDS), name


def test_a_choice_that_is_none_of_the_experts_is_apart(seen: dict[str, Any]) -> None:
    table, pairs = seen["outside"]
    assert table == counts([[0, 6], [3, 2]])
    assert {(i, j): n for i, row in enumerate(pairs) for j, n in enumerate(row) if n} == {(0, 6): 1, (3, 2): 1}


def test_more_rows_than_vllm_makes_are_refused_before_anything_is_written(seen: dict[str, Any]) -> None:
    assert seen["too_many_rows"] == ["18 ids of experts, at most 16 were expected", 0]


def test_tables_of_pairs_are_bounded(seen: dict[str, Any]) -> None:
    assert seen["limits"] == [False, True, False, True, 64 << 20]


def test_data_parallel_engines_count_their_own_rows(seen: dict[str, Any]) -> None:
    gathered, own, error = seen["own_rows"]
    assert gathered == [[4, 5], [6, 7], [8, 9]]
    assert own == [[0, 1], [2, 3], [4, 5]]
    assert error == "4 rows of a router, neither 3 nor the sum of [2, 3, 1]"


def test_a_copy_is_written_when_it_has_come(seen: dict[str, Any]) -> None:
    """It is asked for at the first pass; nothing waits for it, and the row says of which passes it is."""
    rows = seen["device_copy"]["rows"]
    assert rows[0] == rows[1] == []
    assert rows[2] == rows[4] == [["1", "1", "0", "1 0 0 0 0 1"], ["1", "1", "0", "0 0 0 0 0 0"]]
    assert seen["device_copy"]["last"] == [["6", "6", "0", "1 1 1 1 1 5"], ["6", "6", "0", "0 0 0 0 0 0"]]


def test_an_engine_that_goes_idle_is_read_after_a_quarter_of_the_pause(seen: dict[str, Any]) -> None:
    """Its last passes would wait for the next request otherwise. Nothing new makes no row."""
    assert seen["device_copy"]["idle"] == [False, True, False]
    assert seen["device_copy"]["after_idle"][0] == ["5", "5", "0", "1 1 1 1 1 5"]
    assert seen["device_copy"]["pairs"] == 2 * 2 * 6


def test_pairs_are_read_seldom_and_written_a_few_rows_at_a_time(seen: dict[str, Any]) -> None:
    """All rows of a reading are as of its moment, whatever was counted while they were written."""
    numbers, rows = seen["spread_pairs"]
    assert numbers == [5, 10, 12, 12, 17]
    assert [row[:2] for row in rows] == [["0", "1"]] * 6 + [["3", "1"]] * 6 + [["0", "5"]] * 5
    assert [row[3] for row in rows if row[2] == "0"] == ["0 1 0 0 0 0", "0 0 0 0 0 0", "0 5 0 0 0 0"]
