"""A tracker in a file of the user's: the one in the documentation as it stands there, and those that are wrong."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import environment
import pytest
import streams
from pretend_vllm import SERVE, Write

DOCUMENT = environment.ROOT / "docs" / "adding-a-tracker.md"
STEPS = 4


def documented() -> str:
    """The code that the document tells to save as schedule_calls.py."""
    found = re.search(r"Save it as `schedule_calls\.py`:\n\n```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    assert found
    return found[1]


def python(code: str, vllm: Path, tmp_path: Path, trackers: str, **more: str) -> subprocess.CompletedProcess[str]:
    """Run code with the pretence of vLLM in the folder that holds the user's files."""
    env = environment.clean() | {
        "PYTHONPATH": os.pathsep.join(map(str, (environment.ROOT, vllm))),
        "PROFILEMATE_DIR": str(tmp_path / "p"),
        "PROFILEMATE_TRACKERS": trackers,
        **more,
    }
    return subprocess.run(
        [sys.executable, "-c", code],
        env=env,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=environment.HANGS_SECONDS,
        check=False,
    )


def table(session: Path, name: str) -> list[dict[str, str]]:
    """Rows of an exported file."""
    with (session / name).open(newline="") as file:
        return list(csv.DictReader(file))


def hook(session: Path, name: str) -> dict[str, str]:
    """Its record in the one process."""
    (process,) = streams.processes(session)
    return next(dict(one) for one in streams.record(process)["hooks"] if one["name"] == name)


