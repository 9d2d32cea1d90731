"""Real servers over HTTP: against vLLM's own /metrics, with two ranks, and stopped in every way."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import clients
import engine_steps
import environment
import pytest
import server as servers
import streams

pytestmark = pytest.mark.server

GRAPHS = json.dumps(
    {
        "mode": 3,
        "backend": "eager",
        "cudagraph_mode": "FULL_AND_PIECEWISE",
        "cudagraph_capture_sizes": [1, 2, 4, 8, 16, 32],
    }
)
METRICS = (
    "prompt_tokens_total", "prefix_cache_queries_total", "prefix_cache_hits_total", "num_preemptions_total",
    "iteration_tokens_total_count", "iteration_tokens_total_sum", "generation_tokens_total", "request_success_total",
)  # fmt: skip
ITERATION = re.compile(
    r"Iteration\((\d+)\): (\d+) context requests, (\d+) context tokens, (\d+) generation requests, (\d+) generation tokens"
)
"""What vLLM itself logs of every engine step that has tokens."""


class Served(NamedTuple):
    """A server's whole life under load, ended by SIGTERM."""

    session: Path
    metrics: dict[str, float]
    oracle_steps: list[int]
    replays: int
    exit_code: int
    log: str


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Served:
    folder = tmp_path_factory.mktemp("served")
    log = folder / "log"
    options = (
        "--compilation-config", GRAPHS, "--cudagraph-metrics", "--kv-cache-metrics", "--enable-logging-iteration-details",
    )  # fmt: skip
    with servers.start(
        tiny_model, engine_steps.watched(folder, PROFILEMATE_CHECK_REPLAYS="1"), log, *options
    ) as server:
        clients.send_load(server, tiny_model, 60)
        time.sleep(1)  # the last iteration's statistics reach the front end
        metrics = {name: server.metric(name) for name in METRICS}
        code = server.stop(signal.SIGTERM)
    replays = sum(line.split()[1] == "replay" for line in (folder / "truth").read_text().splitlines())
    session = streams.only_session(folder / "sessions")
    return Served(session, metrics, engine_steps.finished(folder / "steps"), replays, code, log.read_text())


def kv_total(session: Path, name: str) -> int:
    return int(streams.all_rows(session, "engine_steps", "EngineCore")[-1][name])


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("prompt_tokens", "prompt_tokens_total"),
        ("query_tokens", "prefix_cache_queries_total"),
        ("hit_tokens", "prefix_cache_hits_total"),
        ("preemptions", "num_preemptions_total"),
        ("output_steps", "iteration_tokens_total_count"),
    ],
)
def test_counts_equal_the_servers_own_metrics(served: Served, ours: str, theirs: str) -> None:
    assert kv_total(served.session, ours) == served.metrics[theirs]
    assert served.metrics["prompt_tokens_total"] > 0


def test_every_step_and_pass_is_there(served: Served) -> None:
    assert kv_total(served.session, "step") == len(served.oracle_steps)
    passes = streams.all_rows(served.session, "forward_passes", "Worker")
    assert [int(row["unpadded_tokens"]) for row in passes] == [tokens for tokens in served.oracle_steps if tokens]
    assert sum(int(row["graphs"]) for row in passes) == served.replays


def busy_steps(session: Path) -> list[dict[str, str]]:
    """Rows of the engine steps that had tokens."""
    return [
        row for row in streams.all_rows(session, "engine_steps", "EngineCore") if row["step_tokens"] not in ("", "0")
    ]


def test_every_step_is_split_into_prefill_and_decode_as_vllm_logs_it(served: Served) -> None:
    logged = [tuple(map(int, numbers)) for numbers in ITERATION.findall(served.log)]
    ours = [
        (
            number, int(row["context_requests"]), int(row["context_tokens"]),
            int(row["step_requests"]) - int(row["context_requests"]), int(row["step_tokens"]) - int(row["context_tokens"]),
        )
        for number, row in enumerate(busy_steps(served.session))
    ]  # fmt: skip
    assert ours == logged
    assert len(logged) > 100 and sum(line[1] for line in logged) > 50


