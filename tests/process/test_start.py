"""Real interpreters: what starts, what does not, chaining, and how processes join a session. vLLM is a small pretence."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import environment
import pytest
import streams
from pretend_vllm import SERVE, Write

START_LINE = "[sitecustomize] vLLM Comprehensive Instrumentation Loaded"


def python(*arguments: str, path: list[Path | str], **more: str) -> subprocess.CompletedProcess[str]:
    env = environment.clean() | {"PYTHONPATH": os.pathsep.join(map(str, path)), **more}
    return subprocess.run(
        [sys.executable, *arguments],
        env=env,
        capture_output=True,
        text=True,
        timeout=environment.HANGS_SECONDS,
        check=False,
    )


# -- processes that never import vLLM -----------------------------------------------------------------------------------


def test_another_program_gets_no_file_output_thread_or_module(tmp_path: Path) -> None:
    code = "import sys, threading; print(sorted(sys.modules)); print(threading.active_count())"
    bare = python("-c", code, path=[])
    ours = python("-c", code, path=[environment.ROOT], PROFILEMATE_DIR=str(tmp_path / "p"))
    modules = set(eval(ours.stdout.splitlines()[0])) - set(eval(bare.stdout.splitlines()[0]))
    assert modules <= {"sitecustomize", "profilemate", "profilemate.boot", "importlib.machinery"}
    assert ours.stdout.splitlines()[1] == "1" and ours.stderr == "" and not (tmp_path / "p").exists()


def test_asking_whether_vllm_is_there_makes_nothing(tmp_path: Path, vllm: Path) -> None:
    code = "import importlib.util; print(importlib.util.find_spec('vllm') is not None); import vllm"
    done = python("-c", code, path=[environment.ROOT, vllm], PROFILEMATE_DIR=str(tmp_path / "p"))
    assert (done.stdout, done.stderr) == ("True\n", "") and not (tmp_path / "p").exists()


@pytest.mark.parametrize("flags", [["-I"], ["-S"], ["-E"], ["-s"], ["-OO"]])
def test_interpreter_flags_do_no_harm(tmp_path: Path, flags: list[str]) -> None:
    done = python(*flags, "-c", "print(1)", path=[environment.ROOT], PROFILEMATE_DIR=str(tmp_path / "p"))
    assert (done.returncode, done.stdout, done.stderr) == (0, "1\n", "")


@pytest.mark.parametrize("value", ["", ":", "{root}:", ":{root}"])
def test_odd_python_paths(value: str) -> None:
    env = environment.clean() | {"PYTHONPATH": value.format(root=environment.ROOT)}
    done = subprocess.run([sys.executable, "-c", "print(1)"], env=env, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "1\n", "")


# -- a session ----------------------------------------------------------------------------------------------------------


def test_a_program_that_launches_an_engine_is_recorded(tmp_path: Path, vllm: Path) -> None:
    done = python("-c", SERVE, path=[environment.ROOT, vllm], PROFILEMATE_DIR=str(tmp_path / "p"))
    session = streams.only_session(tmp_path / "p")
    assert done.stderr.count(START_LINE) == 1 and str(session) in done.stderr and done.stdout == ""
    rows = streams.all_rows(session, "engine_steps")
    assert [(row["step"], row["allocated"], row["freed"], row["in_use"]) for row in rows] == [
        (str(n), str(3 * n), str(3 * n), "0") for n in range(1, 5)
    ]
    (process,) = streams.processes(session, "EngineCore")
    assert {"engine_args", "scheduler.begin"} <= {row["hook"] for row in streams.rows(process, "health")}
    states = {hook["name"]: hook["state"] for hook in streams.record(process)["hooks"]}
    assert states["block_pool.get_new_blocks"] == "put_in"
    assert states["kv_cache_manager.allocate_slots"] == "waiting"
    assert states["scheduler.preempt_request"] == "not_in_this_version"


@pytest.mark.parametrize("name", ["PROFILEMATE_ENABLE", "VLLM_ENABLE_PROFILING"])
def test_zero_switches_everything_off(tmp_path: Path, vllm: Path, name: str) -> None:
    done = python("-c", SERVE, path=[environment.ROOT, vllm], PROFILEMATE_DIR=str(tmp_path / "p"), **{name: "0"})
    assert (done.returncode, done.stderr) == (0, "") and not (tmp_path / "p").exists()


def test_a_tracker_that_is_off_makes_no_hook_and_says_so(tmp_path: Path, vllm: Path) -> None:
    done = python(
        "-c",
        SERVE,
        path=[environment.ROOT, vllm],
        PROFILEMATE_DIR=str(tmp_path / "p"),
        PROFILEMATE_TRACKERS="cuda_graphs",
    )
    assert done.returncode == 0
    assert streams.all_rows(streams.only_session(tmp_path / "p"), "engine_steps") == []


def test_a_bad_setting_is_one_warning_and_the_session_goes_on(tmp_path: Path, vllm: Path) -> None:
    done = python(
        "-c", SERVE, path=[environment.ROOT, vllm], PROFILEMATE_DIR=str(tmp_path / "p"), PROFILEMATE_LOG_INTERVAL="soon"
    )
    assert done.stderr.count("PROFILEMATE_LOG_INTERVAL") == 1
    assert len(streams.all_rows(streams.only_session(tmp_path / "p"), "engine_steps")) == 4


def test_verbose_tells_where_each_process_writes(tmp_path: Path, vllm: Path) -> None:
    more = {"PROFILEMATE_DIR": str(tmp_path / "p"), "PROFILEMATE_VERBOSE": "1"}
    done = python("-c", SERVE, path=[environment.ROOT, vllm], **more)
    assert "EngineCore (pid" in done.stderr and "writes to" in done.stderr


def test_an_unwritable_folder_is_one_line_and_serving_goes_on(tmp_path: Path, vllm: Path) -> None:
    (tmp_path / "file").write_text("")
    done = python(
        "-c", SERVE + "; print('served')", path=[environment.ROOT, vllm], PROFILEMATE_DIR=str(tmp_path / "file/p")
    )
    assert done.stdout == "served\n" and done.returncode == 0
    assert done.stderr.count("\n") == 1 and "nothing is recorded" in done.stderr


def test_rows_that_are_dropped_to_the_end_are_said_to_be(tmp_path: Path, vllm: Path) -> None:
    """Nothing can be written into the streams, so the process's record has to tell."""
    more = {"PROFILEMATE_DIR": str(tmp_path / "p"), "PROFILEMATE_DISK_FLOOR": "9000000G"}
    done = python("-c", SERVE, path=[environment.ROOT, vllm], **more)
    assert done.returncode == 0, done.stderr
    (process,) = streams.processes(streams.only_session(tmp_path / "p"))
    assert [path.name for path in process.iterdir()] == ["process.json"]
    assert "rows are being dropped: disk_floor" in streams.record(process)["warnings"]


