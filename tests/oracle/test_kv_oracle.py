"""vLLM's own Scheduler and KVCacheManager, without a model: every count of the KV cache tracker against an oracle that
shares no code with it, in the same run and in a run of its own."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import environment
import pytest
import streams
import warm
from kv_columns import COUNTS

DRIVE = environment.ROOT / "tests" / "driver" / "drive.py"
MOONCAKE = environment.SHARED / "traces" / "mooncake_conversation.jsonl"
ROUNDING_SECONDS = 1e-6

CONFIGURATIONS = {
    "default": [],
    "async": ["--async"],
    "hybrid": ["--hybrid"],
    "hybrid-async": ["--hybrid", "--async"],
    "no-caching": ["--no-caching"],
    "resets": ["--async", "--reset-every", "150"],
    "beside-kv-cache-metrics": ["--kv-cache-metrics"],
    "mooncake": [
        "--trace", str(MOONCAKE), "--limit", "200", "--blocks", "3000", "--max-num-batched-tokens", "2048",
        "--max-num-seqs", "256",
    ],
}  # fmt: skip


class Run(NamedTuple):
    """One run of the driver with both the oracle and ProfileMate."""

    summary: dict[str, Any]
    oracle: dict[str, Any]
    process: Path

    def steps(self) -> list[dict[str, str]]:
        """Rows of engine_steps."""
        return streams.rows(self.process, "engine_steps")

    def total(self, name: str) -> int:
        """A cumulative counter at the end."""
        return int(self.steps()[-1][name])


def drive(arguments: list[str], env: dict[str, str]) -> dict[str, Any]:
    done = warm.run([str(DRIVE), *arguments], env)
    assert done.returncode == 0, done.stderr[-3000:]
    return dict(json.loads(done.stdout))


def drive_both(name: str, folder: Path) -> Run:
    """One run with the oracle and ProfileMate."""
    out = folder / "oracle.json"
    summary = drive([*CONFIGURATIONS[name], "--oracle", str(out)], environment.profiled(folder))
    oracle = json.loads(out.read_text())
    assert not oracle["mismatch_count"] and not oracle["unmirrored"], "the oracle doubts itself"
    return Run(summary, oracle, streams.processes(streams.only_session(folder))[0])


@pytest.fixture(scope="module", params=list(CONFIGURATIONS))
def configuration(request: pytest.FixtureRequest) -> str:
    if request.param == "mooncake" and not MOONCAKE.exists():
        pytest.skip("the public request trace is not beside this checkout")
    return str(request.param)


@pytest.fixture(scope="module")
def run(configuration: str, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return drive_both(configuration, tmp_path_factory.mktemp(configuration))


@pytest.fixture
def again(configuration: str, tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Run]:
    """The same run once more."""
    return lambda: drive_both(configuration, tmp_path_factory.mktemp(configuration))


@pytest.mark.parametrize("ours", COUNTS)
def test_counts_equal_the_oracle(run: Run, ours: str) -> None:
    assert run.total(ours) == run.oracle[COUNTS[ours]]


def test_prefix_look_ups_equal_vllms_own(run: Run) -> None:
    prefix = run.oracle["prefix"]
    found = {name: run.total(name) for name in ("query_requests", "query_tokens", "hit_tokens")}
    assert found == {
        "query_requests": prefix["requests"],
        "query_tokens": prefix["queries"],
        "hit_tokens": prefix["hits"],
    }
    assert run.total("preempted_query_tokens") == prefix["preempted_queries"]
    assert run.total("preempted_hit_tokens") == prefix["preempted_hits"]


def test_scheduled_tokens_equal_the_drivers(run: Run) -> None:
    assert run.total("scheduled_tokens") == run.summary["scheduled_tokens"]
    assert run.total("busy_steps") == run.summary["steps"] - run.summary["empty_steps"]


def test_every_step_splits_the_pool_as_a_full_scan_does(run: Run) -> None:
    """A reset adds a row of its own within a step: the last row of each step is the one at its end."""
    by_step: dict[int, list[dict[str, str]]] = {}
    for row in run.steps():
        by_step.setdefault(int(row["step"]), []).append(row)
    by_step.pop(0, None)
    ends = [rows[0] for _, rows in sorted(by_step.items())]
    assert [[int(row[name]) for name in ("in_use", "cached_free", "empty")] for row in ends] == [
        row[:3] for row in run.oracle["rows"]
    ]
    assert [int(row["step_peak"]) for row in ends] == [row[3] for row in run.oracle["rows"]]


def test_each_eviction_has_the_oracles_block_lifetime_and_idle_time(run: Run) -> None:
    """Our clock is read within the very calls that the oracle's is read around, however long the machine stops in between."""
    ours, theirs = streams.rows(run.process, "kv_evictions"), run.oracle["evictions"]
    assert [int(row["block_id"]) for row in ours] == [eviction["block"] for eviction in theirs]
    outside = [
        f"{own} of {low} to {high}"
        for row, eviction in zip(ours, theirs, strict=True)
        for since, name in (("allocated_ns", "lifetime_bounds_s"), ("used_ns", "idle_bounds_s"))
        for own, (low, high) in [((int(row["time_ns"]) - int(row[since])) / 1e9, eviction[name])]
        if not low - ROUNDING_SECONDS <= own <= high + ROUNDING_SECONDS
    ]
    assert outside == []