def test_sums_over_the_steps_equal_the_servers_own_metrics(served: Served) -> None:
    """Each token of a request but its last is computed once, but for what the prefix cache had and what was preempted."""
    rows, metrics = streams.all_rows(served.session, "engine_steps", "EngineCore"), served.metrics
    sums = {
        name: sum(int(row[name] or 0) for row in rows)
        for name in ("step_tokens", "step_preempted", "step_finished", "recomputed_tokens")
    }
    assert sums["step_preempted"] == metrics["num_preemptions_total"] > 0
    assert sums["step_finished"] == metrics["request_success_total"] > 0
    computed_once = metrics["prompt_tokens_total"] - metrics["prefix_cache_hits_total"]
    computed_once += metrics["generation_tokens_total"] - metrics["request_success_total"]
    assert sums["step_tokens"] - sums["recomputed_tokens"] == computed_once
    assert metrics["iteration_tokens_total_sum"] == computed_once + sums["step_finished"]
    assert streams.wait_for_files(served.session) == []
    told = json.loads((served.session / "batch_utilization_summary.json").read_text())
    assert (told["scheduled_tokens"], told["finished"]) == (sums["step_tokens"], sums["step_finished"])
    assert told["recomputed_tokens"] == sums["recomputed_tokens"] and told["preempted"] == sums["step_preempted"]


def test_processes_are_named_by_role(served: Served) -> None:
    names = [path.name.split(".")[0] for path in streams.processes(served.session)]
    assert names == ["APIServer", "EngineCore", "Worker"]


def test_the_start_line_is_printed_once(served: Served) -> None:
    assert served.log.count("[sitecustomize] vLLM Comprehensive Instrumentation Loaded") == 1
    assert str(served.session) in served.log


def test_files_of_the_readme_appear_by_themselves_after_sigterm(served: Served) -> None:
    assert served.exit_code == 0
    assert streams.wait_for_files(served.session) == []


def test_a_bare_server_exits_as_a_profiled_one(served: Served, tmp_path: Path, tiny_model: Path) -> None:
    env = environment.vllm(PYTHONPATH=str(environment.STANDIN), STANDIN_GRAPHS="1")
    with servers.start(tiny_model, env, tmp_path / "log", "--compilation-config", GRAPHS) as server:
        clients.send_load(server, tiny_model, 10)
        assert server.stop(signal.SIGTERM) == served.exit_code


def test_two_ranks_are_one_session_of_one_engine(tmp_path: Path, tiny_model: Path) -> None:
    env = engine_steps.watched(tmp_path, PROFILEMATE_TRACKERS="default,cpu_operations")
    options = ("--tensor-parallel-size", "2", "--compilation-config", GRAPHS)
    with servers.start(tiny_model, env, tmp_path / "log", *options) as server:
        clients.send_load(server, tiny_model, 10)
        server.stop(signal.SIGTERM)
    session = streams.only_session(tmp_path / "sessions")
    names = [path.name.split(".")[0] for path in streams.processes(session)]
    assert names == ["APIServer", "EngineCore", "Worker_TP0", "Worker_TP1"]
    ranks = {name: streams.record(streams.processes(session, name)[0])["ranks"] for name in names[2:]}
    assert [ranks[name]["tp"] for name in names[2:]] == [0, 1]
    passes = [streams.all_rows(session, "forward_passes", name) for name in names[2:]]
    keys = [[(streams.descriptor(row), row["unpadded_tokens"]) for row in rows] for rows in passes]
    assert keys[0] == keys[1] != []
    streams.export(session)
    replays = {}
    for line in (session / "cuda_graph_usage.csv").read_text().splitlines()[1:]:
        cells = line.split(",")
        replays[tuple(cells[:5])] = int(cells[5])
    assert sum(replays.values()) == sum(row["runtime_mode"] != "NONE" for row in passes[0])
    check_cpu_operations(session, names)


