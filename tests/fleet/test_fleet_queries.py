"""The answers of a fleet against each session's own truth: numbers counted by hand, rows by the csv module, the summary."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import environment
import pytest
from fleet_sessions import csv_rows, percentile, quiet, usage_over_time
from sample_rows import add_server, add_worker
from session_builder import CREATED_MONOTONIC_NS, SessionBuilder

import profilemate
from profilemate.fleet.dataset import Dataset
from profilemate.fleet.export import Wanted, export_all
from profilemate.fleet.queries import QUERIES, answer
from profilemate.fleet.readers import on_duckdb
from profilemate.trackers.cuda_graphs import events as graphs
from profilemate.trackers.kv_cache import events as kv

EXPECTED = json.loads((environment.ROOT / "tests" / "golden" / "expected.json").read_text())
HOST_OF = {"script_names": "höst-主機"}
WITHOUT_ROWS = ("trimmed", "old_format", "nothing_yet", "empty")
WHOLE = (
    "server",
    "two_engines",
    "no_graphs",
    "hybrid_cache",
    "cap_reached",
    "everything",
    "old_columns",
    "script_names",
)
"""Sessions whose rows Python's csv module can read as they are."""
COUNTED = [name for name, told in EXPECTED.items() if told.get("numbers") and name not in WITHOUT_ROWS]


