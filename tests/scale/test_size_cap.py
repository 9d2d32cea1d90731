"""The size cap of a session with many processes, driven by the probe's own writer: the sum holds, and totals are the truth."""

from __future__ import annotations

import csv
import json
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import environment
import pytest
import streams
from scale_truth import AGES_NS, LIMITS, REQUESTS, SCHEDULE_NS, Truth
from writers import TABLE, open_writer

from profilemate.schema.table import Table, fields

DRIVER = environment.ROOT / "tests" / "scale" / "drive_cap.py"
PROCESSES, STEPS, CAP_BYTES = 64, 1500, 6 << 20
ENGINES = PROCESSES // 4


class Capped(NamedTuple):
    """A session past its cap, after an export, and what its driver saw."""

    session: Path
    most_bytes: int
    metadata: dict[str, Any]

    @property
    def summary(self) -> dict[str, Any]:
        """Of metadata.json."""
        return dict(self.metadata["summary"])

    def removed(self, process: Path, table: str) -> int:
        """Rows that the cap took."""
        gaps = [row for row in streams.rows(process, "gaps") if row["table"] == table]
        assert {row["reason"] for row in gaps} <= {"size_cap"}
        return sum(int(row["rows"]) for row in gaps)


@pytest.fixture(scope="module")
def capped(tmp_path_factory: pytest.TempPathFactory) -> Capped:
    folder = tmp_path_factory.mktemp("capped")
    command = [sys.executable, str(DRIVER), str(folder), str(PROCESSES), str(STEPS), str(CAP_BYTES)]
    done = subprocess.run(
        command, env=environment.clean(), capture_output=True, text=True, timeout=environment.HANGS_SECONDS, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    seen = json.loads(done.stdout)
    session = Path(seen["session"])
    streams.export(session)
    return Capped(session, seen["most_bytes"], json.loads((session / "metadata.json").read_text()))


def test_all_processes_together_stay_below_the_cap_at_every_moment(capped: Capped) -> None:
    assert CAP_BYTES // 2 < capped.most_bytes <= CAP_BYTES
    kept = [sum(path.stat().st_size for path in process.glob("*.csv")) for process in streams.processes(capped.session)]
    assert len(kept) == PROCESSES and max(kept) <= CAP_BYTES // PROCESSES


@pytest.mark.parametrize(
    ("role", "table", "number"),
    [
        ("EngineCore", "engine_steps", "step"),
        ("EngineCore", "kv_evictions", ""),
        ("Worker", "forward_passes", "forward"),
    ],
)
def test_of_every_process_the_newest_rows_are_there_and_the_others_counted(
    capped: Capped, role: str, table: str, number: str
) -> None:
    processes = streams.processes(capped.session, role)
    assert len(processes) == (ENGINES if role == "EngineCore" else PROCESSES - ENGINES)
    for process in processes:
        rows, removed = streams.rows(process, table), capped.removed(process, table)
        assert removed > 0 and len(rows) + removed == STEPS
        if number:
            assert [int(row[number]) for row in rows] == list(range(removed + 1, STEPS + 1))


def test_totals_of_steps_and_blocks_are_the_truth(capped: Capped) -> None:
    truth, steps, kv = Truth((STEPS,) * ENGINES), capped.summary["engine_steps"], capped.summary["kv_cache"]
    assert steps["total_samples"] == truth.rows > steps["rows"]
    assert steps["scheduled_tokens"] == truth.sum(REQUESTS.tokens)
    assert steps["prefill_tokens"] == truth.sum(REQUESTS.context_tokens)
    assert steps["steps_by_limit"]["token_budget"] == truth.count(limit == "token_budget" for limit in LIMITS.values)
    assert steps["seconds"]["scheduling"] == round(truth.sum(SCHEDULE_NS) / 1e9, 6)
    assert (kv["steps"], kv["evicted"], kv["allocated"]) == (truth.rows, truth.rows, 3 * truth.rows)
    assert kv["mean_lifetime_sec"] == round(truth.sum(AGES_NS) / truth.rows / 1e9, 9)


def test_totals_of_passes_and_graphs_are_the_truth(capped: Capped) -> None:
    truth, graphs, passes = Truth((STEPS,) * ENGINES), capped.summary["cuda_graphs"], capped.summary["forward_passes"]
    replays = truth.replays()
    assert graphs["forward_passes"]["total"] == passes["passes"] == truth.rows > passes["kept"]
    assert graphs["replays"] == sum(replays.values())
    assert graphs["padded_tokens"] == sum(size * count for size, count in replays.items())
    with open(capped.session / "cuda_graph_usage.csv") as file:
        found = {row["num_tokens"]: int(row["replay_count"]) for row in csv.DictReader(file)}
    assert found == {str(size): count for size, count in replays.items()}
    assert passes["phases"]["mixed"]["count"] == truth.count(REQUESTS.context_requests.values)
    assert capped.metadata["findings"] == []


def test_what_was_removed_is_said(capped: Capped) -> None:
    said = {(row["table"], row["reason"]): row["rows"] for row in capped.summary["health"]["lost_rows"]}
    for role, table in (("EngineCore", "engine_steps"), ("EngineCore", "kv_evictions"), ("Worker", "forward_passes")):
        processes = streams.processes(capped.session, role)
        assert said[table, "size_cap"] == sum(capped.removed(process, table) for process in processes) > 0
    assert any("the size cap removed the oldest rows" in note for note in capped.metadata["notes"])


def test_a_low_limit_of_open_files_changes_nothing(capped: Capped, tmp_path: Path) -> None:
    """All segments of all processes are open at once, which is more than a shell allows at first."""
    few, hard = 60, resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    assert len(list(capped.session.glob("processes/Worker*/forward_passes*.csv"))) > few
    done = subprocess.run(
        [sys.executable, "-m", "profilemate", "export", str(capped.session), "--output", str(tmp_path)],
        cwd=environment.ROOT, env=environment.clean(), capture_output=True, text=True, check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (few, hard)), timeout=environment.HANGS_SECONDS,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    metadata = json.loads((tmp_path / "metadata.json").read_text())
    assert metadata["faults"] == [] and metadata["summary"] == capped.summary


# Totals are never removed: where a share is small, they must not come to fill it

COLUMNS = ("through", "graph", "sum")
WIDE = Table("wide_sums", "Kept totals of many graphs.", fields(*((name, "int", "") for name in COLUMNS)))
GRAPHS = 60


def test_totals_do_not_come_to_fill_a_small_share(tmp_path: Path) -> None:
    """A block has a row for each graph and is written each time that a segment goes: 10 MB of rows in a share of 128 KiB."""
    share, written, most = 128 << 10, 0, 0
    writer = open_writer(tmp_path, share)
    stream, sums = writer.stream(TABLE), writer.stream(WIDE, detail=False, newest_counts=True)
    blocks = []

    def totals() -> None:
        blocks.append(written)
        for graph in range(GRAPHS):
            sums.add((written, graph, graph * written))

    writer.before_drop.append(totals)
    for written in range(1, 100_001):
        stream.add((written, "x" * 90))
        if written % 50 == 0:
            writer.flush()
            most = max(most, sum(path.stat().st_size for path in tmp_path.iterdir())) if written % 1000 == 0 else most
    assert len(blocks) > 400 and 0 < most <= share
    kept = [int(row["n"]) for row in streams.rows(tmp_path, "numbers")]
    assert kept == list(range(kept[0], 100_001)) and len(kept) > 300
    newest = streams.rows(tmp_path, "wide_sums")[-GRAPHS:]
    assert [(int(row["through"]), int(row["graph"])) for row in newest] == [(blocks[-1], n) for n in range(GRAPHS)]
    assert all(int(row["sum"]) == int(row["through"]) * int(row["graph"]) for row in newest)


def test_older_totals_stay_where_the_newest_could_not_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = open_writer(tmp_path, 128 << 10)
    stream, sums = writer.stream(TABLE), writer.stream(WIDE, detail=False, newest_counts=True)
    written = 0
    writer.before_drop.append(lambda: [sums.add((written, graph, written)) for graph in range(200)] and None)
    real = type(sums).write
    fails = [False]

    def write(self: Any, *arguments: Any) -> Any:
        if fails[0] and self is sums:
            raise OSError(28, "no space")
        return real(self, *arguments)

    monkeypatch.setattr(type(sums), "write", write)
    for written in range(1, 4000):
        fails[0] = written > 2000
        stream.add((written, "x" * 90))
        writer.paused_until_ns = 0
        writer.flush()
    through = {int(row["through"]) for row in streams.rows(tmp_path, "wide_sums")}
    assert through and max(through) <= 2000
    kept = [int(row["n"]) for row in streams.rows(tmp_path, "numbers")]
    assert kept[0] <= max(through) + 1