def test_a_process_that_cannot_record_keeps_no_rows_in_memory(tmp_path: Path, vllm: Path) -> None:
    (tmp_path / "file").write_text("")
    code = SERVE + "; s.run(500); from profilemate.probe.process import THIS as t; "
    code += "print(sum(len(x.pending) for x in t.writer.streams.values()))"
    done = python("-c", code, path=[environment.ROOT, vllm], PROFILEMATE_DIR=str(tmp_path / "file/p"))
    assert (done.stdout, done.returncode) == ("0\n", 0), done.stderr


LAUNCHES = """
import multiprocessing, os
from types import SimpleNamespace
def core():
    import vllm.engine.arg_utils, vllm.v1.core.sched.scheduler as s
    s.Scheduler.vllm_config = SimpleNamespace(parallel_config=SimpleNamespace(world_size=1, data_parallel_size=1))
    s.run(1)
    from profilemate.probe.process import THIS
    print(THIS.writer.share_bytes, os.environ.get("VLLM_RAY_EXTRA_ENV_VARS_TO_COPY"))
if __name__ == "__main__":
    import vllm.engine.arg_utils as a
    a.EngineArgs().create_engine_config()
    process = multiprocessing.get_context("spawn").Process(target=core)
    process.start()
    process.join()
"""
ENGINE_ARGUMENTS = """
from types import SimpleNamespace
class EngineArgs:
    def __init__(self):
        self.__post_init__()
    def __post_init__(self):
        self.distributed_executor_backend = None
    def create_engine_config(self):
        return SimpleNamespace(parallel_config=SimpleNamespace(
            world_size=1, data_parallel_size=8, distributed_executor_backend="ray"))
"""


