"""CPU operations on the reading side: the histogram's percentiles, sums over processes, nesting, and the share of Python."""

from __future__ import annotations

import json
import random
import statistics
from typing import Any

import pytest
from session_builder import ProcessBuilder, SessionBuilder, at

from profilemate.export import readme_files
from profilemate.export.text import summary_lines
from profilemate.session.session import Session
from profilemate.trackers.cpu_operations import events, histogram
from profilemate.trackers.cpu_operations.analyze import Times

MS = 1_000_000
ON = {"settings": {"trackers": ["cpu_operations"], "cpu_operation_rows_every": 10}}

SHAPES = {
    "uniform": lambda draw: draw.randrange(200, 20_000_000),
    "log_uniform": lambda draw: int(10 ** draw.uniform(0, 11.5)),
    "two_hills": lambda draw: int(abs(draw.gauss(3_000, 200) if draw.random() < 0.7 else draw.gauss(8e6, 1e6))),
    "few_values": lambda draw: draw.choice([0, 1, 127, 128, 129, 4096, 10**9]),
    "tiny": lambda draw: draw.randrange(0, 256),
}


def counted(durations: list[int]) -> dict[int, int]:
    """Their histogram, by way of the text that is written."""
    counts = [0] * histogram.NUM_BUCKETS
    for duration in durations:
        counts[histogram.bucket_of(duration)] += 1
    text = histogram.as_text(counts, histogram.bucket_of(min(durations)), histogram.bucket_of(max(durations)))
    assert "," not in text and "\n" not in text
    return histogram.from_text(text)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("count", [2, 3, 100, 20_000])
def test_percentiles_are_those_of_the_standard_library_within_the_stated_error(shape: str, count: int) -> None:
    draw = random.Random(f"{shape} {count}")
    durations = [SHAPES[shape](draw) for _ in range(count)]
    exact = statistics.quantiles(durations, n=100, method="inclusive")
    counts = counted(durations)
    assert sum(counts.values()) == count and histogram.RELATIVE_ERROR < 0.01
    for percent in (1, 50, 95, 99):
        found = histogram.percentile_ns(counts, percent / 100)
        assert found == pytest.approx(exact[percent - 1], rel=histogram.RELATIVE_ERROR, abs=1e-6)


def test_every_duration_lies_in_the_bucket_that_stands_for_it() -> None:
    previous = -1
    for duration in [*range(4096), *(int(1.01**n) for n in range(840, 2780))]:
        if duration > histogram.LARGEST_NS:
            break
        bucket = histogram.bucket_of(duration)
        assert bucket in (previous, previous + 1) or duration > 4095
        assert abs(histogram.middle_of(bucket) - duration) <= histogram.RELATIVE_ERROR * duration
        previous = bucket
    assert histogram.bucket_of(histogram.LARGEST_NS) == histogram.NUM_BUCKETS - 1


@pytest.mark.parametrize("text", ["x", "1", "1:x", "1:2 0", "1:-2", "-1:2", "9999:1", "1:2;;2:3", "2239:1 1"])
def test_a_damaged_histogram_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".*"):
        histogram.from_text(text)


def test_the_standard_deviation_is_that_of_the_durations() -> None:
    draw = random.Random(3)
    durations = [draw.randrange(2_000, 400_000) for _ in range(1000)]
    squares = sum(duration * duration for duration in durations) // 10**6
    times = Times(1000, sum(durations), 0, squares, min(durations), max(durations), counted(durations))
    assert times.std_ns == pytest.approx(statistics.pstdev(durations), rel=1e-6)


def total(seconds: float, operation: str, *durations_ms: float) -> dict[str, Any]:
    """A row of totals."""
    durations = [round(ms * MS) for ms in durations_ms]
    counts = [0] * histogram.NUM_BUCKETS
    for duration in durations:
        counts[histogram.bucket_of(duration)] += 1
    return {
        "time_ns": at(seconds), "operation": operation, "calls": len(durations), "total_ns": sum(durations),
        "squares_us2": sum(duration * duration for duration in durations) // 10**6, "min_ns": min(durations),
        "max_ns": max(durations), "histogram": histogram.as_text(counts, 0, histogram.NUM_BUCKETS - 1),
    }  # fmt: skip


def server(session: SessionBuilder) -> ProcessBuilder:
    """Ten steps of 10 ms: scheduling 1.5, preparation 1, sampling 0.5, output 1; two tensor-parallel workers."""
    core = session.process("EngineCore", engine_config={"async_scheduling": False}, **ON).rows(
        events.TOTALS,
        total(1, "engine_step", 10), total(1, "schedule", 1), total(2, "engine_step", *[10] * 10),
        total(2, "schedule", *[1] * 10), total(2, "update_from_output", *[0.5] * 10), total(2, "serialise", *[0.1] * 10),
    )  # fmt: skip
    for rank in (0, 1):
        session.process(f"Worker_TP{rank}", ranks={"tp": rank, "tp_size": 2}, **ON).rows(
            events.TOTALS,
            total(2, "execute_model", *[6 + rank] * 10), total(2, "update_states", *[0.4] * 10),
            total(2, "prepare_inputs", *[0.6] * 10), total(2, "model_launch", *[4] * 10),
            total(2, "sample_tokens", *[1] * 10), total(2, "sample", *[0.5] * 10),
        )  # fmt: skip
    session.process("APIServer", engine_index=None, **ON).rows(
        events.TOTALS,
        total(3, "process_outputs", *[1] * 10), total(3, "detokenise", *[0.01] * 40), total(3, "serialise", *[0.2] * 4),
    )  # fmt: skip
    return core


