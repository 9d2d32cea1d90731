"""What a server shares with us: its process as it was before, its clock, its version, and other hosts of the session."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import environment
import pytest
import streams
from pretend_vllm import SERVE, Write


def serve(code: str, directory: Path, vllm: Path, *, profiled: bool = True, **more: str) -> str:
    """Run a program and return its stdout."""
    path = [environment.ROOT, vllm] if profiled else [vllm]
    env = environment.clean() | {
        "PYTHONPATH": os.pathsep.join(map(str, path)),
        "PROFILEMATE_DIR": str(directory),
        **more,
    }
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=env,
        capture_output=True,
        text=True,
        timeout=environment.HANGS_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


STATE = """
import gc, json, locale, os, signal, sys, threading, warnings
state = {
    "signals": [str(signal.getsignal(number)) for number in sorted(signal.valid_signals())],
    "threads": threading.active_count(),
    "hooks": [str(getattr(sys, name)) == str(getattr(sys, "__" + name + "__"))
              for name in ("excepthook", "displayhook", "unraisablehook", "breakpointhook")],
    "collector": [len(gc.callbacks), gc.isenabled(), gc.get_threshold()],
    "filters": len(warnings.filters), "umask": os.umask(0o22), "folder": os.getcwd(), "argv": sys.argv,
    "limits": [sys.getrecursionlimit(), sys.getswitchinterval()], "locale": locale.setlocale(locale.LC_ALL),
    "tracing": [sys.gettrace() is None, sys.getprofile() is None], "standard": [sys.stdin.name, sys.stdout.name],
    "environment": sorted(name for name in os.environ if not name.startswith(("PROFILEMATE_", "PYTHONPATH"))),
}
heavy = {"gzip", "zlib", "bz2", "lzma", "sqlite3", "numpy", "torch", "subprocess", "asyncio", "multiprocessing", "ctypes"}
import_of_ours = sorted(heavy & set(sys.modules))
print(json.dumps([state, import_of_ours]))
"""


def test_the_process_is_left_as_it_was(tmp_path: Path, vllm: Path) -> None:
    """No signal handler, thread, trace function, filter or setting of ours; nothing that compresses or waits is loaded."""
    bare, ours = (json.loads(serve(f"{SERVE}\n{STATE}", tmp_path / "p", vllm, profiled=way)) for way in (False, True))
    assert ours == bare
    assert len(streams.all_rows(streams.only_session(tmp_path / "p"), "engine_steps")) == 4


def test_the_end_of_a_server_waits_for_nothing_of_ours(tmp_path: Path, vllm: Path) -> None:
    code = SERVE.replace("s.run(4)", "s.run(5000)") + "; import time; print(time.monotonic())"
    waits = []
    for _ in range(3):  # the machine may be busy
        told = float(serve(code, tmp_path / "p", vllm))
        waits.append(time.monotonic() - told)
    assert min(waits) < 1


@pytest.mark.parametrize("step", ["back", "forth", "stands still"])
def test_a_wall_clock_that_steps_is_in_no_duration(tmp_path: Path, vllm: Path, step: str) -> None:
    change = {"back": "now() - 3600", "forth": "now() + 3600", "stands still": "1"}[step]
    code = f"""
