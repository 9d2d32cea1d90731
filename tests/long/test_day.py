"""A day of 100 steps a second, simulated: what a step costs in the end, memory, files, and totals far past the size cap.

Each hour has the 40th part of its steps here and the size cap is the 40th part of the default; day.py alone runs all of it.
"""

from __future__ import annotations

import csv
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import environment
import pytest
import streams

DAY = environment.ROOT / "tests" / "long" / "day.py"
SCALE = 40
MOST_MEDIAN_RATIO = 1.15
"""Young and old in turn differ by 2 % on a quiet machine; a cost that grows with age multiplies."""

MOST_TOTAL_RATIO = 1.3
MOST_RESIDENT_GROWTH_BYTES = 4 << 20
MOST_HELD_GROWTH_BYTES = 16 << 10
MOST_FILES = 24
MOST_SHARE_OF_WHAT_NEVER_GOES = 0.05
MOST_HEALTH_ROWS = 1700
"""Of one hook in a day."""

HALVES = ("engine", "worker")
DETAIL = {"engine": "engine_steps", "worker": "forward_passes"}
DETAIL_TABLES = {"engine_steps", "kv_evictions", "kv_usage", "forward_passes"}


class Day(NamedTuple):
    """What day.py saw of one half, and the session of its old process after an export."""

    seen: dict[str, Any]
    session: Path
    process: Path

    @property
    def truth(self) -> dict[str, int]:
        """What the simulation did."""
        return dict(self.seen["old"]["truth"])

    def rows(self, table: str) -> list[dict[str, str]]:
        """Rows that are still there."""
        return streams.rows(self.process, table)

    def removed(self, table: str) -> int:
        """Rows that the size cap took, as the gaps stream has it."""
        return sum(int(row["rows"]) for row in self.rows("gaps") if row["table"] == table)

    def hours(self, name: str) -> list[int]:
        """A figure at the end of each hour."""
        return [int(hour[name]) for hour in self.seen["hours"]]


@pytest.fixture(scope="module")
def days(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Day]:
    folder = tmp_path_factory.mktemp("day")
    command = [sys.executable, str(DAY), str(folder), "--scale", str(SCALE)]
    env = environment.vllm(PYTHONHASHSEED="0")
    done = subprocess.run(
        command, env=env, capture_output=True, text=True, timeout=environment.HANGS_SECONDS, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = {}
    for half, seen in json.loads(done.stdout).items():
        session = Path(seen["old"]["session"])
        streams.export(session)
        found[half] = Day(seen, session, Path(seen["old"]["process"]))
    return found


@pytest.fixture(params=HALVES)
def day(days: dict[str, Day], request: pytest.FixtureRequest) -> Day:
    return days[request.param]


def test_every_hook_worked_to_the_end(day: Day) -> None:
    assert "put_in" in day.seen["old"]["states"] and day.seen["old"]["failures"] == 0
    assert "switched_off" not in day.seen["old"]["states"]
    assert day.truth["step"] >= 24 * 360_000 // SCALE


def test_a_step_costs_the_same_at_the_end_of_the_day(day: Day) -> None:
    young, old = day.seen["blocks"]["young"], day.seen["blocks"]["old"]
    assert len(young) == len(old) == 40
    assert statistics.median(old) < MOST_MEDIAN_RATIO * statistics.median(young)
    assert sum(old) < MOST_TOTAL_RATIO * sum(young)


def test_memory_does_not_grow(day: Day) -> None:
    """From the end of the first hour on; and, measured by tracemalloc, what our own code and its rows hold."""
    resident = day.hours("resident_bytes")
    assert max(resident) - resident[0] < MOST_RESIDENT_GROWTH_BYTES
    held = day.seen["memory"]["held_bytes"]
    assert max(held[12:]) - held[11] < MOST_HELD_GROWTH_BYTES


def test_files_stay_few_and_within_the_share(day: Day) -> None:
    assert max(day.hours("files")) <= MOST_FILES
    assert max(day.hours("bytes")) <= day.seen["old"]["share_bytes"]
    assert max(day.hours("open_files")) - min(day.hours("open_files")) <= 6


def test_the_process_record_is_not_written_again(day: Day) -> None:
    assert len(set(day.hours("process_json"))) == 1


def test_what_is_never_removed_stays_small(day: Day) -> None:
    kept = [path for path in day.process.glob("*.csv") if path.name.split(".")[0] not in DETAIL_TABLES]
    assert (
        0 < sum(path.stat().st_size for path in kept) < MOST_SHARE_OF_WHAT_NEVER_GOES * day.seen["old"]["share_bytes"]
    )
    rows = [row["hook"] for row in day.rows("health")]
    assert 0 < max(rows.count(hook) for hook in set(rows)) < MOST_HEALTH_ROWS


@pytest.mark.parametrize("half", HALVES)
def test_the_newest_rows_are_kept_without_a_hole_and_the_others_counted(days: dict[str, Day], half: str) -> None:
    day = days[half]
    table, number = ("engine_steps", "step") if half == "engine" else ("forward_passes", "forward")
    kept = [int(row[number]) for row in day.rows(table)]
    assert day.removed(table) > 0
    assert kept == list(range(day.removed(table) + 1, day.truth["step"] + 1))


def test_totals_of_blocks_are_exact(days: dict[str, Day]) -> None:
    day = days["engine"]
    last = day.rows("engine_steps")[-1]
    assert day.truth["evicted"] > 50_000
    for name, expected in day.truth.items():
        assert int(last[name]) == expected, name
    assert len(day.rows("kv_evictions")) + day.removed("kv_evictions") == day.truth["evicted"]


def test_totals_of_graphs_are_exact(days: dict[str, Day]) -> None:
    day = days["worker"]
    with (day.session / "cuda_graph_usage.csv").open() as file:
        replays = {
            f"{row['runtime_mode']} {row['num_tokens']}": int(row["replay_count"]) for row in csv.DictReader(file)
        }
    expected = {key: count for key, count in day.truth.items() if key.startswith(("FULL", "PIECEWISE"))}
    assert {key: count for key, count in replays.items() if count} == expected and len(expected) == 5


def test_what_was_removed_is_said(day: Day) -> None:
    half = "engine" if day.rows("engine_steps") else "worker"
    table = DETAIL[half]
    metadata = json.loads((day.session / "metadata.json").read_text())
    gaps = {(gap["table"], gap["reason"]): gap["rows"] for gap in metadata["gaps"]}
    assert gaps[table, "size_cap"] == day.removed(table)
    command = [sys.executable, "-m", "profilemate", "summary", str(day.session)]
    env = environment.clean()
    done = subprocess.run(
        command,
        cwd=environment.ROOT,
        env=env,
        capture_output=True,
        text=True,
        timeout=environment.HANGS_SECONDS,
        check=True,
    )
    assert f"{day.removed(table):,} of {table} (size_cap)" in done.stdout
    said = [line for line in done.stdout.splitlines() if "the size cap removed the oldest rows of" in line]
    assert len(said) == 1 and table in said[0] and "totals are exact" in said[0]