def test_what_vllm_chose_reaches_the_engine_processes(tmp_path: Path, vllm: Path, write: Write) -> None:
    """The cap's share of one of 8 dense engines, each of which believes to be alone; and Ray, where nobody asked for it."""
    write({"vllm/engine/arg_utils.py": ENGINE_ARGUMENTS}, "pretend")
    script = write({"main.py": LAUNCHES}, "script") / "main.py"
    more = {"PROFILEMATE_DIR": str(tmp_path / "p"), "PROFILEMATE_SESSION_CAP": "17000000"}
    done = python(str(script), path=[environment.ROOT, vllm], **more)
    assert done.returncode == 0, done.stderr
    share, names = done.stdout.split()
    assert share == "1000000" and "PROFILEMATE_SESSION" in names.split(",")


def test_without_stderr_a_probe_that_cannot_be_loaded_does_not_break_the_import(vllm: Path, checkout: Path) -> None:
    (checkout / "profilemate" / "probe" / "install.py").write_text("raise ValueError('broken')")
    code = "import sys; sys.stderr = None; import vllm; print(vllm.__version__)"
    done = python("-c", code, path=[checkout, vllm])
    assert (done.stdout, done.returncode) == ("9.9.9\n", 0)


def test_the_export_at_exit_imports_nothing_from_the_servers_folder(tmp_path: Path, vllm: Path) -> None:
    (tmp_path / "cwd").mkdir()
    for name in ("json", "profilemate", "dataclasses"):
        (tmp_path / "cwd" / f"{name}.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nraise SystemExit\n")
    code = "import sys; sys.path.remove(''); import os; os.chdir(sys.argv[1]); " + SERVE
    done = python("-c", code, str(tmp_path / "cwd"), path=[environment.ROOT, vllm], PROFILEMATE_DIR=str(tmp_path / "p"))
    assert done.returncode == 0, done.stderr
    session = streams.only_session(tmp_path / "p")
    deadline = time.monotonic() + environment.HANGS_SECONDS
    while not (session / "metadata.json").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert (session / "metadata.json").exists() and not (tmp_path / "ran").exists()


def test_the_hooked_module_keeps_its_loader_and_spec(tmp_path: Path, vllm: Path) -> None:
    code = """
import json, vllm.v1.core.block_pool as m, vllm.v1.core as plain
print(json.dumps([type(m.__loader__).__name__, m.__spec__.loader is m.__loader__, "exec_module" in vars(m.__loader__),
                  type(plain.__loader__).__name__, m.__spec__.origin == m.__file__]))
"""
    done = python("-c", code, path=[environment.ROOT, vllm], PROFILEMATE_DIR=str(tmp_path / "p"))
    assert json.loads(done.stdout) == ["SourceFileLoader", True, False, "SourceFileLoader", True]


def test_a_target_run_with_dash_m_works(tmp_path: Path, vllm: Path) -> None:
    done = python("-m", "vllm.v1.core.block_pool", path=[environment.ROOT, vllm], PROFILEMATE_DIR=str(tmp_path / "p"))
    assert done.returncode == 0 and "Traceback" not in done.stderr