def check_cpu_operations(session: Path, names: list[str]) -> None:
    """Each operation was seen in the processes that run it, and calls up to the last totals equal the steps up to then."""
    totals = {
        name: {row["operation"]: row for row in streams.all_rows(session, "cpu_operations", name)} for name in names
    }
    assert set(totals["EngineCore"]) == {"engine_step", "schedule", "update_from_output", "serialise"}
    assert set(totals["APIServer"]) == {"process_outputs", "detokenise", "serialise"}
    assert set(totals["Worker_TP0"]) == set(totals["Worker_TP1"]) > {"execute_model", "prepare_inputs", "model_launch"}
    told = totals["EngineCore"]["update_from_output"]
    steps = streams.all_rows(session, "engine_steps", "EngineCore")
    assert int(told["calls"]) == sum(int(row["time_ns"]) <= int(told["time_ns"]) for row in steps) > 0
    operations = json.loads((session / "cpu_timing_summary.json").read_text())
    assert {"serialise_outputs", "serialise_requests"} < set(operations)
    assert [one["is_in_sums"] for one in operations["execute_model"]["processes"].values()] == [True, False]
    assert (
        operations["model_launch"]["count"]
        == int(totals["Worker_TP0"]["model_launch"]["calls"])
        <= len(streams.all_rows(session, "forward_passes", "Worker_TP0"))
    )


def test_vllm_serve_under_profilemate_run_killed_by_the_kernel(tmp_path: Path, tiny_model: Path) -> None:
    """`profilemate run -- vllm serve ...`: the files and the summary are there although nobody could say goodbye."""
    port = servers.free_port()
    serve = servers.serve_command(tiny_model, port)
    command = [sys.executable, "-m", "profilemate", "run", "--dir", str(tmp_path / "sessions"), "--", *serve]
    env = environment.vllm(PYTHONPATH=str(environment.STANDIN), STANDIN_GRAPHS="1")
    with (tmp_path / "log").open("wb") as out:
        process = subprocess.Popen(
            [*command, "--compilation-config", GRAPHS], cwd=environment.ROOT, env=env, stdout=out, stderr=out
        )
    server = servers.Server(process, port, tmp_path / "log")
    try:
        server.wait_until_ready()
        clients.send_load(server, tiny_model, 10)
        for pid in servers.processes_started_by(process.pid):
            os.kill(pid, signal.SIGKILL)
        assert process.wait(60) == 128 + signal.SIGKILL
    finally:
        server.kill_tree()
    session = streams.only_session(tmp_path / "sessions")
    assert streams.missing_files(session) == []
    log = (tmp_path / "log").read_text()
    assert f"[profilemate] session {session}" in log and "prefix cache hit rate" in log


def test_the_installed_plugin_alone_records_an_engine_of_several_processes(tmp_path: Path, tiny_model: Path) -> None:
    """Without PYTHONPATH: what containers and Ray workers have."""
    script = environment.ROOT / "tests" / "engine" / "run_engine.py"
    env = environment.vllm(PROFILEMATE_DIR=str(tmp_path / "sessions"), PROFILEMATE_ENABLE="1")
    command = [sys.executable, str(script), str(tmp_path / "oracle.json"), "--model", str(tiny_model)]
    done = subprocess.run(
        [*command, "--llm", '{"enforce_eager": true}'],
        env=env,
        cwd=tmp_path,
        capture_output=True,
        timeout=environment.HANGS_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    session = streams.only_session(tmp_path / "sessions")
    names = [path.name.split(".")[0] for path in streams.processes(session)]
    assert names == ["EngineCore", "LLM", "Worker"]
    steps = streams.all_rows(session, "engine_steps", "EngineCore")
    passes = streams.all_rows(session, "forward_passes", "Worker")
    assert len(passes) == int(steps[-1]["busy_steps"]) > 0
