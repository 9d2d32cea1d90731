"""Every engine step of vLLM's own scheduler against a driver that shares no code with the tracker of engine steps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import environment
import pytest
import streams
import warm

DRIVE = environment.ROOT / "tests" / "oracle" / "drive_steps.py"
SMALL = ["--blocks", "40", "--requests", "80", "--shape", "decode", "--longest", "256"]
"""Prompts and outputs that fit in 39 blocks, a few at a time."""

RUNS = {
    "sync": ["--abort-every", "40", *SMALL],
    "async": ["--async", "--abort-every", "40", *SMALL],
    "drafts": ["--drafts", "3", *SMALL],
    "async drafts": ["--async", "--drafts", "3", *SMALL],
    "a small budget": ["--max-num-batched-tokens", "64", "--requests", "60"],
    "a small cap": ["--max-num-seqs", "4", "--requests", "60"],
    "plain": ["--requests", "60", "--blocks", "2000"],
    "plain async": ["--requests", "60", "--blocks", "2000", "--async"],
}
EQUAL = (
    "context_requests", "context_tokens", "step_requests", "step_tokens", "recomputed_tokens", "step_preempted",
    "step_finished", "running", "waiting", "skipped", "free_blocks", "drafted_tokens", "accepted_tokens", "in_flight",
)  # fmt: skip


class Run(NamedTuple):
    """The truth of each step, and the rows of the same run."""

    truth: dict[str, Any]
    rows: list[dict[str, str]]

    @property
    def steps(self) -> list[dict[str, Any]]:
        """The truth in the order of the rows."""
        return list(self.truth["steps"])


def step_rows(process: Path) -> list[dict[str, str]]:
    """Rows of steps; a reset of the prefix cache makes one that is none."""
    return [row for row in streams.rows(process, "engine_steps") if row["update_ns"]]


class Recorded(NamedTuple):
    """Every run of one process of the driver, in order of the engines' numbers."""

    runs: dict[str, Run]
    session: Path


def record(folder: Path, wanted: dict[str, list[str]], **environ: str) -> Recorded:
    """Drive the runs, and the scenarios if there are several; again where the machine was so slow that rows were dropped."""
    for attempt in range(3):
        session = drive(folder / str(attempt), wanted, environ)
        (process,) = streams.processes(session)
        if all(row["reason"] == "size_cap" for row in streams.rows(process, "gaps")):
            break
    rows = step_rows(process)
    truths = json.loads((session.parents[1] / "out.json").read_text())
    found = {
        name: Run(truth, [row for row in rows if row["engine"] == str(number)])
        for number, (name, truth) in enumerate(truths.items())
    }
    return Recorded(found, session)