def test_a_target_imported_before_us_is_hooked_late(tmp_path: Path, vllm: Path) -> None:
    code = (
        "import vllm.engine.arg_utils as a, vllm.v1.core.sched.scheduler as s; import sys; "
        f"sys.path.insert(0, {str(environment.ROOT)!r}); import profilemate.plugin as p; p.register(); p.register(); "
        "a.EngineArgs(); s.run(2)"
    )
    done = python("-c", code, path=[vllm], PROFILEMATE_DIR=str(tmp_path / "p"), PROFILEMATE_ENABLE="1")
    assert done.returncode == 0, done.stderr
    assert streams.all_rows(streams.only_session(tmp_path / "p"), "engine_steps")[-1]["allocated"] == "6"


def test_the_installed_plugin_starts_only_when_asked(tmp_path: Path, vllm: Path) -> None:
    code = (
        f"import sys; sys.path.append({str(environment.ROOT)!r}); import profilemate.plugin as p; p.register(); "
        + SERVE
    )
    for more in ({}, {"PROFILEMATE_ENABLE": "0"}):
        python("-c", code, path=[vllm], PROFILEMATE_DIR=str(tmp_path / "p"), **more)
        assert not (tmp_path / "p").exists()


# -- processes of a session ---------------------------------------------------------------------------------------------

CHILDREN = """
import multiprocessing, sys
def child():
    import vllm.v1.core.sched.scheduler as s
    s.run(2)
if __name__ == "__main__":
    import vllm.engine.arg_utils as a, vllm.v1.core.sched.scheduler as s
    a.EngineArgs()
    s.run(4)
    process = multiprocessing.get_context(sys.argv[1]).Process(target=child, name="EngineCore_DP1")
    process.start()
    process.join()
    sys.exit(process.exitcode)
"""


@pytest.mark.parametrize("method", ["spawn", "fork", "forkserver"])
def test_children_join_the_session_with_rows_of_their_own(
    tmp_path: Path, vllm: Path, write: Write, method: str
) -> None:
    script = write({"main.py": CHILDREN}, "script") / "main.py"
    done = python(str(script), method, path=[environment.ROOT, vllm], PROFILEMATE_DIR=str(tmp_path / "p"))
    assert done.returncode == 0, done.stderr
    assert done.stderr.count(START_LINE) == 1
    session = streams.only_session(tmp_path / "p")
    steps = sorted(len(streams.rows(process, "engine_steps")) for process in streams.processes(session))
    assert steps == [2, 4]


FORKSERVER = """
import multiprocessing
from multiprocessing import forkserver
def worker():
    import vllm.v1.core.sched.scheduler as s
    s.run(1)
def core():
    import vllm.v1.core.sched.scheduler as s
    s.run(2)
    run(worker)
def run(target):
    process = multiprocessing.Process(target=target)
    process.start()
    process.join()
    assert process.exitcode == 0
if __name__ == "__main__":
    multiprocessing.set_start_method("forkserver")
    multiprocessing.set_forkserver_preload(["vllm.v1.core.sched.scheduler"])
    forkserver.ensure_running()
    import vllm.engine.arg_utils as a, vllm.v1.core.sched.scheduler as s
    a.EngineArgs()
    s.run(4)
    run(core)
"""


def test_children_of_a_fork_server_that_is_older_than_the_session_join_it(
    tmp_path: Path, vllm: Path, write: Write
) -> None:
    """As in vLLM's API server, whose fork server runs before the engine arguments are built."""
    script = write({"main.py": FORKSERVER}, "script") / "main.py"
    done = python(str(script), path=[environment.ROOT, vllm], PROFILEMATE_DIR=str(tmp_path / "p"))
    assert done.returncode == 0, done.stderr
    assert done.stderr.count(START_LINE) == 1
    session = streams.only_session(tmp_path / "p")
    assert sorted(len(streams.rows(process, "engine_steps")) for process in streams.processes(session)) == [1, 2, 4]


