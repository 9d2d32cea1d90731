"""Pipeline parallel 2: one session of one engine, whose files show the last stage."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import NamedTuple

import engine_steps
import parallel_runs as runs
import pytest
import server as servers
import streams
from parallel_runs import Told

pytestmark = pytest.mark.server

GRAPHS = {
    "mode": 3,
    "backend": "eager",
    "cudagraph_mode": "FULL_AND_PIECEWISE",
    "cudagraph_capture_sizes": [1, 2, 4, 8],
}
OPTIONS = ("--pipeline-parallel-size", "2", "--compilation-config", json.dumps(GRAPHS))
STAGES = ["Worker_PP0", "Worker_PP1"]


class Staged(NamedTuple):
    """The session of a server with two stages; `replays` of CUDA graphs by pid, from the stand-in's log."""

    session: Path
    told: Told
    steps: dict[int, list[int]]
    replays: dict[int, int]


@pytest.fixture(scope="module")
def staged(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Staged:
    folder = tmp_path_factory.mktemp("stages")
    env = engine_steps.watched(folder)
    with servers.start(tiny_model, env, folder / "log", *OPTIONS) as server:
        told = runs.load(server, tiny_model)
        server.stop(signal.SIGTERM)
    session = streams.only_session(folder / "sessions")
    streams.export(session)
    replays: dict[int, int] = {}
    for line in (folder / "truth").read_text().splitlines():
        pid, event = line.split()[:2]
        replays[int(pid)] = replays.get(int(pid), 0) + (event == "replay")
    return Staged(session, told, runs.oracle_steps(folder / "steps"), replays)


def test_every_process_is_named_by_role_and_stage(staged: Staged) -> None:
    assert runs.names(staged.session) == ["APIServer", "EngineCore", *STAGES]
    assert [runs.ranks(staged.session, name)["pp"] for name in STAGES] == [0, 1]
    assert {runs.ranks(staged.session, name)["pp_size"] for name in STAGES} == {2}


def test_files_show_one_engine(staged: Staged) -> None:
    """Passes of the last stage alone: both stages together would be twice as many as the scheduler's steps."""
    ((_, tokens),) = staged.steps.items()
    runs.check_requests(staged.session, staged.told, [0])
    runs.check_steps(staged.session, {0: tokens})
    runs.check_kv(staged.session, staged.told, [0])


def test_replays_are_those_of_the_last_stage(staged: Staged) -> None:
    usage = runs.table(staged.session, "cuda_graph_usage.csv")
    first, last = runs.pids(staged.session, STAGES)
    pieces = sum(int(row["pieces"] or 0) for row in usage)
    assert pieces == staged.replays[last] > 0
    assert staged.replays[first] > 0
    timeline = runs.table(staged.session, "cuda_graph_timeline.csv")
    assert len(timeline) == sum(int(row["replay_count"]) for row in usage)


def test_both_stages_saw_the_same_passes_and_nothing_is_found(staged: Staged) -> None:
    passes = [streams.all_rows(staged.session, "forward_passes", name) for name in STAGES]
    seen = [[(streams.descriptor(row), row["unpadded_tokens"]) for row in rows] for rows in passes]
    assert seen[0] == seen[1] != []
    assert runs.metadata(staged.session)["findings"] == []
