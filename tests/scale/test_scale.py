"""Merging and exporting the session of 64 processes: totals at three sizes, and memory that does not grow with the rows."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import environment
import pytest
from scale_sessions import make, steps_of_engines
from scale_truth import Truth, differences

import profilemate
from profilemate.figures import requests
from profilemate.figures.request_parts import took_ns
from profilemate.trackers.requests import join
from profilemate.trackers.requests.life import Life

SIZES = (4_000, 8_000, 16_000)
PROCESSES = 64
PEAK = """
import resource, sys
from pathlib import Path
from profilemate.export import cells
from profilemate.session import durations, records, segments, spool, whole_chunks
from profilemate.sessions import requests_ended
from profilemate.trackers.engine_steps.analyze import Adder
from profilemate.trackers.requests import join
spool.MOST_IN_MEMORY = durations.WAITING = join.REMEMBERED = Adder.WAITING = 50
whole_chunks.CHUNK_ROWS = 10
records.read_plain.__defaults__ = (1 << 16,)
requests_ended.MOST_BYTES = 1 << 16
cells.word = cells.word.__wrapped__
segments.read_blocks.__defaults__ = (1 << 13,)
segments.BLOCK_BYTES = 1 << 13
import tracemalloc
tracemalloc.start()
from profilemate.cli.main import main
assert main(sys.argv[2:]) == 0
print(tracemalloc.get_traced_memory()[1], file=open(sys.argv[1], "w"))
"""
"""Runs a command with what is held at a time made small, so that few rows are enough to see what grows with them."""

SLACK_BYTES = 300_000
"""SQLite is outside of it: its cache is bounded by a setting."""


def command(*arguments: str) -> str:
    """Runs `profilemate`; its standard output."""
    done = subprocess.run(
        [sys.executable, "-m", "profilemate", *arguments],
        cwd=environment.ROOT, env=environment.clean(), capture_output=True, text=True,
        timeout=environment.HANGS_SECONDS, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def peak_bytes(folder: Path, *arguments: str) -> int:
    """The most that Python's own objects took while a command ran."""
    told = folder / "peak"
    done = subprocess.run(
        [sys.executable, "-c", PEAK, str(told), *arguments],
        cwd=environment.ROOT, env=environment.clean(), capture_output=True, text=True,
        timeout=environment.HANGS_SECONDS, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return int(told.read_text())


@pytest.mark.parametrize("rows", SIZES)
def test_totals_of_the_merged_session_are_the_truth(rows: int, tmp_path: Path) -> None:
    """Two hosts, whose request ids differ; the truth is from arithmetic."""
    parts = make(tmp_path, rows, PROCESSES, hosts=2, chunk=999)
    joined = tmp_path / "joined"
    record: dict[str, Any] = json.loads(command("merge", *map(str, parts), "--output", str(joined), "--json"))
    truth = Truth(tuple(steps_of_engines(rows, PROCESSES)))
    other_host = sum(truth.steps[len(truth.steps) // 2 :])
    assert [clock["requests_seen_on_both"] for clock in record["clocks"]] == [0, other_host]
    assert [clock["moved_ns"] for clock in record["clocks"]] == [0, 0]
    command("export", str(joined))
    metadata = json.loads((joined / "metadata.json").read_text())
    assert differences(truth.summary(), metadata["summary"]) == []
    files = {name.removesuffix(".csv"): count for name, count in metadata["files"].items()}
    assert differences({name.removesuffix(".csv"): count for name, count in truth.files().items()}, files) == []
    assert len(metadata["processes"]) == PROCESSES and not metadata["faults"] and not metadata["findings"]
    for name, count in truth.files().items():
        with open(joined / name) as file:
            assert sum(1 for _ in file) == count + 1, name


@pytest.mark.parametrize("task", ["merge", "export"])
def test_memory_does_not_grow_with_the_rows(task: str, tmp_path: Path) -> None:
    """Few processes, so that every stream is much longer than what is held of it at a time."""
    peaks = []
    for rows in (2_000, 6_000):
        folder = tmp_path / str(rows)
        parts = make(folder, rows, 8, hosts=2)
        merge = ["merge", *map(str, parts), "--output", str(folder / "joined")]
        if task == "export":
            command(*merge)
        peaks.append(peak_bytes(folder, *(merge if task == "merge" else ["export", str(folder / "joined")])))
    assert peaks[1] - peaks[0] < SLACK_BYTES, peaks


def num_lives() -> int:
    """Objects of requests that this process holds, those that other tests left included."""
    gc.collect()
    return sum(type(thing) is Life for thing in gc.get_objects())


def test_a_page_keeps_numbers_of_the_requests_and_few_requests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A report of 300,000 requests held 250 MiB of them."""
    monkeypatch.setattr(requests, "CHUNK_ROWS", 100)
    monkeypatch.setattr(requests, "CANDIDATES", 50)
    session = profilemate.open(make(tmp_path, 3_000, 8)[0])
    of_others = num_lives()
    found = requests.requests_of(session)
    assert num_lives() - of_others == requests.SLOWEST
    everyone = list(join.lives(session))
    took = sorted((one for one in map(took_ns, everyone) if one is not None), reverse=True)
    assert [one for one, _ in found.slowest] == took[: requests.SLOWEST] and found.ended == len(took)
    assert found.count == len(everyone) == 3_000
    assert found.latencies["ttft_ns"].drop_nulls().to_list() == [
        one.ttft_ns for one in everyone if one.ttft_ns is not None
    ]
    assert found.preemptions.height == found.counted_preemptions == sum(len(one.preempted) for one in everyone) > 0


def test_the_benchmark_measures_and_checks_every_command(tmp_path: Path) -> None:
    results = tmp_path / "results.json"
    done = subprocess.run(
        [sys.executable, str(environment.ROOT / "benchmarks" / "scale"), "--rows", "300", "600", "--processes", "8",
         "--commands", "export", "summary", "--folder", str(tmp_path), "--json", str(results)],
        cwd="/", env=environment.clean(), capture_output=True, text=True, timeout=environment.HANGS_SECONDS, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    measured = json.loads(results.read_text())["results"]
    expected = [(command, rows) for rows in (300, 600) for command in ("merge", "export", "summary")]
    assert [(one["command"], one["rows"]) for one in measured] == expected
    assert all(one["cpu_seconds"] > 0 and one["peak_bytes"] > 1 << 20 for one in measured)
    assert done.stdout.count("| export |") == 2 and sorted(path.name for path in tmp_path.iterdir()) == ["results.json"]
