"""The soak of `make soak`, short: one server whose disk fills and one of whose processes stops, until a part is killed."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from soak import beside, places, render, tally

places.make_importable()

from soak import accounts, faults, lives, twin  # noqa: E402 - they import the tests' helpers
from soak.life import Pace  # noqa: E402

SHORT = Pace(broken_seconds=5, after_seconds=2)
EPISODE = tally.Episode("clock", 3, 4, {"URLError": 1}, {}, {"ENOSPC": 5}, "gaps")
END = tally.LifeEnd("worker killed", 0, 0, 20, 100, 60, 40, 90, 50, 41, 10)


@pytest.mark.long
def test_a_server_holds_while_its_disk_fills_and_a_process_stops(tmp_path: Path, tiny_model: Path) -> None:
    said: list[str] = []
    record = lives.Record(said.append)
    around = lives.Surroundings(
        tiny_model, tmp_path / "life", SHORT, random.Random(), (faults.DiskFull, faults.Stopped)
    )
    lives.on_a_small_disk("engine core", around, record, 0)
    told = {episode.fault: episode for episode in record.episodes}
    killed = told.pop("engine core killed")
    assert killed.failures and killed.failures_bare, said
    assert len(told) == 3 and all(episode.answered and episode.answered_bare for episode in told.values()), said
    assert [trouble for episode in record.episodes for trouble in episode.troubles] == []
    assert set(told["disk filled and freed"].lost) == {"ENOSPC"} and not told["SIGSTOP and SIGCONT"].lost
    (end,) = record.ends
    assert end.troubles == () and end.steps > 100 and end.step_rows_named_missing > 0


@pytest.mark.long
def test_three_servers_side_by_side_are_counted_in_the_same_time(tmp_path: Path, tiny_model: Path) -> None:
    trio = beside.measure(tmp_path, tiny_model, 1, seconds=5)
    for of_kind in (trio.steps, trio.answered, trio.cpu_ms_per_step, trio.waited_ms_per_step):
        assert list(of_kind) == list(beside.KINDS)
    assert min(trio.waited_ms_per_step.values()) > 0
    assert min(trio.steps.values()) > 10 and min(trio.cpu_ms_per_step.values()) > 0.5 and trio.seconds >= 5
    assert [path.parent.name for path in tmp_path.glob("1/*/sessions")] == [beside.OURS]


def test_faults_are_summed_by_name() -> None:
    other = replace(EPISODE, fault="disk")
    first, second = tally.totals([EPISODE, other, replace(EPISODE, lost={"EROFS": 1}, troubles=("x",))])
    assert (first.fault, first.times, first.answered, first.failed, first.failed_bare) == ("clock", 2, 6, 2, 0)
    assert first.lost == {"ENOSPC": 5, "EROFS": 1} and first.troubles == 1
    assert (second.fault, second.times) == ("disk", 1)


def test_where_vllm_stood_still_by_itself_stands_beside_the_requests_that_failed_then() -> None:
    said: list[str] = []
    stalled = replace(EPISODE, stalls=1, stalls_bare=2)
    lives.Record(said.append).add(stalled)
    assert "stood still 1 times, 2 without us" in said[0]
    (total,) = tally.totals([stalled, stalled])
    assert (total.stalls, total.stalls_bare) == (2, 4)
    row = render.fault_row(asdict(total)).split(" | ")
    assert row[render.HEAD.index("vLLM stood still by itself")] == "2" and len(row) == len(render.HEAD)


def test_rows_that_are_told_late_count_where_they_were_lost() -> None:
    said: list[str] = []
    record = lives.Record(said.append)
    record.add(replace(EPISODE, lost={}, named_in=""))
    record.add(replace(EPISODE, fault="disk", late={"EROFS": 7}))
    record.add_rows(0, "EROFS", 7)
    record.add_rows(0, "EROFS", 2)
    first, second = tally.totals(record.episodes)
    assert (first.lost, first.named_in) == ({"EROFS": 9}, "the session's gaps and notes")
    assert second.lost == {"ENOSPC": 5} and "7 rows EROFS, told now" in said[-2]


@pytest.mark.parametrize(
    ("changed", "last_step", "said"),
    [
        ({}, 100, ""),
        ({"step_rows": 61}, 101, ""),
        ({"step_rows": 59}, 100, "59 rows and 40 named missing"),
        ({"step_rows": 62}, 100, "62 rows and 40 named missing"),
        ({"pass_rows": 48}, 100, "90 passes, 48 rows"),
        ({}, 99, "the total in the last row is 99"),
        ({"bytes_kept": 21}, 100, "21 bytes are kept"),
    ],
)
def test_an_account_that_does_not_add_up_is_said(changed: dict[str, int], last_step: int, said: str) -> None:
    found = accounts.disagreements(replace(END, **changed), last_step)
    assert (said in found[0] and len(found) == 1) if said else found == []


def test_the_document_shows_the_results_that_are_kept() -> None:
    results = json.loads(places.RESULTS.read_text())
    shown = places.DOCUMENT.read_text().partition(render.BEGIN)[2].partition(render.END)[0].strip()
    assert shown == render.text(results).strip()
    assert results["kills"]["kills"] >= 200
    if "servers" in results:
        assert results["servers"]["minutes"] >= 20
        assert {fault["fault"] for fault in results["servers"]["faults"]} > {one.name for one in faults.SURVIVED}


PART = {
    "command": "c", "minutes": 21.4, "vllm": "1", "cores": 2, "load_average": 3.0, "date": "2026-01-02T03:04:05",
    "faults": [tally.as_json(one) for one in tally.totals([EPISODE])], "ends": [tally.as_json(END)],
}  # fmt: skip


def test_the_table_has_a_row_for_each_fault_and_the_accounts_sum() -> None:
    text = render.text({"servers": PART})
    assert "| clock | 1 | 3 | 1 | 4 | 0 | 0 | 0 | 5 (ENOSPC) | gaps |" in text
    assert "100; rows of them at the end: 60;" in text and ": 40." in text and "21 minutes" in text


def by_kind(*values: Any) -> dict[str, Any]:
    return dict(zip(beside.KINDS, values, strict=True))


def test_what_profilemate_costs_stands_beside_what_chance_makes() -> None:
    steps = [(90, 100, 100), (95, 90, 110), (1000, 1100, 900)]
    trios = [
        beside.Trio(60.0, by_kind(*counts), {}, by_kind(11.0, 10.0, 10.0), by_kind(2.0, 3.0, 4.0)) for counts in steps
    ]
    about = {name: value for name, value in PART.items() if name not in ("faults", "ends")}
    text = render.text({"beside": {**about, "trios": [tally.as_json(one) for one in trios]}})
    assert "for each without, in the same time: 0.950 (0.900 to 1.000);" in text
    assert "of the faster one: 0.818 (0.818 to 1.000)." in text and "over without: 1.100 (1.100 to 1.100)." in text
    assert "| 1,000 / 1,100 / 900 | 11.0 / 10.0 / 10.0 | 2.0 / 3.0 / 4.0 |" in text


STEP = """
import struct, sys, time
import stepped_clock
before = time.time(), time.time_ns() / 1e9, time.monotonic()
stepped_clock.register()
stepped_clock.register()
with open(sys.argv[1], "r+b") as file:
    file.write(struct.pack("d", -3600.0))
