"""`make test`: what fails beside others gets one more try alone, and nothing else does."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import environment

SUITE = environment.ROOT / "tests" / "run_suite.py"
ONCE = """
from pathlib import Path

def test_once():
    mark = Path('{mark}')
    seen = mark.exists()
    mark.touch()
    assert seen
"""
RIGHT, WRONG = "def test_right():\n    pass\n", "def test_wrong():\n    assert 1 == 2\n"


def run(folder: Path, files: dict[str, str]) -> subprocess.CompletedProcess[str]:
    (folder / "pytest.ini").write_text("[pytest]\n")
    for name, text in files.items():
        (folder / f"test_{name}.py").write_text(text.replace("{mark}", str(folder / f"mark_{name}")))
    return subprocess.run(
        [sys.executable, str(SUITE), "-q"],
        cwd=folder,
        env=environment.clean(),
        capture_output=True,
        text=True,
        timeout=environment.HANGS_SECONDS,
        check=False,
    )


def test_a_suite_without_failures_runs_once(tmp_path: Path) -> None:
    done = run(tmp_path, {"right": RIGHT})
    assert done.returncode == 0 and "alone" not in done.stdout


def test_what_passes_alone_passes_and_is_named_last(tmp_path: Path) -> None:
    done = run(tmp_path, {"right": RIGHT, "once": ONCE})
    assert done.returncode == 0, done.stdout
    assert done.stdout.endswith("\nPassed only alone, which is to be mended:\n  test_once.py::test_once\n")


def test_what_fails_alone_too_fails_the_run_and_is_told_apart(tmp_path: Path) -> None:
    done = run(tmp_path, {"right": RIGHT, "once": ONCE, "wrong": WRONG})
    assert done.returncode == 1
    passed_alone, failed_twice = done.stdout.rsplit("Passed only alone", 1)[1].split("Failed both times:")
    assert "test_once" in passed_alone and "test_wrong" not in passed_alone
    assert failed_twice.split() == ["test_wrong.py::test_wrong"]


def test_many_failures_are_not_the_machines(tmp_path: Path) -> None:
    done = run(tmp_path, {f"once_{number}": ONCE for number in range(5)})
    assert done.returncode == 1 and "alone" not in done.stdout


def test_a_file_that_cannot_be_loaded_fails_the_run(tmp_path: Path) -> None:
    assert run(tmp_path, {"right": RIGHT, "broken": "import nothing_of_this_name\n"}).returncode != 0


def test_failures_of_an_earlier_run_are_forgotten(tmp_path: Path) -> None:
    assert run(tmp_path, {"wrong": WRONG}).returncode == 1
    (tmp_path / "test_wrong.py").unlink()
    done = run(tmp_path, {"once": ONCE})
    assert done.returncode == 0 and "test_wrong" not in done.stdout
