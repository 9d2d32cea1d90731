"""docs/session-api.md: its examples run as they stand, its index is that of the tables, every name in it is there."""

from __future__ import annotations

import re
from pathlib import Path

import environment
import pytest
from sample_rows import add_server
from session_builder import SessionBuilder, at

import profilemate
from profilemate.frames import describe
from profilemate.frames.session import Session
from profilemate.session.errors import SessionError
from profilemate.trackers.engine_steps import events as engine_steps
from profilemate.trackers.requests import events as requests

DOCUMENT = (environment.ROOT / "docs" / "session-api.md").read_text()
EXAMPLES = "\n".join(re.findall(r"```python\n(.*?)```", DOCUMENT, re.DOTALL))


@pytest.fixture
def recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SessionBuilder:
    """A server with requests and steps of two limits, where the settings say that sessions are."""
    session = add_server(SessionBuilder(tmp_path))
    engine = session.process("EngineCore", engine_index=1, engine_config={"max_num_seqs": 8})
    rows = [{"limit": limit, "step_tokens": 7, "update_ns": 1} for limit in ("no_work", "no_work", "token_budget")]
    engine.rows(
        engine_steps.STEPS, *({"time_ns": at(n), "engine": 0, "step": n, **row} for n, row in enumerate(rows, 1))
    )
    front = next(session.path.glob("processes/APIServer*"))
    cells = {"time_ns": at(2), "request": "7", "reason": "stop", "is_counted": True, "e2e_ns": 5}
    (front / "request_ends.csv").write_text(
        requests.ENDS.header + ",".join(str(cells.get(name, "")) for name in requests.ENDS.columns) + "\n"
    )
    monkeypatch.setenv("PROFILEMATE_DIR", str(tmp_path))
    return session


def test_the_examples_run_as_they_stand(recorded: SessionBuilder, capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, object] = {}
    exec(EXAMPLES, names)
    by_limit, session = names["by_limit"], names["session"]
    assert isinstance(session, Session) and session.path == recorded.path
    assert (
        by_limit["limit"].to_list()[0] in ("no_work", None)
        and dict(by_limit.select("limit", "tokens").rows())["no_work"] == 14
    )  # type: ignore[index]
    assert names["short"] == 1 and len(names["slowest"]) == 1  # type: ignore[arg-type]
    assert names["busiest"].height == 2 and names["its_process"].height == 1  # type: ignore[attr-defined]
    assert names["device_or_host_ns"].height == 5  # type: ignore[attr-defined]
    assert names["columns"].height == 9 and names["largest_batch"] is None  # type: ignore[attr-defined]
    assert "graph.old did not fit this vLLM" in capsys.readouterr().out


def test_the_index_is_what_the_tables_say() -> None:
    """After a change of a table: `python -m profilemate.frames.describe` between the marks."""
    found = re.search(r"<!-- index: begin -->\n\n(.*)\n<!-- index: end -->", DOCUMENT, re.DOTALL)
    assert found is not None and found[1] == describe.index()


def test_the_index_has_every_table_and_column(recorded: SessionBuilder) -> None:
    session = profilemate.open(recorded.path)
    for name in session.names:
        assert re.search(rf"^(#### |\| )`{name}`", DOCUMENT, re.MULTILINE), name
        described = session.describe(name)
        assert described["column"].to_list() == session.scan(name).collect_schema().names(), name
        assert described["type"].is_in(["str", "int", "float", "bool"]).all()


def test_the_types_described_are_those_of_the_frames(recorded: SessionBuilder) -> None:
    session = profilemate.open(recorded.path)
    words = {"String": "str", "Int64": "int", "Float64": "float", "Boolean": "bool"}
    for name in session.names:
        types = [words[str(kind)] for kind in session.scan(name).collect_schema().dtypes()]
        assert session.describe(name)["type"].to_list() == types, name


def test_attributes_in_the_document_are_there(recorded: SessionBuilder) -> None:
    session = profilemate.open(recorded.path)
    named = set(re.findall(r"`session\.(\w+)", DOCUMENT))
    assert {"scan", "table", "pandas", "missing"} <= named
    assert all(hasattr(session, name) for name in named)


def test_a_table_of_the_users_own_is_described_by_its_types(recorded: SessionBuilder) -> None:
    next(recorded.path.glob("processes/Worker*")).joinpath("calls.csv").write_text("time_ns,number\n1,5\n")
    session = profilemate.open(recorded.path)
    assert session.describe("calls").rows()[-1] == ("number", "int", "")
    with pytest.raises(SessionError):
        session.describe("nothing")
