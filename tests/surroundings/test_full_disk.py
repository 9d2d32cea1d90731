"""vLLM's own scheduler on a real disk that is full, fills up, is freed again, or is nearly full; and one that is stopped."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import environment
import pytest
import streams
from pretend_vllm import SERVE
from small_disk import SmallDisk, small_disk

DRIVE = environment.ROOT / "tests" / "surroundings" / "drive_on_disk.py"
UNMEASURED = ("loop_cpu_s", "loop_wall_s")
SLOWLY = ("--step-ms", "4")
KIB, MIB = 1 << 10, 1 << 20


class Run(NamedTuple):
    """What the driver counted, what its oracle counted, and what was said on stderr by us."""

    summary: dict[str, Any]
    truth: dict[str, Any]
    lines: list[str]


def finish(process: subprocess.Popen[str], out: Path) -> Run:
    """Wait for a driver."""
    stdout, stderr = process.communicate(timeout=environment.HANGS_SECONDS)
    assert process.returncode == 0, stderr[-3000:]
    summary = {name: value for name, value in json.loads(stdout).items() if name not in UNMEASURED}
    lines = [line for line in stderr.splitlines() if "profilemate" in line.lower() or "sitecustomize" in line]
    return Run(summary, json.loads(out.read_text()), lines)


def start(out: Path, env: dict[str, str], ballast: Path, steps: str, *more: str, prefix: tuple[str, ...] = ()) -> Any:
    """A driver in the background. The oracle's result goes to a disk with room."""
    command = [*prefix, sys.executable, str(DRIVE), str(ballast), steps, "--oracle", str(out), *more]
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def drive(tmp_path: Path, disk: SmallDisk, steps: str, *more: str) -> Run:
    """A profiled driver whose sessions lie on the small disk."""
    env = environment.profiled(disk.path / "sessions", PROFILEMATE_DISK_FLOOR="0")
    out = tmp_path / "oracle.json"
    return finish(start(out, env, disk.path / "ballast", steps, *more, prefix=disk.prefix), out)


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The tallies of a run without ProfileMate."""
    folder = tmp_path_factory.mktemp("bare")
    return finish(
        start(folder / "oracle.json", environment.vllm(), folder / "ballast", ""), folder / "oracle.json"
    ).summary


def gaps(process: Path, table: str) -> dict[str, int]:
    """Rows that a table lacks, by reason."""
    found: dict[str, int] = {}
    for row in streams.rows(process, "gaps"):
        if row["table"] == table:
            found[row["reason"]] = found.get(row["reason"], 0) + int(row["rows"])
    return found


def assert_whole(process: Path) -> None:
    """Every line of every file has the cells of its header, and they are what the table says."""
    for path in process.glob("*.csv"):
        header, *rest = path.read_text().splitlines()
        assert rest or path.name == "gaps.csv", path
        assert {line.count(",") for line in rest} <= {header.count(",")}, path
    numbers = [int(row["step"]) for row in streams.rows(process, "engine_steps")]
    assert numbers == sorted(set(numbers))


def test_a_disk_that_fills_and_empties_several_times(tmp_path: Path, bare: dict[str, Any]) -> None:
    with small_disk(tmp_path / "disk", f"size={MIB}") as disk:
        run = drive(tmp_path, disk, "60,160,260,360,460,560", *SLOWLY)
        (process,) = streams.processes(streams.only_session(disk.seen / "sessions"))
        assert run.summary == bare
        assert_whole(process)
        made = {"engine_steps": run.summary["steps"], "kv_evictions": run.truth["evicted"]}
        for table, rows in made.items():
            lost = gaps(process, table)
            assert set(lost) == {"ENOSPC"}
            assert len(streams.rows(process, table)) + lost["ENOSPC"] == rows, table
        assert len([row for row in streams.rows(process, "gaps") if row["table"] == "engine_steps"]) >= 3
        last = streams.rows(process, "engine_steps")[-1]
        assert int(last["evicted"]) == run.truth["evicted"] and int(last["step"]) == run.summary["steps"]
        (line,) = (line for line in run.lines if "rows are being dropped" in line)
        assert "ENOSPC" in line and str(disk.path) in line
        streams.export(streams.only_session(disk.seen / "sessions"))
        notes = json.loads((streams.only_session(disk.seen / "sessions") / "metadata.json").read_text())["notes"]
        assert any("rows never reached the disk (ENOSPC)" in note for note in notes)


STAYS_FULL = """
import sys
import vllm.engine.arg_utils as a, vllm.v1.core.sched.scheduler as s
from pathlib import Path
sys.path.insert(0, {here!r})
import drive_on_disk
from profilemate.probe import process
process.FULL_FLUSH_NS = 1_000_000
a.EngineArgs()
scheduler = s.Scheduler()
for step in range(1, 601):
    scheduler.update_from_output(scheduler.schedule(), None)
    if step == 300:
        drive_on_disk.take_the_rest(Path({ballast!r}))
