"""What every command owes its user: help with an example, a sentence for bad input, the one pip line for what is missing."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import environment
import pytest

from profilemate.cli.main import COMMANDS

GOLDEN = environment.ROOT / "tests" / "golden" / "sessions" / "server"
ON_A_SESSION = {
    "report": ("{session}", "-o", "{folder}/page.html"),
    "advise": ("{session}",),
    "compare": ("{session}", "{session}"),
    "plot": ("{session}", "--what", "kv_usage", "-o", "{folder}/kv.png"),
    "fleet": ("export", "{session}", "-o", "{folder}/fleet"),
    "list": ("{folder}",),
    "show": ("{session}",),
    "prune": ("{folder}", "--keep", "1"),
    "export": ("{session}",),
    "summary": ("{session}",),
}
"""What a command is asked for; those that need no session are `run`, `doctor` and `merge`, which needs two."""

WITHOUT_PACKAGES = {"export", "summary"}
"""They run where servers run, with the standard library alone."""

EXTRA = {"fleet": "fleet"}
"""Of the package, where it is not `report`."""

PACKAGES = ("altair", "duckdb", "ibis", "jinja2", "pandas", "polars", "pyarrow", "rich", "scipy", "vl_convert", "numpy")
BARE = f"""
import sys
sys.modules.update(dict.fromkeys({PACKAGES!r}))
from profilemate.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


def run(*arguments: str, bare: bool = False) -> subprocess.CompletedProcess[str]:
    start = ["-c", BARE] if bare else ["-m", "profilemate"]
    return subprocess.run(
        [sys.executable, *start, *arguments], cwd=environment.ROOT, env=environment.clean(), capture_output=True, text=True,
        timeout=environment.HANGS_SECONDS, check=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one session."""
    made = tmp_path_factory.mktemp("commands")
    shutil.copytree(GOLDEN, made / "session_20260101_000000")
    return made


def arguments_of(command: str, folder: Path, session: Path) -> list[str]:
    return [word.format(session=session, folder=folder) for word in ON_A_SESSION[command]]


def test_all_commands_are_there() -> None:
    assert all(command.is_there for command in COMMANDS)
    assert {command.name for command in COMMANDS} == set(ON_A_SESSION) | {"run", "doctor", "merge"}


@pytest.mark.parametrize("command", [command.name for command in COMMANDS])
def test_help_has_an_example_and_needs_no_package(command: str) -> None:
    done = run(command, "--help", bare=True)
    assert done.returncode == 0, done.stderr
    assert "example" in done.stdout and f"profilemate {command}" in done.stdout


@pytest.mark.parametrize("command", sorted(ON_A_SESSION))
def test_a_session_that_is_not_there_is_one_sentence(command: str, tmp_path: Path) -> None:
    done = run(command, *arguments_of(command, tmp_path / "nowhere", tmp_path / "nowhere"))
    assert done.returncode == 2
    assert "Traceback" not in done.stderr and "nowhere" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr


@pytest.mark.parametrize("command", sorted(ON_A_SESSION))
def test_without_the_packages_a_command_says_the_one_line_that_it_needs(command: str, folder: Path) -> None:
    done = run(command, *arguments_of(command, folder, folder / "session_20260101_000000"), bare=True)
    if command in WITHOUT_PACKAGES:
        assert done.returncode == 0, done.stderr
    else:
        assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
        assert f"pip install 'profilemate[{EXTRA.get(command, 'report')}]'" in done.stderr