def drive(folder: Path, wanted: dict[str, list[str]], environ: dict[str, str]) -> Path:
    """One process of the driver; its session."""
    folder.mkdir()
    (folder / "in.json").write_text(json.dumps(wanted))
    done = warm.run(
        [str(DRIVE), str(folder / "in.json"), str(folder / "out.json")],
        env=environment.profiled(folder / "sessions", VLLM_LOGGING_LEVEL="ERROR", **environ),
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return streams.only_session(folder / "sessions")


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    """All of them in one process."""
    return record(tmp_path_factory.mktemp("steps"), RUNS)


@pytest.fixture(scope="module")
def runs(recorded: Recorded) -> dict[str, Run]:
    return recorded.runs


@pytest.fixture(params=list(RUNS))
def run(runs: dict[str, Run], request: pytest.FixtureRequest) -> Run:
    return runs[request.param]


@pytest.mark.parametrize("column", EQUAL)
def test_every_step_counts_as_the_driver(run: Run, column: str) -> None:
    assert [int(row[column]) for row in run.rows] == [step[column] for step in run.steps]


def test_the_runs_have_what_they_are_for(runs: dict[str, Run]) -> None:
    for name in ("sync", "async", "drafts", "async drafts"):
        steps = runs[name].steps
        assert sum(step["step_preempted"] for step in steps) > 10, name
        assert sum(step["recomputed_tokens"] for step in steps) > 100, name
    assert runs["async"].truth["summary"]["scheduler"] == "AsyncScheduler"
    assert sum(step["in_flight"] for step in runs["async"].steps) > len(runs["async"].steps) / 2
    assert runs["sync"].truth["summary"]["finished"] < runs["sync"].truth["summary"]["requests"]
    for name in ("drafts", "async drafts"):
        drafted, accepted = (sum(step[n] for step in runs[name].steps) for n in ("drafted_tokens", "accepted_tokens"))
        assert drafted > accepted > 100, name


def test_the_limit_of_each_step_has_its_evidence(run: Run) -> None:
    cap, budget = int(run.rows[0]["max_requests"]), int(run.rows[0]["max_step_tokens"])
    for row, step in zip(run.rows, run.steps, strict=True):
        eligible = step["waiting"] - step["skipped"]
        assert (row["limit"] == "kv_space") == (step["failed"] > 0), row
        if row["limit"] == "token_budget":
            assert step["step_tokens"] == budget, row
        elif row["limit"] == "sequence_cap":
            assert step["running"] == cap and eligible, row
        elif row["limit"] != "kv_space":
            assert row["limit"] == "no_work" and not eligible, row


@pytest.mark.parametrize(
    ("name", "limit"), [("sync", "kv_space"), ("a small budget", "token_budget"), ("a small cap", "sequence_cap"),
                        ("plain", "no_work"), ("plain async", "no_work")],
)  # fmt: skip
def test_a_limit_that_is_tight_binds_most_steps(runs: dict[str, Run], name: str, limit: str) -> None:
    rows = runs[name].rows
    assert sum(row["limit"] == limit for row in rows) > len(rows) / 2


def test_times_lie_within_the_drivers_own(run: Run) -> None:
    """Each half of a step belongs to the same batch: with async scheduling the next one is scheduled in between."""
    for row, step in zip(run.rows, run.steps, strict=True):
        begun, schedule_ns, model_ns = int(row["scheduled_ns"]), int(row["schedule_ns"]), int(row["model_ns"])
        updated = begun + schedule_ns + model_ns
        assert step["schedule"][0] <= begun <= begun + schedule_ns <= step["schedule"][1]
        assert step["update"][0] <= updated <= updated + int(row["update_ns"]) <= step["update"][1]
        assert int(row["blocked_ns"]) <= model_ns


def test_the_parts_of_time_add_up_to_the_whole(run: Run) -> None:
    parts = ("schedule_ns", "blocked_ns", "update_ns", "between_ns", "no_requests_ns")
    first, last = run.rows[0], run.rows[-1]
    ended = sum(int(last[name]) for name in ("scheduled_ns", "schedule_ns", "model_ns", "update_ns"))
    assert sum(int(row[name]) for row in run.rows for name in parts) == ended - int(first["scheduled_ns"])


def test_sync_and_async_scheduling_serve_the_same(runs: dict[str, Run]) -> None:
    """Requests, prompt tokens and delivered tokens are equal; the steps are each run's own."""
    sync, parallel = runs["plain"], runs["plain async"]
    for name in ("finished", "requests", "output_tokens", "prefill_tokens"):
        assert sync.truth["summary"][name] == parallel.truth["summary"][name] > 0, name
    finished = [sum(int(row["step_finished"]) for row in each.rows) for each in (sync, parallel)]
    assert finished == [sync.truth["summary"]["finished"]] * 2
    prompts = [int(each.rows[-1]["prompt_tokens"]) for each in (sync, parallel)]
    assert prompts[0] == prompts[1] > 0
    for each in (sync, parallel):
        assert sum(int(row["step_tokens"]) for row in each.rows) == each.truth["summary"]["scheduled_tokens"]
        assert len(each.rows) == each.truth["summary"]["steps"]


# -- hand-made steps ----------------------------------------------------------------------------------------------------


def test_each_limit_binds_where_a_scenario_makes_it(runs: dict[str, Run]) -> None:
    bound = set()
    scenarios = {name: run for name, run in runs.items() if "limits" in run.truth}
    for name, run in scenarios.items():
        limits = run.truth["limits"]
        told = limits + limits[-1:] * len(run.rows)
        assert [row["limit"] for row in run.rows] == told[: len(run.rows)], name
        assert len(run.rows) == len(run.steps) > len(limits)
        for column in EQUAL:
            assert [int(row[column]) for row in run.rows] == [step[column] for step in run.steps], (name, column)
        bound |= set(told)
    assert bound == {"no_work", "token_budget", "sequence_cap", "kv_space", "throttled", "other"}


def test_a_reset_preempts_without_a_lack_of_space(runs: dict[str, Run]) -> None:
    rows = runs["a reset while requests run"].rows
    again = [row for row in rows if row["step_preempted"] != "0"]
    assert [(row["step_preempted"], row["limit"]) for row in again] == [("2", "no_work")]
    assert sum(int(row["recomputed_tokens"]) for row in rows) == 100 + 60 + 2 * 3


def test_batches_in_flight_at_a_death_and_dummy_batches_are_told_apart(recorded: Recorded) -> None:
    truth = recorded.runs["dies"].truth
    (process,) = streams.processes(recorded.session)
    unfinished = streams.rows(process, "engine_steps_unfinished")
    assert [row["reason"] for row in unfinished] == ["engine_dead"] * truth["in_flight"]
    dummies = streams.rows(process, "engine_dummy_steps")
    assert [row["dummy_step"] for row in dummies] == [str(number + 1) for number in range(truth["dummies"])]
    assert {row["engine"] for row in (*unfinished, *dummies)} == {str(list(recorded.runs).index("dies"))}
    assert all(int(row["duration_ns"]) >= 2_000_000 for row in dummies)
    streams.export(recorded.session)
    told = json.loads((recorded.session / "batch_utilization_summary.json").read_text())
    assert told["dummy_steps"] == truth["dummies"] and told["unfinished_steps"] == {"engine_dead": truth["in_flight"]}
    assert told["seconds"]["dummy_batches"] == pytest.approx(
        sum(int(row["duration_ns"]) for row in dummies) / 1e9, abs=1e-6
    )


# -- past the size cap --------------------------------------------------------------------------------------------------


def test_past_the_size_cap_the_sums_are_still_the_truth(tmp_path: Path) -> None:
    wanted = {"capped": ["--async", *SMALL, "--requests", "200"]}
    recorded = record(tmp_path, wanted, PROFILEMATE_TRACKERS="engine_steps", PROFILEMATE_SESSION_CAP="240000")
    run, session = recorded.runs["capped"], recorded.session
    assert 0 < len(run.rows) < len(run.steps)
    streams.export(session)
    told = json.loads((session / "batch_utilization_summary.json").read_text())
    sums = {name: sum(step[name] for step in run.steps) for name in EQUAL}
    assert told["scheduled_tokens"] == sums["step_tokens"] and told["finished"] == sums["step_finished"]
    assert told["prefill_tokens"] == sums["context_tokens"] and told["prefill_requests"] == sums["context_requests"]
    assert told["recomputed_tokens"] == sums["recomputed_tokens"] > 0 and told["preempted"] == sums["step_preempted"]
    assert told["total_samples"] == len(run.steps)
    assert told["steps_by_limit"]["kv_space"] == sum(step["failed"] > 0 for step in run.steps)
    assert told["rows"] == len(run.rows)
    notes = json.loads((session / "metadata.json").read_text())["notes"]
    assert any("newest steps" in note for note in notes)