def test_usage_rows_come_every_log_interval_operations(run: Run) -> None:
    rows = [row for row in streams.rows(run.process, "kv_usage") if row["kind"] == "interval"]
    assert len(rows) == run.oracle["operations"] // 100


def test_a_run_of_its_own_counts_the_same(tmp_path: Path) -> None:
    """Oracle and ProfileMate in separate processes: neither changes what vLLM does."""
    out = tmp_path / "oracle.json"
    alone = drive(["--oracle", str(out)], environment.vllm())
    bare = drive([], environment.vllm())
    with_us = drive([], environment.profiled(tmp_path / "sessions"))
    process = streams.processes(streams.only_session(tmp_path / "sessions"))[0]
    last = streams.rows(process, "engine_steps")[-1]
    oracle = json.loads(out.read_text())
    for ours, theirs in COUNTS.items():
        assert int(last[ours]) == oracle[theirs], ours
    unmeasured = {"loop_cpu_s", "loop_wall_s"}
    assert {k: v for k, v in with_us.items() if k not in unmeasured} == {
        k: v for k, v in bare.items() if k not in unmeasured
    }
    assert alone["steps"] == bare["steps"]


def test_vllms_own_collector_counts_more_evictions(run: Run) -> None:
    """Its figure is unchanged by us, and it counts blocks that were merely handed out again."""
    if not run.summary["collector_evictions"]:
        pytest.skip("this configuration runs without --kv-cache-metrics")
    assert run.summary["collector_evictions"] == run.oracle["allocated"] - run.oracle["distinct_blocks"]
    assert run.summary["collector_evictions"] > run.total("evicted")


def test_past_the_size_cap_the_totals_are_still_the_truth(tmp_path: Path) -> None:
    out = tmp_path / "oracle.json"
    cap = 240_000
    env = environment.profiled(tmp_path / "sessions", PROFILEMATE_SESSION_CAP=str(cap))
    drive(["--oracle", str(out)], env)
    session = streams.only_session(tmp_path / "sessions")
    (process,) = streams.processes(session)
    oracle = json.loads(out.read_text())
    last = streams.rows(process, "engine_steps")[-1]
    for ours, theirs in COUNTS.items():
        assert int(last[ours]) == oracle[theirs], ours
    evictions = streams.rows(process, "kv_evictions")
    gone = sum(int(row["rows"]) for row in streams.rows(process, "gaps") if row["table"] == "kv_evictions")
    assert gone > 0 and len(evictions) + gone == oracle["evicted"]
    newest = [eviction["block"] for eviction in oracle["evictions"]][gone:]
    assert [int(row["block_id"]) for row in evictions] == newest
    assert sum(path.stat().st_size for path in session.rglob("*.csv") if path.parent == process) <= cap
