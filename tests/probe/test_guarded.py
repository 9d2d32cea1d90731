"""What a tracker's functions raise stays their own, and ids have the session's secret from the first one on."""

from __future__ import annotations

import os
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path

import pytest

from profilemate.probe import allocation, install
from profilemate.probe import process as process_module
from profilemate.probe.hook import FAILURES_BEFORE_OFF
from profilemate.probe.process import THIS, Process
from profilemate.probe.request_ids import written_id
from profilemate.schema import names


class Failing:
    """A tracker's module whose functions count their calls and raise."""

    def __init__(self) -> None:
        self.calls = 0

    def before_flush(self, *arguments: object) -> None:
        self.calls += 1
        raise ValueError("no good")

    write_totals = at_exit = before_flush


@pytest.fixture
def told() -> Iterator[list[str]]:
    """The warnings of this process, as they were before in the end."""
    warnings, dirty = list(THIS.warnings), THIS.dirty
    yield THIS.warnings
    THIS.warnings[:], THIS.dirty = warnings, dirty


def test_a_function_that_fails_is_off_after_five_and_the_others_go_on(
    told: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    module, seen = Failing(), []
    lists = [[], [], []]  # type: ignore[var-annotated]
    monkeypatch.setattr(THIS, "at_flush", lists[0])
    monkeypatch.setattr(THIS.writer, "before_drop", lists[1])
    monkeypatch.setattr(THIS, "at_exit", lists[2])
    install.take_functions("mine", module)
    lists[0].append(seen.append)
    for number in range(FAILURES_BEFORE_OFF + 3):
        for call in lists[0]:
            call(number)
    assert seen == list(range(FAILURES_BEFORE_OFF + 3)) and module.calls == FAILURES_BEFORE_OFF
    assert [text for text in told if text.startswith("tracker mine: before_flush")] == [
        "tracker mine: before_flush failed: ValueError: no good",
        "tracker mine: before_flush is off: ValueError: no good",
    ]
    for call in (*lists[1], *lists[2]):
        call()
    assert module.calls == FAILURES_BEFORE_OFF + 2


def test_one_that_watches_failed_allocations_cannot_blind_another(
    told: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[object, ...]] = []
    monkeypatch.setattr(allocation, "_watchers", [])
    allocation.watch_failures("bad", Failing().before_flush)
    allocation.watch_failures("good", lambda *values: seen.append(values))
    for _ in range(FAILURES_BEFORE_OFF + 2):
        allocation.allocation_failed(None, "manager", "request", 3)
    assert seen == [("manager", "request", 3)] * (FAILURES_BEFORE_OFF + 2)
    assert any(text.startswith("tracker bad: failed allocations is off") for text in told)


def begun(tmp_path: Path, process: Process) -> Process:
    process.settings = process.settings._replace(directory=str(tmp_path / "sessions"))
    process.join_or_begin_session(launches=True)
    assert process.session
    return process


@pytest.fixture
def environ(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    for name in (names.ENV_SECRET, names.ENV_SESSION, names.ENV_SESSION_OWNER):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setattr(process_module, "_export_at_exit", lambda session: None)
    yield monkeypatch
    for name in (names.ENV_SECRET, names.ENV_SESSION, names.ENV_SESSION_OWNER):
        os.environ.pop(name, None)


def test_an_id_that_is_written_before_the_session_begins_has_its_secret(
    tmp_path: Path, environ: pytest.MonkeyPatch
) -> None:
    """A scheduler driven by a script: its first rows come before any role does."""
    environ.setattr(THIS, "secret", b"")
    first = written_id("request-1")
    assert first != blake2b(b"request-1", digest_size=8).hexdigest()
    process = Process()
    process.secret = THIS.secret
    begun(tmp_path, process)
    assert os.environ[names.ENV_SECRET].encode() == THIS.secret == process.session_secret()
    assert written_id("request-1") == first


def test_a_new_session_has_a_secret_of_its_own(tmp_path: Path, environ: pytest.MonkeyPatch) -> None:
    environ.setenv(names.ENV_SECRET, "of another session")
    process = begun(tmp_path, Process())
    assert os.environ[names.ENV_SECRET] != "of another session"
    assert process.session_secret() == os.environ[names.ENV_SECRET].encode()