print("served")
"""


def test_a_disk_that_stays_full(tmp_path: Path, vllm: Path) -> None:
    """What was written before is readable, and one line says that rows are being dropped."""
    with small_disk(tmp_path / "disk", f"size={512 * KIB}") as disk:
        code = STAYS_FULL.format(here=str(DRIVE.parent), ballast=str(disk.path / "ballast"))
        env = environment.clean() | {
            "PYTHONPATH": f"{environment.ROOT}:{vllm}",
            "PROFILEMATE_DIR": str(disk.path / "s"),
        }
        env |= {"PROFILEMATE_DISK_FLOOR": "0"}
        command = [*disk.prefix, sys.executable, "-c", code]
        done = subprocess.run(
            command, env=env, capture_output=True, text=True, timeout=environment.HANGS_SECONDS, check=False
        )
        assert (done.returncode, done.stdout) == (0, "served\n"), done.stderr
        session = streams.only_session(disk.seen / "s")
        (process,) = streams.processes(session)
        assert_whole(process)
        numbers = [int(row["step"]) for row in streams.rows(process, "engine_steps")]
        assert numbers == list(range(1, len(numbers) + 1)) and 300 <= len(numbers) < 600
        (line,) = (line for line in done.stderr.splitlines() if "rows are being dropped" in line)
        assert "ENOSPC" in line
        (disk.seen / "ballast").unlink()
        streams.export(session)
        assert streams.missing_files(session) == []


def test_the_files_cannot_be_made_on_a_full_disk_and_the_old_ones_stay(tmp_path: Path, vllm: Path) -> None:
    with small_disk(tmp_path / "disk", f"size={512 * KIB}") as disk:
        env = environment.clean() | {
            "PYTHONPATH": f"{environment.ROOT}:{vllm}",
            "PROFILEMATE_DIR": str(disk.path / "s"),
        }
        env |= {"PROFILEMATE_DISK_FLOOR": "0"}
        code = SERVE + "; import os, sys; sys.stdout.flush(); os._exit(0)"
        subprocess.run(
            [*disk.prefix, sys.executable, "-c", code],
            env=env,
            check=True,
            capture_output=True,
            timeout=environment.HANGS_SECONDS,
        )
        session = streams.only_session(disk.seen / "s")
        streams.export(session)
        before = {path.name: path.read_bytes() for path in session.iterdir() if path.is_file()}
        assert set(streams.README_FILES) < set(before)
        fill = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(DRIVE.parent)!r}); import drive_on_disk as d, "
                f"pathlib; d.take_the_rest(pathlib.Path({str(disk.path / 'ballast')!r}))"]  # fmt: skip
        subprocess.run([*disk.prefix, *fill], check=True, capture_output=True, timeout=environment.HANGS_SECONDS)
        export = [sys.executable, "-m", "profilemate", "export", str(session)]
        done = subprocess.run(
            export, cwd=environment.ROOT, env=environment.clean(), capture_output=True, text=True, check=False
        )
        assert done.returncode == 1 and done.stderr.count("\n") == 1 and "No space left" in done.stderr
        assert {path.name: path.read_bytes() for path in session.iterdir() if path.is_file()} == before


def test_no_session_begins_on_a_full_disk(tmp_path: Path, vllm: Path) -> None:
    with small_disk(tmp_path / "disk", f"size={64 * KIB}") as disk:
        script = f"""
import sys; sys.path.insert(0, {str(DRIVE.parent)!r})
import drive_on_disk, pathlib; drive_on_disk.take_the_rest(pathlib.Path({str(disk.path / "ballast")!r}))
{SERVE}
print("served")
"""
        env = environment.clean() | {
            "PYTHONPATH": f"{environment.ROOT}:{vllm}",
            "PROFILEMATE_DIR": str(disk.path / "s"),
        }
        done = subprocess.run(
            [*disk.prefix, sys.executable, "-c", script], env=env, capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stdout) == (0, "served\n"), done.stderr
        assert done.stderr.count("\n") == 1 and "nothing is recorded" in done.stderr
        assert list((disk.seen / "s").glob("*")) == []


def test_the_floor_of_free_space_is_respected(tmp_path: Path, vllm: Path) -> None:
    """And recording goes on when there is room again. In memory the floor is a quarter of the setting."""
    with small_disk(tmp_path / "disk", f"size={4 * MIB}") as disk:
        floor = 2 * MIB
        code = f"""
