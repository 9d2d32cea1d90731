"""Odd places to run in: paths with umlauts and spaces, locales without them, folders that cannot be written, closed stderr."""

from __future__ import annotations

import compileall
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import environment
import pytest
import streams
from pretend_vllm import PRETEND_VLLM, SERVE, Write
from small_disk import small_disk

ODD = "größe mit Leerzeichen 日本"
LOCALES = {
    "as-it-is": {},
    "C": {"LC_ALL": "C"},
    "ascii": {"LC_ALL": "POSIX", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
}


def run(
    code: str, path: list[Path | str], directory: Path, *prefix: str, options: tuple[str, ...] = (), **more: str
) -> subprocess.CompletedProcess[bytes]:
    """A program under ProfileMate."""
    env = environment.clean() | {
        "PYTHONPATH": os.pathsep.join(map(str, path)),
        "PROFILEMATE_DIR": str(directory),
        **more,
    }
    command = [*prefix, sys.executable, *options, "-c", code]
    return subprocess.run(command, env=env, capture_output=True, timeout=environment.HANGS_SECONDS, check=False)


def steps(directory: Path) -> int:
    """Engine steps in the one session."""
    return len(streams.all_rows(streams.only_session(directory), "engine_steps"))


@pytest.mark.parametrize("locale", LOCALES)
def test_umlauts_and_spaces_in_every_path(tmp_path: Path, checkout: Path, vllm: Path, locale: str) -> None:
    """The checkout, vLLM and the folder of the sessions; recorded, exported and summed up under each locale."""
    root, pretend, directory = (tmp_path / f"{ODD} {name}" for name in ("root", "vllm", "sessions"))
    checkout.rename(root)
    vllm.rename(pretend)
    more = LOCALES[locale]
    done = run(SERVE, [root, pretend], directory, **more)
    assert done.returncode == 0 and done.stdout == b"" and done.stderr.count(b"\n") == 1, done.stderr
    assert steps(directory) == 4
    session = streams.only_session(directory)
    for command in ("export", "summary"):
        env = environment.clean() | more
        done = subprocess.run(
            [sys.executable, "-m", "profilemate", command, str(session)],
            env=env, cwd=root, capture_output=True, timeout=environment.HANGS_SECONDS, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert os.fsencode(session) in done.stdout
    assert streams.missing_files(session) == []


@pytest.mark.parametrize("locale", LOCALES)
def test_run_and_doctor_in_odd_places(tmp_path: Path, checkout: Path, vllm: Path, locale: str) -> None:
    root, directory = tmp_path / ODD, tmp_path / f"{ODD} sessions"
    checkout.rename(root)
    env = environment.clean() | {"PYTHONPATH": str(vllm), **LOCALES[locale]}
    command = [sys.executable, "-m", "profilemate", "run", "--dir", str(directory), "--", sys.executable, "-c", SERVE]
    done = subprocess.run(
        command, env=env, cwd=root, capture_output=True, timeout=environment.HANGS_SECONDS, check=False
    )
    assert done.returncode == 0 and b"peak 3 of 10 blocks" in done.stderr, done.stderr
    assert streams.missing_files(streams.only_session(directory)) == []
    env |= {"PYTHONPATH": f"{root}:{vllm}", "PROFILEMATE_DIR": str(directory)}
    code = """if True:
        import os
        from profilemate.cli.checks import folder, start
        for check in (start.our_sitecustomize_runs, folder.folder_can_be_written):
            print(*(found.status for found in check(os.environ)))
    """
    command = [sys.executable, "-c", code]
    done = subprocess.run(
        command, env=env, cwd=root, capture_output=True, timeout=environment.HANGS_SECONDS, check=False
    )
    assert done.stdout.split() == [b"ok", b"ok"], done


def test_a_checkout_and_a_folder_that_cannot_be_written(tmp_path: Path, checkout: Path, vllm: Path) -> None:
    """A disk mounted read-only holds both: no byte code is written, nothing is recorded, one line says why."""
    with small_disk(tmp_path / "disk", "size=64m") as disk:
        shutil.copytree(checkout, disk.seen / "root")
        shutil.copytree(vllm, disk.seen / "vllm")
        (disk.seen / "sessions").mkdir()
        disk.remount("ro")
        path: list[Path | str] = [disk.path / "root", disk.path / "vllm"]
        code = SERVE + "; print('served')"
        done = run(code, path, disk.path / "sessions", *disk.prefix)
        assert (done.returncode, done.stdout) == (0, b"served\n"), done.stderr
        assert done.stderr.count(b"\n") == 1 and b"sessions cannot be written" in done.stderr
        assert list(disk.seen.rglob("__pycache__")) == []
        done = run(code, path, tmp_path / "elsewhere", *disk.prefix)
        assert (done.returncode, done.stdout) == (0, b"served\n"), done.stderr
        assert steps(tmp_path / "elsewhere") == 4
        assert list(disk.seen.rglob("__pycache__")) == []


def test_byte_code_that_is_read_only_stale_or_broken(tmp_path: Path, checkout: Path, vllm: Path) -> None:
    """Files of another time or with garbage in them, and none of them can be replaced."""
    assert compileall.compile_dir(checkout / "profilemate", quiet=1)
    names = {path: Path(importlib.util.cache_from_source(str(path))) for path in checkout.rglob("*.py")}
    broken = [checkout / "profilemate" / name for name in ("boot.py", "probe/writer.py")]
    for source in broken:
        names[source].write_bytes(b"\x00garbage")
    stale = checkout / "profilemate" / "probe" / "stream.py"
    os.utime(stale, (1, 1))
    with small_disk(tmp_path / "disk", "size=64m") as disk:
        shutil.copytree(checkout, disk.seen / "root")
        disk.remount("ro")
        done = run(SERVE, [disk.path / "root", vllm], tmp_path / "p", *disk.prefix)
        assert done.returncode == 0 and done.stderr.count(b"\n") == 1, done.stderr
    assert steps(tmp_path / "p") == 4


CLOSED = """
import os, sys
for number in {closed}:
    try:
        os.close(number)
    except OSError:
        pass
os.execv(sys.executable, [sys.executable, "-c", {code!r}])
"""
C_CODE_THAT_PRINTS = """
import os
import vllm.engine.arg_utils as a, vllm.v1.core.sched.scheduler as s
a.EngineArgs()
scheduler = s.Scheduler()
for _ in range(50):
    scheduler.update_from_output(scheduler.schedule(), None)
    for number in (1, 2):
        try:
            os.write(number, b"printed by a library")
        except OSError:
            pass
"""


@pytest.mark.parametrize("closed", [[2], [1, 2], [0, 1, 2]], ids=["stderr", "output", "all"])
def test_closed_standard_streams(tmp_path: Path, vllm: Path, closed: list[int]) -> None:
    """Their numbers are the next ones that are free; nothing that is printed may end among our rows."""
    done = run(CLOSED.format(closed=closed, code=C_CODE_THAT_PRINTS), [environment.ROOT, vllm], tmp_path / "p")
    assert done.returncode == 0
    session = streams.only_session(tmp_path / "p")
    assert [int(row["step"]) for row in streams.all_rows(session, "engine_steps")] == list(range(1, 51))
    assert not any(b"printed" in path.read_bytes() for path in session.rglob("*.csv"))


def test_a_broken_checkout_and_a_closed_stderr(tmp_path: Path, checkout: Path) -> None:
    """There is nobody to tell, and Python itself would not start if a sitecustomize raised."""
    (checkout / "profilemate" / "boot.py").write_text("raise ValueError('broken')")
    for folder in (checkout, checkout / "profilemate" / "inject"):
        done = run(CLOSED.format(closed=[2], code="print('served')"), [folder], tmp_path / "p")
        assert (done.returncode, done.stdout) == (0, b"served\n")


@pytest.mark.parametrize("target", ["a full pipe that nobody reads", "a closed pipe", "a full disk"])
def test_a_stderr_that_takes_nothing(tmp_path: Path, vllm: Path, target: str) -> None:
    env = environment.clean() | {"PYTHONPATH": f"{environment.ROOT}:{vllm}", "PROFILEMATE_DIR": str(tmp_path / "p")}
    reading, writing = os.pipe()
    if target == "a closed pipe":
        os.close(reading)
    elif target == "a full disk":
        os.close(writing)
        writing = os.open("/dev/full", os.O_WRONLY)
    else:
        os.set_blocking(writing, False)
        while True:
            try:
                os.write(writing, b"x" * 4096)
            except BlockingIOError:
                break
    command = [sys.executable, "-c", SERVE]
    done = subprocess.run(
        command, env=env, stdout=subprocess.PIPE, stderr=writing, timeout=environment.HANGS_SECONDS, check=False
    )
    os.close(writing)
    assert done.stdout == b"" and steps(tmp_path / "p") == 4
    assert done.returncode in (0, 120)  # 120: Python itself could not flush what we left in sys.stderr


# -- other sitecustomize files ------------------------------------------------------------------------------------------

ENDS = {
    "SystemExit": "raise SystemExit(7)",
    "KeyboardInterrupt": "raise KeyboardInterrupt",
    "os._exit": "import os; os._exit(7)",
    "error": "raise RuntimeError('theirs')",
    "syntax": "this is not Python",
    "missing": "import no_such_module",
    "its own exit": "import sys; sys.exit('told')",
}


@pytest.mark.parametrize("end", ENDS)
def test_another_sitecustomize_ends_the_interpreter_as_it_would_without_us(
    tmp_path: Path, vllm: Path, write: Write, end: str
) -> None:
    other = write({"sitecustomize.py": ENDS[end]}, "other")
    code = SERVE + "; print('served')"
    alone = run(code, [other, vllm], tmp_path / "none")
    behind = run(code, [environment.ROOT, other, vllm], tmp_path / "p")
    assert (behind.returncode, behind.stdout) == (alone.returncode, alone.stdout)
    theirs = alone.stderr.decode().splitlines()[-1:]
    assert behind.stderr.decode().splitlines()[-2 if alone.stdout else -1 :][:1] == theirs
    assert bool(list((tmp_path / "p").glob("session_*"))) == bool(alone.stdout)


def test_a_sitecustomize_that_changes_the_path_while_we_chain(tmp_path: Path, vllm: Path, write: Write) -> None:
    third = write({"sitecustomize.py": "import sys; sys.stdout.write('third ')"}, "third")
    second = write(
        {"sitecustomize.py": f"import sys; sys.path.insert(0, {str(third)!r}); sys.modules.pop('sitecustomize', None)"},
        "second",
    )
    done = run(SERVE + "; print('served')", [environment.ROOT, second, vllm], tmp_path / "p")
    assert done.returncode == 0 and done.stdout.endswith(b"served\n"), done.stderr
    assert steps(tmp_path / "p") == 4


@pytest.mark.parametrize("entry", ["", ":", "::", ":/nonexistent:", "/dev/null", "{file}", "\x01"])
def test_python_paths_that_name_nothing(tmp_path: Path, vllm: Path, entry: str) -> None:
    (tmp_path / "file").write_text("")
    path = f"{environment.ROOT}:{entry.format(file=tmp_path / 'file')}:{vllm}"
    done = run(SERVE + "; print('served')", [path], tmp_path / "p")
    assert (done.returncode, done.stdout, done.stderr.count(b"\n")) == (0, b"served\n", 1), done.stderr
    assert steps(tmp_path / "p") == 4


@pytest.mark.parametrize("flags", [["-I"], ["-E"], ["-S"]])
def test_interpreters_that_never_see_us_serve_all_the_same(tmp_path: Path, vllm: Path, flags: list[str]) -> None:
    code = f"import sys; sys.path.insert(0, {str(vllm)!r}); {SERVE}; print('served')"
    done = run(code, [environment.ROOT, vllm], tmp_path / "p", options=tuple(flags))
    assert (done.returncode, done.stdout, done.stderr) == (0, b"served\n", b"")
    assert not (tmp_path / "p").exists()


def test_resources_beside_a_hooked_module_can_be_read(tmp_path: Path, vllm: Path) -> None:
    (vllm / "vllm" / "v1" / "core" / "data.txt").write_text("a resource")
    code = (
        "import vllm.v1.core.block_pool, importlib.resources as r, pkgutil, inspect; "
        "print(r.files('vllm.v1.core').joinpath('data.txt').read_text(), pkgutil.get_data('vllm.v1.core', 'data.txt'), "
        "'class BlockPool' in inspect.getsource(vllm.v1.core.block_pool), "
        "'def touch' in inspect.getsource(vllm.v1.core.block_pool.BlockPool))"
    )
    done = run(code, [environment.ROOT, vllm], tmp_path / "p")
    assert done.stdout == b"a resource b'a resource' True True\n", done.stderr


def test_a_namespace_package_and_a_zip_on_the_path(tmp_path: Path, write: Write) -> None:
    """vLLM itself out of a zip file: the loader is another one, and is left as it is."""
    folder = write(PRETEND_VLLM, "zipped")
    archive = shutil.make_archive(str(tmp_path / "vllm"), "zip", folder)
    code = SERVE + "; import vllm.v1.core.block_pool as b; print(type(b.__loader__).__name__)"
    done = run(code, [environment.ROOT, archive], tmp_path / "p")
    assert (done.returncode, done.stdout) == (0, b"zipimporter\n"), done.stderr
    assert steps(tmp_path / "p") == 4
