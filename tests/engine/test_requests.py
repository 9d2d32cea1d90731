"""Requests of an engine in the user's own process, which keeps no statistics by default: ours then, and no id in clear."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any, NamedTuple

import environment
import pytest
import streams
import warm

RUN = environment.ROOT / "tests" / "engine" / "run_requests.py"
PLANTED = "planted-request-4711"
ROUNDING_SECONDS = 2e-6
"""A moment is written to the microsecond, and so is the one from which it counts."""


class Run(NamedTuple):
    """What the script saw, and the session."""

    seen: dict[str, dict[str, Any]]
    rows: list[dict[str, str]]
    session: Path
    created_ns: int

    def of(self, name: str) -> list[dict[str, str]]:
        """The rows of one of the script's requests; hashed, so known by its prompt."""
        return [
            row for row in self.rows if row["prompt_tokens"] == str(self.seen[f"{PLANTED}-{name}"]["prompt_tokens"])
        ]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Run:
    folder = tmp_path_factory.mktemp("requests")
    out = folder / "out.json"
    done = warm.run(
        [str(RUN), str(out), "--model", str(tiny_model)],
        env=environment.profiled(folder / "sessions", VLLM_ENABLE_V1_MULTIPROCESSING="0"),
        cwd=folder,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    session = streams.only_session(folder / "sessions")
    streams.export(session)
    with (session / "request_lifecycle.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    created_ns = json.loads((session / "session.json").read_text())["created_monotonic_ns"]
    return Run(json.loads(out.read_text()), rows, session, created_ns)


def test_every_request_is_there_and_each_copy_is_one(run: Run) -> None:
    assert len(run.rows) == 6
    assert {name: len(run.of(name)) for name in ("early", "a", "two", "late", "one")} == {
        "early": 1, "a": 1, "two": 2, "late": 1, "one": 1,
    }  # fmt: skip
    assert len({row["external_id"] for row in run.of("two")}) == 1
    assert len({row["request_id"] for row in run.rows}) == 6


def test_tokens_and_reasons_are_those_that_were_delivered(run: Run) -> None:
    for name in ("a", "two", "one"):
        told = sorted((row["output_tokens"], row["finish_reason"]) for row in run.of(name))
        copies = run.seen[f"{PLANTED}-{name}"]["copies"].values()
        assert told == sorted((str(copy["tokens"]), copy["reason"]) for copy in copies)
    (early,), (late,) = run.of("early"), run.of("late")
    assert (early["finish_reason"], early["output_tokens"], early["first_scheduled_sec"]) == ("abort", "0", "")
    assert late["finish_reason"] == "abort" and 0 < int(late["output_tokens"]) < 400


def test_without_statistics_of_vllm_the_moments_are_ours_and_say_so(run: Run) -> None:
    assert {row["measured_by"] for row in run.rows} == {"profilemate"}
    (row,) = run.of("a")
    seen = run.seen[f"{PLANTED}-a"]
    (copy,) = seen["copies"].values()
    for column, call in (
        ("arrival_sec", seen["added_ns"]), ("first_token_sec", copy["first_ns"]), ("last_token_sec", copy["last_ns"]),
    ):  # fmt: skip
        began, ended = ((moment_ns - run.created_ns) / 1e9 for moment_ns in call)
        assert began - ROUNDING_SECONDS <= float(row[column]) <= ended + ROUNDING_SECONDS, column
    both = float(row["first_token_sec"]) - float(row["arrival_sec"])
    assert float(row["ttft_sec"]) == pytest.approx(both, abs=2 * ROUNDING_SECONDS)
    assert int(row["prefill_chunks"]) >= 3  # 150 tokens, 64 a step
    notes = json.loads((run.session / "metadata.json").read_text())["notes"]
    assert any("without vLLM's own statistics" in note for note in notes)


def test_no_id_of_the_users_is_anywhere_in_the_session(run: Run) -> None:
    content = {path.name: path.read_bytes() for path in run.session.rglob("*") if path.is_file()}
    assert "request_arrivals.csv" in content
    assert [name for name, data in content.items() if PLANTED.encode() in data] == []