def test_the_documented_file_times_vllms_scheduler(tmp_path: Path) -> None:
    """The real scheduler under the driver, whose own count of steps is the oracle."""
    (tmp_path / "schedule_calls.py").write_text(documented())
    arguments = [str(environment.ROOT / "tests/driver/drive.py"), "--requests", "20", "--step-ms", "2"]
    env = environment.profiled(tmp_path / "p", PROFILEMATE_TRACKERS="default,./schedule_calls.py")
    done = subprocess.run(
        [sys.executable, *arguments],
        env=env,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=environment.HANGS_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    tallies = json.loads(done.stdout.splitlines()[-1])
    session = streams.only_session(tmp_path / "p")
    streams.export(session)
    rows = table(session, "schedule_calls.csv")
    assert list(rows[0]) == ["timestamp_sec", "process", "duration_ns", "tokens"]
    assert len(rows) == tallies["steps"] > 50
    assert sum(int(row["tokens"]) for row in rows) == int(
        streams.all_rows(session, "engine_steps")[-1]["scheduled_tokens"]
    )
    assert all(0 < int(row["duration_ns"]) < 10**9 for row in rows)
    began = [float(row["timestamp_sec"]) for row in rows]
    assert all(b - a > 0.0019 for a, b in pairwise(began))  # so far apart does the driver call it
    assert {row["process"] for row in rows} == {process.name for process in streams.processes(session)}


def test_ours_go_on_beside_it_and_the_metadata_lists_it(tmp_path: Path, vllm: Path) -> None:
    (tmp_path / "schedule_calls.py").write_text(documented())
    done = python(SERVE, vllm, tmp_path, "default,./schedule_calls.py")
    assert done.returncode == 0, done.stderr
    session = streams.only_session(tmp_path / "p")
    streams.export(session)
    metadata = json.loads((session / "metadata.json").read_text())
    assert metadata["files"]["schedule_calls.csv"] == STEPS and metadata["user_files"] == ["schedule_calls.csv"]
    assert str(tmp_path / "schedule_calls.py") in metadata["settings"]["trackers"]
    assert len(streams.all_rows(session, "engine_steps")) == STEPS
    record = hook(session, "schedule_calls.schedule")
    assert (record["state"], record["tracker"]) == ("put_in", "schedule_calls")


def test_a_module_of_a_package_and_nothing_else(tmp_path: Path, vllm: Path, write: Write) -> None:
    package = write({"my/__init__.py": "", "my/tracker.py": documented()}, "users")
    path = os.pathsep.join(map(str, (environment.ROOT, vllm, package)))
    python(SERVE, vllm, tmp_path, "my.tracker", PYTHONPATH=path)
    session = streams.only_session(tmp_path / "p")
    assert len(streams.all_rows(session, "schedule_calls")) == STEPS
    assert streams.all_rows(session, "kv_usage") == []
    assert hook(session, "kv_cache")["state"] == "tracker_off"


def test_a_relative_path_holds_in_a_child_that_begins_in_another_folder(tmp_path: Path, vllm: Path) -> None:
    (tmp_path / "schedule_calls.py").write_text(documented())
    code = """
import vllm.engine.arg_utils as a, os, subprocess, sys
a.EngineArgs()
child = "import vllm.v1.core.sched.scheduler as s; s.run(3)"
subprocess.run([sys.executable, "-c", child], cwd="/", check=True)
print(os.environ["PROFILEMATE_TRACKERS"])
"""
    done = python(code, vllm, tmp_path, "default, ./schedule_calls.py")
    assert done.stdout.strip() == f"default,{tmp_path}/schedule_calls.py", done.stderr
    assert len(streams.all_rows(streams.only_session(tmp_path / "p"), "schedule_calls")) == 3


WRONG = {
    "missing": (None, "No such file"),
    "syntax": ("def (:", "SyntaxError"),
    "exception": ("1 / 0", "ZeroDivisionError"),
    "exit": ("import sys; sys.exit(3)", "SystemExit: 3"),
    "no_hooks": ("X = 1", "it has no HOOKS"),
    "not_a_hook": ("HOOKS = (1,)", "HOOKS has a int, not a Hook"),
    "imports_vllm": ("import vllm.v1.core.sched.scheduler", "import it inside a handler"),
    "imports_torch": ("import torch", "import it inside a handler"),
    "hook_name": (documented().replace('"schedule_calls.schedule",', '"block_pool.touch",'), "block_pool.touch is taken"),
    "step_hook_name": (documented().replace('"schedule_calls.schedule",', '"scheduler.step_end",'), "is taken"),
    "table_name": (documented().replace('    "schedule_calls",\n    "One', '    "kv_usage",\n    "One'), "kv_usage is taken"),
    "off_table": (documented().replace('    "schedule_calls",\n    "One', '    "graph_captures",\n    "One'), "is taken"),
    "path_name": (documented().replace('    "schedule_calls",\n    "One', '    "../calls",\n    "One'), "no name of a table"),
    "no_time": (documented().replace('("time_ns"', '("when_ns"'), "the first one is time_ns"),
    "no_kind": (documented().replace("        AROUND,", "        7,"), "no kind of hook"),
    "handlers": (documented().replace("        begins,\n        ends,", "        1,\n        2,"), "its handlers"),
    "shares_row": ("from profilemate.probe.engine_step import STEP\n"
                   "from profilemate.schema.step_table import step_table\n"
                   "STEP.part(step_table('x', 'mine', ('mine', 'int', '')))\n", "takes no columns"),
}  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG)
def test_a_file_that_cannot_be_used_is_off_and_all_else_goes_on(tmp_path: Path, vllm: Path, wrong: str) -> None:
    text, reason = WRONG[wrong]
    if text is not None:
        (tmp_path / "mine.py").write_text(text)
    done = python(SERVE + "; print('served')", vllm, tmp_path, "-cuda_graphs,./mine.py")
    assert (done.returncode, done.stdout) == (0, "served\n"), done.stderr
    assert done.stderr.count("mine.py is off: ") == 1 and reason in done.stderr
    session = streams.only_session(tmp_path / "p")
    steps = streams.all_rows(session, "engine_steps")
    assert [row["step"] for row in steps] == ["1", "2", "3", "4"] and "mine" not in steps[0]
    record = hook(session, "mine")
    assert record["state"] == "does_not_fit" and reason in record["reason"]
    (process,) = streams.processes(session)
    assert not (process / "schedule_calls.csv").exists()
    streams.export(session)
    notes = json.loads((session / "metadata.json").read_text())["notes"]
    assert any("mine.py is off" in note for note in notes)


FAILS_LATER = {
    "raises": ("    ROWS.add(", "    1 / 0; ROWS.add(", "ZeroDivisionError"),
    "width": ("ROWS.add((began_ns, ", "ROWS.add((began_ns, 1, ", "4 cells for 3 columns"),
    "time": ("ROWS.add((began_ns, ", "ROWS.add((None, ", "time_ns is NoneType"),
}


