"""A script in a fork of a warm process is as in a Python of its own, but for what is imported already."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import environment
import pytest
import warm

Run = Callable[..., "subprocess.CompletedProcess[str]"]

SCRIPT = """
import os, sys
assert "decimal" in sys.modules
print(sys.argv[1:], os.environ.get("COLOUR"), os.getcwd(), sys.path[0], __name__)
print("told by", getattr(sys.modules.get("sitecustomize"), "WHO", "nobody"), file=sys.stderr)
exec(sys.argv[1])
"""


@pytest.fixture(scope="module")
def process() -> Iterator[warm.WarmProcess]:
    """One that has imported a small module."""
    begun = warm.WarmProcess(environment.clean(), ["decimal"])
    yield begun
    begun.end()


@pytest.fixture
def run(process: warm.WarmProcess, tmp_path: Path) -> Run:
    (tmp_path / "script.py").write_text(SCRIPT)
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text("WHO = 'sitecustomize'")

    def run_script(code: str, timeout: float = 60, **more: str) -> subprocess.CompletedProcess[str]:
        command = [str(tmp_path / "script.py"), code]
        return process.run(command, environment.clean() | more, tmp_path / "site", timeout)

    return run_script


def test_it_has_its_arguments_variables_folder_and_path(run: Run, tmp_path: Path) -> None:
    done = run("pass", COLOUR="blue")
    assert done.stdout == f"['pass'] blue {tmp_path / 'site'} {tmp_path} __main__\n"
    assert (done.returncode, done.stderr) == (0, "told by nobody\n")
    assert " None " in run("pass").stdout  # nothing is left of the run before


def test_sitecustomize_runs_where_the_path_has_one(run: Run, tmp_path: Path) -> None:
    assert run("pass", PYTHONPATH=str(tmp_path / "site")).stderr == "told by sitecustomize\n"
    assert run("pass").stderr == "told by nobody\n"


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("sys.exit(3)", 3),
        ("1 / 0", 1),
        ("os._exit(7)", 7),
        ("import atexit; atexit.register(os.write, 1, b'goodbye')", 0),
        ("os.kill(os.getpid(), 9)", -signal.SIGKILL),
    ],
)
def test_it_ends_as_it_would_alone(run: Run, code: str, status: int) -> None:
    done = run(code)
    assert done.returncode == status
    assert ("ZeroDivisionError" in done.stderr) == (code == "1 / 0")
    assert ("goodbye" in done.stdout) == ("goodbye" in code)


def test_one_that_hangs_is_killed_and_the_next_one_runs(run: Run) -> None:
    with pytest.raises(subprocess.TimeoutExpired):
        run("import time; time.sleep(600)", timeout=1)
    assert run("pass").returncode == 0