def test_a_program_started_by_a_server_begins_its_own_session(tmp_path: Path, vllm: Path) -> None:
    code = f"{SERVE}; import subprocess, sys; sys.exit(subprocess.run([sys.executable, '-c', {SERVE!r}]).returncode)"
    done = python("-c", code, path=[environment.ROOT, vllm], PROFILEMATE_DIR=str(tmp_path / "p"))
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "p").glob("session_*"))) == 2


LAUNCHER = """
import multiprocessing
def serve():
    {serve}
if __name__ == "__main__":
    process = multiprocessing.get_context("spawn").Process(target=serve)
    process.start()
    process.join()
"""


def test_so_does_one_that_serves_in_a_child_of_its_own(tmp_path: Path, vllm: Path, write: Write) -> None:
    """That child was made by multiprocessing, but by nobody who takes part in the session that it inherits."""
    script = write({"main.py": LAUNCHER.format(serve=SERVE)}, "script") / "main.py"
    code = f"{SERVE}; import subprocess, sys; sys.exit(subprocess.run([sys.executable, {str(script)!r}]).returncode)"
    done = python("-c", code, path=[environment.ROOT, vllm], PROFILEMATE_DIR=str(tmp_path / "p"))
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "p").glob("session_*"))) == 2


def test_a_second_engine_in_one_process_is_another_engine_of_the_session(tmp_path: Path, vllm: Path) -> None:
    done = python(
        "-c", SERVE + "; a.EngineArgs(); s.run(2)", path=[environment.ROOT, vllm], PROFILEMATE_DIR=str(tmp_path / "p")
    )
    assert done.returncode == 0, done.stderr
    rows = streams.all_rows(streams.only_session(tmp_path / "p"), "engine_steps")
    assert [row["engine"] for row in rows] == ["0"] * 4 + ["1"] * 2


# -- other sitecustomize files ------------------------------------------------------------------------------------------

PLAIN = 'import sys; sys.stdout.write("{name}\\n")'
CHAINING = """
import sys, os
sys.stdout.write("{name}\\n")
here = os.path.dirname(os.path.abspath(__file__))
saved_path, saved = list(sys.path), sys.modules.pop("sitecustomize", None)
sys.path[:] = [p for p in sys.path if os.path.abspath(p) != here]
try:
    import sitecustomize
except ImportError:
    pass
finally:
    sys.path[:] = saved_path
    if saved is not None:
        sys.modules["sitecustomize"] = saved
"""


@pytest.mark.parametrize("order", ["ours a b", "a ours b", "a b ours", "ours b a"])
@pytest.mark.parametrize("chaining", [True, False], ids=["chaining", "plain"])
def test_other_sitecustomize_files_run_once_in_any_order(write: Write, order: str, chaining: bool, vllm: Path) -> None:
    """`a` may chain as tracers do. Where a plain one comes before ours, Python itself never runs ours."""
    folders = {
        "ours": environment.ROOT,
        "a": write({"sitecustomize.py": (CHAINING if chaining else PLAIN).format(name="a")}, "a"),
        "b": write({"sitecustomize.py": PLAIN.format(name="b")}, "b"),
    }
    code = "import sys; print('armed' if 'profilemate.boot' in sys.modules else 'not armed', 'sitecustomize' in sys.modules)"
    lines = python("-c", code, path=[folders[name] for name in order.split()]).stdout.splitlines()
    reached = order.startswith("ours") or (chaining and order == "a ours b")
    if reached:
        assert sorted(lines[:-1]) == ["a", "b"] and lines[-1] == "armed True"
    else:
        assert lines[-1] == "not armed True"


def test_a_broken_sitecustomize_is_told_as_python_tells_it(write: Write) -> None:
    broken = write({"sitecustomize.py": "raise ValueError('theirs')"}, "broken")
    ours = python("-c", "print(1)", path=[environment.ROOT, broken])
    alone = python("-c", "print(1)", path=[broken])
    assert (ours.stdout, ours.stderr) == (alone.stdout, alone.stderr) == ("1\n", alone.stderr)
    assert "ValueError: theirs" in ours.stderr