def export(session: SessionBuilder) -> dict[str, Any]:
    """Export, and return cpu_timing_summary.json."""
    readme_files.write(Session(session.path))
    return dict(json.loads(session.text("cpu_timing_summary.json")))


def test_the_summary_file_has_what_users_know_and_nesting(session: SessionBuilder) -> None:
    server(session)
    operations = export(session)
    execute = operations["execute_model"]
    known = ("count", "total_ms", "mean_ms", "std_ms", "min_ms", "max_ms", "p50_ms", "p95_ms", "p99_ms")
    assert tuple(execute)[: len(known)] == known
    assert (execute["count"], execute["total_ms"], execute["min_ms"], execute["std_ms"]) == (10, 60.0, 6.0, 0.0)
    assert execute["own_total_ms"] == pytest.approx(60 - 4 - 6 - 40) and execute["role"] == "Worker"
    assert [process["is_in_sums"] for process in execute["processes"].values()] == [True, False]
    assert [process["total_ms"] for process in execute["processes"].values()] == [60.0, 70.0]
    assert operations["sample"]["within"] == "sample_tokens" and operations["schedule"]["within"] == "engine_step"
    assert operations["engine_step"]["own_total_ms"] == pytest.approx(100 - 10 - 5)
    assert operations["process_outputs"]["own_total_ms"] == pytest.approx(10 - 0.4)
    assert operations["serialise_outputs"]["count"] == 10 and operations["serialise_requests"]["count"] == 4
    assert operations["schedule"]["share_of_step"] == pytest.approx(0.1)


def test_the_share_of_a_step_that_is_python(session: SessionBuilder) -> None:
    server(session)
    export(session)
    cpu = session.metadata()["summary"]["cpu_operations"]
    assert cpu["python_share"] == pytest.approx((15 + 10 + 5 + 10) / 100)
    assert cpu["python_share_by_part"] == pytest.approx(
        {"scheduling": 0.15, "input preparation": 0.1, "sampling": 0.05, "output processing": 0.1}
    )
    assert cpu["as_of_sec"] == 2.0
    lines = "\n".join(summary_lines(session.metadata()))
    assert "Python is 40.0 % of the engine steps' time: scheduling 15.0 %" in lines


def test_where_there_is_no_sample_tokens_sampling_is_within_execute_model(session: SessionBuilder) -> None:
    session.process("Worker", **ON).rows(events.TOTALS, total(1, "execute_model", 5), total(1, "sample", 1))
    operations = export(session)
    assert operations["sample"]["within"] == "execute_model" and operations["execute_model"]["own_total_ms"] == 4.0
    assert session.metadata()["summary"]["cpu_operations"]["python_share"] is None


def test_rows_are_in_order_of_when_the_calls_began(session: SessionBuilder) -> None:
    row = {"operation": "schedule", "duration_ns": 1_500_000, "call": 10, "amount": 12}
    session.process("EngineCore", **ON).rows(events.TOTALS, total(2, "schedule", 1)).rows(
        events.ROWS,
        {**row, "time_ns": at(1)},
        {**row, "time_ns": at(0.9), "operation": "process_outputs", "amount": None},
        {**row, "time_ns": at(2), "operation": "serialise", "call": 20, "amount": 99},
    )
    export(session)
    assert session.text("cpu_operations_timing.csv").splitlines() == [
        "timestamp_sec,operation,duration_ms,context,process,call,sampled_every",
        "0.900000,process_outputs,1.500000,,EngineCore,10,10",
        "1.000000,schedule,1.500000,tokens=12,EngineCore,10,10",
        "2.000000,serialise_outputs,1.500000,bytes=99,EngineCore,20,10",
    ]
    assert any("every 10th call" in note for note in session.metadata()["notes"])


@pytest.mark.parametrize(
    "damage", [{"histogram": "x"}, {"histogram": "5:1"}, {"calls": -3}, {"calls": None}, {"operation": "unheard_of"}]
)
def test_damaged_totals_are_left_out(session: SessionBuilder, damage: dict[str, Any]) -> None:
    session.process("EngineCore", **ON).rows(
        events.TOTALS, total(1, "update_from_output", 2), {**total(1, "schedule", 1, 1), **damage}
    )
    assert list(export(session)) == ["update_from_output"]


def test_a_session_without_the_tracker_has_none_of_its_files(session: SessionBuilder) -> None:
    session.process("EngineCore")
    readme_files.write(Session(session.path))
    assert not (session.path / "cpu_timing_summary.json").exists()


def test_nothing_called_is_said(session: SessionBuilder) -> None:
    session.process("EngineCore", **ON)
    assert export(session) == {}
    lines = "\n".join(summary_lines(session.metadata()))
    assert "no operation was called" in lines