after = time.time(), time.time_ns() / 1e9, time.monotonic()
print([round((now - then) / 60) for now, then in zip(after, before)])
"""


def test_the_clock_steps_for_everybody_in_the_process_but_not_the_one_of_durations(tmp_path: Path) -> None:
    (tmp_path / "clock").write_bytes(bytes(8))
    env = {"PYTHONPATH": str(places.STEPPED_CLOCK), "STEPPED_CLOCK": str(tmp_path / "clock")}
    done = subprocess.run(
        [sys.executable, "-c", STEP, str(tmp_path / "clock")], env=env, capture_output=True, text=True, check=True
    )
    assert done.stdout == "[-60, -60, 0]\n"


SLEEPS = """
import sys, types
utils = types.ModuleType("vllm.distributed.utils")
utils.USE_SCHED_YIELD = True
distributed = types.ModuleType("vllm.distributed")
distributed.utils = utils
sys.modules |= {"vllm": types.ModuleType("vllm"), "vllm.distributed": distributed, "vllm.distributed.utils": utils}
import short_sleeps
short_sleeps.register()
print(utils.USE_SCHED_YIELD)
del utils.USE_SCHED_YIELD
short_sleeps.register()
print(hasattr(utils, "USE_SCHED_YIELD"))
"""


def test_both_servers_wait_by_the_other_way_that_vllm_has_and_only_where_it_has_one() -> None:
    env = {"PYTHONPATH": str(places.SHORT_SLEEPS)}
    done = subprocess.run([sys.executable, "-c", SLEEPS], env=env, capture_output=True, text=True, check=True)
    assert done.stdout == "False\nFalse\n"


HOLE = """
import os, socket, sys
listener = socket.create_server(("127.0.0.1", 0))
os.dup2(0, 40)
waiting = [socket.create_connection(listener.getsockname()) for _ in range(2)]
served = [listener.accept()[0] for _ in range(2)]
print(listener.getsockname()[1], *(each.fileno() for each in served), flush=True)
sys.stdin.read()
"""


def test_without_descriptors_so_many_connections_are_left_whatever_the_numbers_are() -> None:
    command = [sys.executable, "-c", HOLE]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None and process.stdout is not None
        port, *numbers = map(int, process.stdout.readline().split())
        passing = faults.connections(process.pid, port)
        assert passing == set(numbers)
        assert faults.numbers_below(process.pid, 0, set()) == max(numbers) + 1
        assert [faults.numbers_below(process.pid, spared, passing) for spared in range(4)] == [
            *sorted(numbers), max(numbers) + 1, max(numbers) + 2,
        ]  # fmt: skip
        process.stdin.close()


@pytest.mark.parametrize(
    ("ours", "bare", "worse"),
    [
        ((8, "length"), (8, "length"), False),
        ((7, "length"), (8, "length"), True),
        ("TimeoutError", (8, "length"), True),
        ((8, "length"), "TimeoutError", False),
        ("TimeoutError", "TimeoutError", False),
        ("URLError", "TimeoutError", True),
    ],
)
def test_a_probe_is_worse_where_the_other_server_answered_otherwise(ours: object, bare: object, worse: bool) -> None:
    assert twin.is_worse(ours, bare) is worse


def test_a_document_without_markers_is_refused(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("nothing\n")
    with pytest.raises(ValueError, match="lacks the markers"):
        render.render({"kills": {}}, page)
    assert page.read_text() == "nothing\n"