import time
import vllm.engine.arg_utils as a, vllm.v1.core.sched.scheduler as s
a.EngineArgs()
s.run(2)
now, now_ns = time.time, time.time_ns
time.time = lambda: {change}
time.time_ns = lambda: int(({change.replace("now()", "now_ns() / 1e9")}) * 1e9)
s.run(300)
"""
    serve(code, tmp_path / "p", vllm)
    session = streams.only_session(tmp_path / "p")
    streams.export(session)
    with (session / "kv_cache_usage.csv").open() as file:
        times = [float(row["timestamp_sec"]) for row in csv.DictReader(file)]
    assert times == sorted(times) and 0 <= times[0] <= times[-1] < 60


@pytest.mark.parametrize(
    "version",
    ['"0.28.1rc1.dev491+g462fdb097.das.x"', '"dev"', '"0.1.dev1+gabc"', '""', "None", "(0, 11)", 'b"0.11"', None],
)
def test_whatever_vllm_calls_its_version_its_steps_are_recorded(
    tmp_path: Path, vllm: Path, version: str | None
) -> None:
    """What is there decides which hooks go in; the version is only written down."""
    (vllm / "vllm" / "__init__.py").write_text("" if version is None else f"__version__ = {version}\n")
    serve(SERVE, tmp_path / "p", vllm)
    session = streams.only_session(tmp_path / "p")
    assert len(streams.all_rows(session, "engine_steps")) == 4
    streams.export(session)
    assert streams.missing_files(session) == []


def test_a_part_that_vllm_renamed_is_named_and_the_rest_goes_on(tmp_path: Path, vllm: Path) -> None:
    pool = vllm / "vllm" / "v1" / "core" / "block_pool.py"
    pool.write_text(pool.read_text().replace("def touch(self, blocks)", "def reuse(self, blocks)"))
    serve(SERVE, tmp_path / "p", vllm)
    session = streams.only_session(tmp_path / "p")
    (process,) = streams.processes(session)
    states = {hook["name"]: (hook["state"], hook["reason"]) for hook in streams.record(process)["hooks"]}
    state, reason = states["block_pool.touch"]
    assert state == "absent" and "BlockPool.touch" in reason
    assert [row["allocated"] for row in streams.rows(process, "engine_steps")] == ["3", "6", "9", "12"]
    streams.export(session)
    assert [hook["name"] for hook in _health(session)["did_not_fit"]] == ["block_pool.touch"]


def _health(session: Path) -> dict[str, list[dict[str, str]]]:
    return dict(json.loads((session / "metadata.json").read_text())["summary"]["health"])


OTHER_HOST = "import socket; socket.gethostname = lambda: 'another.host'; "
JOINS = "import vllm.v1.core.sched.scheduler as s; s.run(7)"


@pytest.mark.parametrize("shared", [True, False], ids=["one-folder", "two-folders"])
def test_hosts_of_one_session(tmp_path: Path, vllm: Path, shared: bool) -> None:
    """A worker elsewhere makes the session under the same name where its folder is not there; copied together it is one."""
    serve(SERVE, tmp_path / "here", vllm)
    session = streams.only_session(tmp_path / "here")
    there = session if shared else tmp_path / "there" / session.name
    more = {"PROFILEMATE_SESSION": str(there), "PROFILEMATE_SESSION_OWNER": "4711"}
    serve(OTHER_HOST + JOINS, there.parent, vllm, **more)
    if not shared:
        assert len(streams.processes(session)) == 1
        (elsewhere,) = streams.processes(there)
        shutil.copytree(elsewhere, session / "processes" / elsewhere.name)
    assert {path.name.split(".")[1] for path in streams.processes(session)} >= {"another-host"}
    streams.export(session)
    metadata = json.loads((session / "metadata.json").read_text())
    assert metadata["summary"]["kv_cache"]["steps"] == 11
    assert "another.host" in {process["host"] for process in metadata["processes"]}


SLOW_DISK = """
import os, time
from profilemate.probe import process
import vllm.engine.arg_utils as a, vllm.v1.core.sched.scheduler as s
a.EngineArgs()
scheduler, steps, slow = s.Scheduler(), 0, 0
def step():
    global steps
    scheduler.update_from_output(scheduler.schedule(), None)
    steps += 1
for _ in range(20):
    step()
write = os.write
def slow_write(descriptor, data):
    global slow
    slow += 1
    time.sleep(0.07)
    return write(descriptor, data)
os.write = slow_write
end = time.monotonic() + 3
while time.monotonic() < end:
    step()
    time.sleep(0.001)
os.write = write
end = time.monotonic() + 8
while time.monotonic() < end and process.THIS.writer.trouble:
    step()
    time.sleep(0.01)
step()
print(steps, slow)
"""


def test_a_slow_disk_costs_a_few_writes_and_what_is_dropped_is_counted(tmp_path: Path, vllm: Path) -> None:
    """Three seconds on a disk that takes 70 ms for each write hold 40 of them; four, then a pause, are what it gets."""
    steps, slow = map(int, serve(SLOW_DISK, tmp_path / "p", vllm).split())
    (process,) = streams.processes(streams.only_session(tmp_path / "p"))
    lost = [
        int(row["rows"])
        for row in streams.rows(process, "gaps")
        if (row["table"], row["reason"]) == ("engine_steps", "slow")
    ]
    assert 4 <= slow <= 14
    assert lost and len(streams.rows(process, "engine_steps")) + sum(lost) == steps


def test_files_stay_few_however_long_a_session_is(tmp_path: Path, vllm: Path) -> None:
    code = SERVE.replace("s.run(4)", "s.run(30000)")
    serve(code, tmp_path / "p", vllm, PROFILEMATE_SESSION_CAP="2M")
    session = streams.only_session(tmp_path / "p")
    files = [path for path in session.rglob("*") if path.is_file() and "processes" in path.parts]
    assert len(files) < 30 and sum(path.stat().st_size for path in files) < 2_000_000
    rows = streams.all_rows(session, "engine_steps")
    assert rows[-1]["step"] == "30000" and int(rows[0]["step"]) > 10_000


def test_a_folder_full_of_other_things_is_nobodys_session(tmp_path: Path, vllm: Path, write: Write) -> None:
    folder = write({"session_notes.txt": "", "session_20250101_000000": "a file", "other/session.json": "{"}, "p")
    (folder / "session_20250101_000001").symlink_to("/nowhere")
    (folder / "session_20250101_000002").mkdir()
    serve(SERVE, folder, vllm)
    (session,) = (path for path in folder.glob("session_*/session.json"))
    assert len(streams.all_rows(session.parent, "engine_steps")) == 4
    env = environment.clean() | {"PROFILEMATE_DIR": str(folder)}
    command = [sys.executable, "-m", "profilemate", "summary"]
    done = subprocess.run(
        command,
        cwd=environment.ROOT,
        env=env,
        capture_output=True,
        text=True,
        timeout=environment.HANGS_SECONDS,
        check=False,
    )
    assert done.returncode == 0 and session.parent.name in done.stdout, done.stderr