@pytest.mark.parametrize("how", FAILS_LATER)
def test_a_hook_that_fails_later_is_switched_off_alone(tmp_path: Path, vllm: Path, how: str) -> None:
    before, after, reason = FAILS_LATER[how]
    (tmp_path / "mine.py").write_text(documented().replace(before, after))
    done = python(SERVE.replace("run(4)", "run(9)"), vllm, tmp_path, "default,./mine.py")
    assert done.returncode == 0, done.stderr
    session = streams.only_session(tmp_path / "p")
    assert len(streams.all_rows(session, "engine_steps")) == 9
    record = hook(session, "schedule_calls.schedule")
    assert record["state"] == "switched_off" and reason in record["reason"]
    assert hook(session, "scheduler.step_end")["state"] == "put_in"
    summary = subprocess.run(
        [sys.executable, "-m", "profilemate", "summary", str(session)],
        cwd=environment.ROOT, env=environment.clean(),
        capture_output=True, text=True, timeout=environment.HANGS_SECONDS, check=False,
    )  # fmt: skip
    assert "failed 5 times, switched_off: schedule_calls.schedule" in summary.stdout


def test_functions_beside_the_hooks_are_called_and_guarded(tmp_path: Path, vllm: Path) -> None:
    more = """

def before_flush(now_ns):
    raise KeyError("flush")


def after_fork():
    raise KeyError("fork")
"""
    (tmp_path / "mine.py").write_text(documented() + more)
    code = SERVE + "; import os\nif os.fork() == 0: s.run(2)\nelse: os.wait()"
    done = python(code, vllm, tmp_path, "default,./mine.py")
    assert done.returncode == 0, done.stderr
    session = streams.only_session(tmp_path / "p")
    counts = sorted(len(streams.rows(process, "schedule_calls")) for process in streams.processes(session))
    assert counts == [2, 4]
    warnings = [text for process in streams.processes(session) for text in streams.record(process)["warnings"]]
    assert any("before_flush failed: KeyError" in text for text in warnings)
    assert any("after_fork failed: KeyError" in text for text in warnings)


def test_rows_go_out_where_no_engine_step_ends(tmp_path: Path, vllm: Path) -> None:
    """On BlockPool in a process that never ends a step, and is killed: the row of a second later took all before with it."""
    (tmp_path / "mine.py").write_text(
        documented()
        .replace("vllm.v1.core.sched.scheduler", "vllm.v1.core.block_pool")
        .replace("Scheduler.schedule", "BlockPool.get_new_blocks")
        .replace("scheduled.total_num_scheduled_tokens", "len(scheduled)")
    )
    code = """
import vllm.engine.arg_utils as a, os, time
a.EngineArgs()
import vllm.v1.core.sched.scheduler as s
scheduler = s.Scheduler()
for number in range(3):
    scheduler.schedule()
time.sleep(1.1)
scheduler.schedule()
os.kill(os.getpid(), 9)
"""
    python(code, vllm, tmp_path, "./mine.py")
    rows = streams.all_rows(streams.only_session(tmp_path / "p"), "schedule_calls")
    assert [row["tokens"] for row in rows] == ["3", "3", "3", "1"]


def test_doctor_names_a_file_that_is_not_there_or_cannot_be_loaded(tmp_path: Path, vllm: Path) -> None:
    (tmp_path / "mine.py").write_text("1 / 0")
    code = f"""
import json, sys
sys.path.insert(0, {str(environment.ROOT)!r})
from profilemate.cli.checks import start, vllm
import os
for check in (start.settings_are_good, vllm.hooks_fit):
    print(json.dumps([one._asdict() for one in check(os.environ)]))
"""
    done = python(code, vllm, tmp_path, "default,./mine.py,./gone.py", PROFILEMATE_ENABLE="0")
    settings, hooks = (json.loads(line) for line in done.stdout.splitlines())
    assert [one["text"] for one in settings] == [f"the tracker {tmp_path}/gone.py is not there"]
    texts = [one["text"] for one in hooks if one["status"] == "warning"]
    assert any(text.startswith(f"mine ({tmp_path}/mine.py): ZeroDivisionError") for text in texts)
    assert not any("no hook of mine" in one["text"] for one in hooks)
