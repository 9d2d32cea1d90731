"""Data parallel 2 behind two API servers: one session, whose files are the sum of both engines."""

from __future__ import annotations

import signal
from pathlib import Path

import engine_steps
import environment
import parallel_runs as runs
import pytest
import server as servers
import streams

pytestmark = [pytest.mark.server, pytest.mark.long]

ENGINES = ["EngineCore_DP0", "EngineCore_DP1"]
OPTIONS = ("--data-parallel-size", "2", "--api-server-count", "2", "--enforce-eager")


def test_two_engines_and_two_api_servers_are_one_session(tmp_path: Path, tiny_model: Path) -> None:
    env = environment.profiled(
        tmp_path / "sessions",
        engine_steps.STEP_ORACLE,
        STEP_ORACLE=str(tmp_path / "steps"),
    )
    port = servers.free_port()
    command = servers.serve_command(tiny_model, port, *OPTIONS)
    with servers.launched(command, port, env, tmp_path / "log") as server:
        server.wait_until_ready()
        told = runs.load(server, tiny_model, engines=2)
        server.stop(signal.SIGTERM)
    session = streams.only_session(tmp_path / "sessions")
    assert runs.names(session) == ["APIServer_0", "APIServer_1", *ENGINES, "Worker_DP0", "Worker_DP1"]
    assert [runs.ranks(session, f"Worker_DP{engine}")["dp"] for engine in (0, 1)] == [0, 1]
    streams.export(session)
    steps = runs.oracle_steps(tmp_path / "steps")
    by_engine = {engine: steps[pid] for engine, pid in enumerate(runs.pids(session, ENGINES))}
    runs.check_requests(session, told, [0, 1])
    runs.check_steps(session, by_engine)
    runs.check_kv(session, told, [0, 1])
    ended = [len(streams.all_rows(session, "request_ends", f"APIServer_{number}.")) for number in (0, 1)]
    assert sum(ended) == told.requests
    assert runs.metadata(session)["findings"] == []