@pytest.fixture(scope="module")
def answers(golden_fleet: tuple[Path, Path, dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    fleet = on_duckdb(golden_fleet[1])
    return {query.name: answer(query.name, fleet) for query in QUERIES}


def of(rows: list[dict[str, Any]], session: str) -> list[dict[str, Any]]:
    return [row for row in rows if row["host"] == HOST_OF.get(session, session)]


def total(rows: list[dict[str, Any]], column: str) -> int:
    return sum(row[column] or 0 for row in rows)


@pytest.mark.parametrize("session", COUNTED)
def test_sums_are_the_numbers_counted_by_hand(session: str, answers: dict[str, list[dict[str, Any]]]) -> None:
    numbers = EXPECTED[session]["numbers"]
    coverage, ladder = of(answers["graph_coverage"], session), of(answers["graph_ladder"], session)
    rates, preemptions = of(answers["hit_rates"], session), of(answers["preemptions"], session)
    told = {
        "cuda_graphs.forward_passes.total": total(coverage, "forwards"),
        "cuda_graphs.forward_passes.full_graph": total(coverage, "full_graph"),
        "cuda_graphs.forward_passes.piecewise_graph": total(coverage, "piecewise_graph"),
        "cuda_graphs.forward_passes.no_graph": total(coverage, "no_graph"),
        "cuda_graphs.replays": total(ladder, "replays"),
        "cuda_graphs.padded_tokens": total(ladder, "padded_tokens"),
        "cuda_graphs.padding_tokens": total(ladder, "padded_tokens") - total(ladder, "unpadded_tokens"),
        "cuda_graphs.graphs_captured": sum(row["captures"] > 0 for row in ladder),
        "kv_cache.query_tokens": total(rates, "query_tokens"),
        "kv_cache.hit_tokens": total(rates, "hit_tokens"),
        "kv_cache.preemptions": total(preemptions, "preemptions"),
        "kv_cache.failed_allocations": total(preemptions, "failed_allocations"),
        "requests.preemptions.rows": total(preemptions, "rows"),
        "engine_steps.total_samples": total(preemptions, "steps"),
    }
    compared = {path: number or 0 for path, number in numbers.items() if path in told}
    assert len(compared) >= 4
    if session == "damaged":  # one row more has a bad cell among columns that the summary of graphs does not use
        compared = {path: number for path, number in compared.items() if path.startswith(("kv_cache", "requests"))}
        assert total(coverage, "forwards") == numbers["cuda_graphs.forward_passes.total"] - 1
    if session == "hooks_off":  # its KV hooks did not fit: who has no counter has no engine here
        compared.pop("engine_steps.total_samples")
    assert {path: told[path] for path in compared} == compared


@pytest.mark.parametrize("session", WHOLE)
def test_usage_is_that_of_the_rows(
    session: str, answers: dict[str, list[dict[str, Any]]], golden_fleet: tuple[Path, Path, dict[str, Any]]
) -> None:
    rows = of(answers["kv_usage"], session)
    if len(rows) != 1:
        assert session == "everything" and len(rows) == 2
        return
    levels = usage_over_time([golden_fleet[0] / session])
    for percent in (50, 90, 95, 99):
        assert rows[0][f"p{percent}_pct"] == percentile(levels, percent)
    held = sum(held for _, held in levels)
    assert rows[0]["seconds"] == pytest.approx(held / 1e6)
    assert rows[0]["mean_pct"] == pytest.approx(float(100 * sum(used * held for used, held in levels) / held))
    peaks = [
        int(row["peak"]) / int(row["total_blocks"])
        for _, row in csv_rows(golden_fleet[0] / session, "engine_steps")
        if row["in_use"]
    ]
    assert rows[0]["peak_pct"] == 100 * max(peaks)


@pytest.mark.parametrize("session", ["server", "two_engines", "cap_reached", "killed", "everything", "clock_step"])
def test_the_ladder_is_the_summary_s(
    session: str, answers: dict[str, list[dict[str, Any]]], golden_fleet: tuple[Path, Path, dict[str, Any]]
) -> None:
    summary = profilemate.open(golden_fleet[0] / session).metadata["summary"]
    ladder = of(answers["graph_ladder"], session)
    keys = ("replay_count", "pieces", "captures", "padded_tokens", "unpadded_tokens")
    wanted = Counter(tuple(top[key] for key in keys) for top in summary["cuda_graphs"]["top"])
    columns = ("replays", "pieces", "captures", "padded_tokens", "unpadded_tokens")
    assert Counter(tuple(row[key] for key in columns) for row in ladder if row["replays"]) == wanted
    never = [row for row in ladder if not row["replays"]]
    assert len(never) == len(summary["cuda_graphs"]["never_replayed"])
    preempted = of(answers["preemptions"], session)
    assert total(preempted, "lost_tokens") == summary["requests"]["preemptions"]["lost_tokens"]
    assert total(preempted, "recomputed_tokens") == summary["requests"]["preemptions"]["recomputed_tokens"]


def test_what_is_missing_is_named(answers: dict[str, list[dict[str, Any]]]) -> None:
    lacking = {row["host"]: row for row in answers["missing"]}
    assert {"cap_reached", "damaged", "killed", "trimmed", "nothing_yet", "empty"} <= lacking.keys()
    assert not {"server", "two_engines"} & lacking.keys()
    assert lacking["cap_reached"]["lost_rows"] > 0 and lacking["damaged"]["faults"] > 0
    assert lacking["trimmed"]["is_trimmed"] and "were removed" in lacking["trimmed"]["missing"]
    capped = of(answers["kv_usage"], "cap_reached")[0]
    assert capped["rows_lost"] == 507 and of(answers["kv_usage"], "server")[0]["rows_lost"] == 0


def test_a_trimmed_session_keeps_its_totals(answers: dict[str, list[dict[str, Any]]]) -> None:
    trimmed, server = of(answers["sessions"], "trimmed")[0], of(answers["sessions"], "server")[0]
    for column in ("engine_steps", "forward_passes", "preemptions"):
        assert (
            trimmed[column]
            == server[column]
            == 230 - 2 * (column == "forward_passes") - 229 * (column == "preemptions")
        )
    assert trimmed["rows"] < server["rows"]


def test_percentiles_of_many_engines_on_hosts_that_share_a_model(tmp_path: Path) -> None:
    rows = random.Random(7)
    made: dict[str, list[Path]] = {}
    for number in range(6):
        host = ("a", "b")[number % 2]
        session = SessionBuilder(tmp_path, f"session_20251124_16000{number}", pid=number, host=host)
        engine = session.process("EngineCore", host=host, engine_config={"model": "m"})
        times = sorted(CREATED_MONOTONIC_NS + rows.randrange(10**10) for _ in range(rows.randrange(1, 60)))
        for step, time_ns in enumerate(times, 1):
            used = rows.choice([0, 1, 7, 50, 99, 100])
            cells = {
                "time_ns": time_ns,
                "engine": number % 3,
                "step": step,
                "in_use": used,
                "total_blocks": 100 + number,
            }
            engine.rows(kv.STEPS, cells | {"peak": 100})
        made.setdefault(host, []).append(session.path)
    dataset = Dataset.make(tmp_path / "dataset")
    done = list(export_all(dataset, [path for paths in made.values() for path in paths], Wanted(), quiet))
    assert [one.why for one in done if one.why] == []
    found = {row["host"]: row for row in answer("kv_usage", on_duckdb(dataset.path))}
    for host, paths in made.items():
        levels = usage_over_time(paths)
        told = [found[host][f"p{percent}_pct"] for percent in (50, 90, 95, 99)]
        assert told == [percentile(levels, percent) for percent in (50, 90, 95, 99)]
        assert (found[host]["sessions"], found[host]["engines"]) == (3, 3)


def test_half_the_time_at_a_level_is_enough_for_the_median(tmp_path: Path) -> None:
    session = SessionBuilder(tmp_path)
    engine = session.process("EngineCore", engine_config={"model": "m"})
    for number, used in enumerate((20, 10, 99), 1):  # one second each, but for the last, which lasts for no time
        time_ns = CREATED_MONOTONIC_NS + number * 10**9
        cells = {"time_ns": time_ns, "engine": 0, "step": number, "in_use": used, "total_blocks": 100, "peak": 99}
        engine.rows(kv.STEPS, cells)
    dataset = Dataset.make(tmp_path / "dataset")
    list(export_all(dataset, [session.path], Wanted(), quiet))
    (row,) = answer("kv_usage", on_duckdb(dataset.path))
    told = (row["seconds"], row["mean_pct"], row["p50_pct"], row["p90_pct"], row["p99_pct"], row["peak_pct"])
    assert told == (2.0, pytest.approx(15), 10.0, 20.0, 20.0, 99.0)


def test_captures_of_the_memory_estimate_are_none(tmp_path: Path) -> None:
    session = add_server(SessionBuilder(tmp_path))
    dataset = Dataset.make(tmp_path / "dataset")
    list(export_all(dataset, [session.path], Wanted(), quiet))
    rows = answer("graph_ladder", on_duckdb(dataset.path))
    columns = ("runtime_mode", "num_tokens", "replays", "captures", "pieces", "padded_tokens", "unpadded_tokens")
    assert [tuple(row[name] for name in columns) for row in rows] == [
        ("FULL", 8, 3, 1, 3, 24, 20), ("PIECEWISE", 16, 1, 1, 3, 16, 11), ("FULL", 4, 0, 1, 0, 0, 0),
    ]  # fmt: skip


def test_one_rank_stands_for_its_engine(tmp_path: Path) -> None:
    session = SessionBuilder(tmp_path)
    for rank in (0, 1):
        add_worker(session, f"Worker_TP{rank}", ranks={"dp": 0, "tp": rank, "tp_size": 2})
    dataset = Dataset.make(tmp_path / "dataset")
    list(export_all(dataset, [session.path], Wanted(), quiet))
    (row,) = answer("graph_coverage", on_duckdb(dataset.path))
    assert (row["forwards"], row["full_graph"], row["piecewise_graph"], row["no_graph"]) == (5, 3, 1, 1)
    assert answer("sessions", on_duckdb(dataset.path))[0]["forward_passes"] == 5


def test_a_torn_block_of_totals_does_not_count(tmp_path: Path) -> None:
    session = SessionBuilder(tmp_path)
    graph = {"runtime_mode": "FULL", "num_tokens": 8, "uniform": True, "has_lora": False}
    block = {"owner": "main", **graph, "graphs": 1, "unpadded_tokens": 5, "padded_tokens": 8, "host_ns": 1}
    old = {**block, "time_ns": CREATED_MONOTONIC_NS + 1, "through_forward": 10, "forwards": 10, "replays": 9}
    new = {**block, "time_ns": CREATED_MONOTONIC_NS + 2, "through_forward": 20, "forwards": 20, "replays": 18}
    other = {**new, "num_tokens": 16}
    passes = [
        {"time_ns": CREATED_MONOTONIC_NS + n, "step": n, "forward": n, **graph, "unpadded_tokens": 4, "graphs": 1}
        for n in range(9, 13)
    ]
    worker = session.process("Worker", engine_config={"model": "m"}).rows(graphs.PASSES, *passes)
    worker.rows(graphs.TOTALS, old, new, other, tail="5000000000,20,main,FULL,32")
    dataset = Dataset.make(tmp_path / "dataset")
    list(export_all(dataset, [session.path], Wanted(), quiet))
    (row,) = answer("graph_coverage", on_duckdb(dataset.path))
    assert (row["forwards"], row["full_graph"], row["padded_tokens"]) == (12, 11, 8 + 16)
