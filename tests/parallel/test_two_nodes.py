"""Two headless data-parallel nodes: a session on each, joined by `profilemate merge` with the error that is left.

The second node has a host name, a boot and a monotonic clock of its own where Linux gives it namespaces for them. Its clock is
then ahead by a known time, while both wall clocks are one: so the true error of the alignment is known to the nanosecond.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import engine_steps
import environment
import parallel_runs as runs
import pytest
import server as servers
import streams
from parallel_runs import Told

pytestmark = pytest.mark.server

HOST, BOOT, AHEAD_SECONDS = "nodeb", "44444444-4444-4444-8444-444444444444", 7_777
PARTS = (
    ["APIServer_0", "APIServer_1", "EngineCore_DP0", "Worker_DP0"],
    ["EngineCore_DP1", "Worker_DP1"],
)


def elsewhere(folder: Path) -> tuple[str, ...]:
    """A prefix that runs a command as on another host; empty where this machine does not allow that."""
    (folder / "boot").write_text(BOOT + "\n")
    script = 'hostname "$0" && mount --bind "$1" /proc/sys/kernel/random/boot_id && shift && exec "$@"'
    clocks = ("--time", "--monotonic", str(AHEAD_SECONDS), "--boottime", str(AHEAD_SECONDS))
    inside = ("sh", "-c", script, HOST, str(folder / "boot"))
    prefix = ("unshare", "--uts", "--mount", *clocks, "--fork", "--kill-child", *inside)
    tried = subprocess.run([*prefix, sys.executable, "-c", ""], capture_output=True, check=False)
    return prefix if tried.returncode == 0 else ()


class Joined(NamedTuple):
    """The sessions of both nodes, the one that merge made of them, and what it said."""

    parts: tuple[Path, Path]
    both: Path
    told: Told
    steps: dict[int, list[int]]
    said: str
    is_elsewhere: bool


@contextlib.contextmanager
def two_nodes(folder: Path, model: Path, prefix: tuple[str, ...]) -> Iterator[servers.Server]:
    """The node that serves, once both are ready."""
    port, rpc = servers.free_port(), servers.free_port()
    common = (
        "--enforce-eager", "--data-parallel-size", "2", "--data-parallel-size-local", "1", "--data-parallel-address",
        "127.0.0.1", "--data-parallel-rpc-port", str(rpc),
    )  # fmt: skip
    headless = servers.serve_command(model, port, *common, "--headless", "--data-parallel-start-rank", "1")
    envs = [
        environment.profiled(
            folder / name,
            engine_steps.STEP_ORACLE,
            STEP_ORACLE=str(folder / f"steps_{name}"),
        )
        for name in "ab"
    ]
    with (
        servers.launched(servers.serve_command(model, port, *common), port, envs[0], folder / "log_a") as first,
        servers.launched([*prefix, *headless], port, envs[1], folder / "log_b") as second,
    ):
        first.wait_until_ready()
        yield first
        first.stop(signal.SIGTERM)
        second.kill_tree()


@pytest.fixture(scope="module")
def joined(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Joined:
    folder = tmp_path_factory.mktemp("nodes")
    prefix = elsewhere(folder)
    with two_nodes(folder, tiny_model, prefix) as server:
        told = runs.load(server, tiny_model, engines=2)
    parts = streams.only_session(folder / "a"), streams.only_session(folder / "b")
    command = [sys.executable, "-m", "profilemate", "merge", *map(str, parts), "-o", str(folder / "both")]
    done = subprocess.run(
        command, cwd=environment.ROOT, env=environment.clean(), capture_output=True, text=True,
        timeout=environment.HANGS_SECONDS, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for session in (*parts, folder / "both"):
        streams.export(session)
    steps = {}
    for engine, name in enumerate("ab"):
        ((_, steps[engine]),) = runs.oracle_steps(folder / f"steps_{name}").items()
    return Joined(parts, folder / "both", told, steps, done.stdout, bool(prefix))


def test_each_node_names_its_processes_and_merge_has_them_all(joined: Joined) -> None:
    assert [runs.names(session) for session in joined.parts] == list(PARTS)
    assert runs.names(joined.both) == sorted([*PARTS[0], *PARTS[1]])
    assert [runs.ranks(joined.both, f"Worker_DP{engine}")["dp"] for engine in (0, 1)] == [0, 1]


def test_each_nodes_own_files_show_its_engine(joined: Joined) -> None:
    for engine, session in enumerate(joined.parts):
        runs.check_steps(session, {engine: joined.steps[engine]})
        runs.check_kv(session, joined.told, [engine])


def test_the_joined_files_are_the_sum_of_both_engines(joined: Joined) -> None:
    runs.check_requests(joined.both, joined.told, [0, 1])
    runs.check_steps(joined.both, joined.steps)
    runs.check_kv(joined.both, joined.told, [0, 1])
    assert runs.metadata(joined.both)["findings"] == []


def clock_of(session: Path, host: str) -> dict[str, Any]:
    """What the joined session says of a host's clock; of the reference where the host is empty."""
    clocks = json.loads((session / "session.json").read_text())["clocks"]
    (found,) = [clock for clock in clocks if (clock["host"] == host if host else clock["is_reference"])]
    return dict(found)


def test_the_true_error_of_the_clocks_lies_within_what_is_stated(joined: Joined) -> None:
    if not joined.is_elsewhere:
        assert "share its clock: no error" in joined.said
        pytest.skip("no time namespaces here: both nodes have one clock, as is said")
    reference, other = clock_of(joined.both, ""), clock_of(joined.both, HOST)
    assert other["boot_id"] == BOOT
    assert other["requests_seen_on_both"] == joined.told.of_engine("request_success_total", 1)
    true_ns = reference["wall_minus_monotonic_ns"] - AHEAD_SECONDS * 1_000_000_000
    low, high = other["error_ns"]
    assert low <= true_ns - other["wall_minus_monotonic_ns"] <= high
    assert f"{HOST} (" in joined.said and "leave an error between" in joined.said


def test_moments_of_both_nodes_are_in_order(joined: Joined) -> None:
    """A request reaches its engine after the front end took it, and is over after its last token, within the error."""
    error = max(map(abs, clock_of(joined.both, HOST)["error_ns"])) / 1e9 if joined.is_elsewhere else 0
    for row in runs.table(joined.both, "request_lifecycle.csv"):
        moments = [float(row[name]) for name in ("arrival_sec", "queued_sec", "last_token_sec", "finished_sec")]
        assert all(later - earlier >= -error - 1e-6 for earlier, later in itertools.pairwise(moments)), row