import os, time
import vllm.engine.arg_utils as a, vllm.v1.core.sched.scheduler as s
a.EngineArgs()
from profilemate.probe import process as p, writer as w
w.SECOND_NS, w.FIRST_PAUSE_NS, p.FULL_FLUSH_NS = 1_000_000, 1_000_000, 1_000_000
process = p.THIS
def free():
    found = os.statvfs({str(disk.path)!r})
    return found.f_bavail * found.f_frsize
scheduler, steps = s.Scheduler(), 0
def step():
    global steps
    scheduler.update_from_output(scheduler.schedule(), None)
    steps += 1
while not process.writer.trouble:
    step()
low = free()
for _ in range(2000):
    step()
still = free()
ballast = open({str(disk.path / "ballast")!r}, "r+b")
ballast.truncate(0)
time.sleep(0.2)
while process.writer.trouble:
    time.sleep(0.01)
    step()
step()
print(steps, low, still)
"""
        ballast = disk.seen / "ballast"
        ballast.write_bytes(b"x" * (disk.free_bytes - floor - 128 * KIB))
        env = environment.clean() | {
            "PYTHONPATH": f"{environment.ROOT}:{vllm}",
            "PROFILEMATE_DIR": str(disk.path / "s"),
        }
        env |= {"PROFILEMATE_DISK_FLOOR": str(4 * floor)}
        command = [*disk.prefix, sys.executable, "-c", code]
        done = subprocess.run(
            command, env=env, capture_output=True, text=True, timeout=environment.HANGS_SECONDS, check=False
        )
        assert done.returncode == 0, done.stderr
        steps, low, still = map(int, done.stdout.split())
        assert floor - 64 * KIB < low <= floor and floor - 64 * KIB < still
        (process,) = streams.processes(streams.only_session(disk.seen / "s"))
        lost = gaps(process, "engine_steps")
        assert set(lost) == {"disk_floor"} and lost["disk_floor"] >= 2000
        assert len(streams.rows(process, "engine_steps")) + lost["disk_floor"] == steps


def test_in_memory_the_caps_are_a_quarter_and_one_note_says_so(tmp_path: Path, vllm: Path) -> None:
    with small_disk(tmp_path / "disk", f"size={8 * MIB}") as disk:
        code = (
            SERVE
            + "; from profilemate.probe.process import THIS as t; print(t.writer.share_bytes, t.writer.floor_bytes)"
        )
        env = environment.clean() | {
            "PYTHONPATH": f"{environment.ROOT}:{vllm}",
            "PROFILEMATE_DIR": str(disk.path / "s"),
        }
        env |= {"PROFILEMATE_SESSION_CAP": "32M", "PROFILEMATE_FOLDER_CAP": "64M", "PROFILEMATE_DISK_FLOOR": "4K"}
        command = [*disk.prefix, sys.executable, "-c", code]
        done = subprocess.run(
            command, env=env, capture_output=True, text=True, timeout=environment.HANGS_SECONDS, check=False
        )
        assert done.stdout == f"{MIB} {KIB}\n", done.stderr
        session = streams.only_session(disk.seen / "s")
        assert json.loads((session / "session.json").read_text())["settings"]["folder_cap_bytes"] == 16 * MIB
        streams.export(session)
        notes = json.loads((session / "metadata.json").read_text())["notes"]
        assert len([note for note in notes if "memory-backed" in note]) == 1


def test_a_stopped_process_is_not_a_slow_disk(tmp_path: Path, bare: dict[str, Any]) -> None:
    """SIGSTOP and SIGCONT many times over, each longer than a write that counts as slow."""
    out = tmp_path / "oracle.json"
    process = start(out, environment.profiled(tmp_path / "sessions"), tmp_path / "ballast", "", *SLOWLY)
    deadline = time.monotonic() + environment.HANGS_SECONDS
    while not list((tmp_path / "sessions").glob("session_*/processes/*/engine_steps.csv")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    stops = 0
    while process.poll() is None and stops < 20:
        os.kill(process.pid, signal.SIGSTOP)
        time.sleep(0.08)
        os.kill(process.pid, signal.SIGCONT)
        time.sleep(0.05)
        stops += 1
    run = finish(process, out)
    (folder,) = streams.processes(streams.only_session(tmp_path / "sessions"))
    assert run.summary == bare and stops >= 8
    assert len(streams.rows(folder, "engine_steps")) == run.summary["steps"]
    assert streams.rows(folder, "gaps") == []
    assert not any("dropped" in line for line in run.lines)
