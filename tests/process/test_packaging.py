"""The package as pip installs it: what is in it, and that `profilemate run` works from there for any Python."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import environment
import pytest
import streams
from pretend_vllm import SERVE

FILES = {"metadata.json", "cuda_graph_usage.csv", "kv_cache_usage.csv", "kv_cache_summary.txt"}
VERSIONS = ("3.10", "3.11", "3.12", "3.13", "3.14")


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy of the tree into a folder of its own, with a space and more in its name."""
    source = tmp_path_factory.mktemp("source") / "profilemate"
    ignored = shutil.ignore_patterns(".git", ".venv", ".cache", "__pycache__", "*.egg-info", "build")
    shutil.copytree(environment.ROOT, source, ignore=ignored)
    target = tmp_path_factory.mktemp("installed") / "with späce"
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "-q",
        "--no-deps",
        "--no-build-isolation",
        "--target",
        str(target),
    ]
    done = subprocess.run(
        [*command, str(source)], capture_output=True, text=True, timeout=environment.HANGS_SECONDS, check=False
    )
    assert done.returncode == 0, done.stderr
    return target


def other_pythons() -> list[str]:
    """Interpreters of this machine that do not have ProfileMate installed, this one's base among them."""
    found = {os.path.realpath(sys.executable)}
    folders = Path.home() / ".pyenv" / "versions"
    for version in VERSIONS:
        found |= {str(path) for path in folders.glob(f"{version}.*/bin/python{version}")}
        found |= {path for path in [shutil.which(f"python{version}")] if path}
    return sorted(path for path in found if is_bare(path))


def is_bare(python: str) -> bool:
    """Whether it starts, and has no ProfileMate of its own."""
    code = "import importlib.util, sys; sys.exit(importlib.util.find_spec('profilemate') is not None)"
    done = subprocess.run([python, "-c", code], env=environment.clean(), cwd="/", capture_output=True, check=False)
    return done.returncode == 0


def run_installed(installed: Path, arguments: list[str], **variables: str) -> subprocess.CompletedProcess[str]:
    """`profilemate run` of the installed package, which only this process has on its path."""
    code = (
        f"import sys; sys.path.insert(0, {str(installed)!r}); from profilemate.cli.main import main; sys.exit(main())"
    )
    return subprocess.run(
        [sys.executable, "-c", code, "run", *arguments],
        env=environment.clean() | variables, cwd="/",
        capture_output=True, text=True, timeout=environment.HANGS_SECONDS, check=False,
    )  # fmt: skip


def test_nothing_but_the_package_is_at_the_top(installed: Path) -> None:
    top = {path.name for path in installed.iterdir() if not path.name.endswith(".dist-info")} - {"bin"}
    assert top == {"profilemate"}


def test_every_source_file_of_the_package_is_there(installed: Path) -> None:
    def sources(root: Path) -> set[str]:
        return {str(path.relative_to(root)) for path in root.rglob("*.py")}

    assert sources(installed / "profilemate") == sources(environment.ROOT / "profilemate")
    assert "inject/sitecustomize.py" in sources(installed / "profilemate")


def test_the_entry_points_are_there_and_nothing_is_required(installed: Path) -> None:
    (folder,) = installed.glob("profilemate-*.dist-info")
    text = (folder / "entry_points.txt").read_text()
    assert "[vllm.general_plugins]\nprofilemate = profilemate.plugin:register" in text
    assert "[console_scripts]\nprofilemate = profilemate.cli.main:main" in text
    metadata = (folder / "METADATA").read_text()
    required = [line for line in metadata.splitlines() if line.startswith("Requires-Dist") and "extra ==" not in line]
    assert required == [] and "Requires-Python: >=3.10" in metadata


@pytest.mark.parametrize("python", other_pythons())
def test_the_command_may_be_a_python_without_profilemate(
    tmp_path: Path, installed: Path, vllm: Path, python: str
) -> None:
    """It gets the inject folder and nothing else of the folder that ProfileMate is installed in."""
    (installed / "a_neighbour.py").touch()
    code = (
        f"{SERVE}; import importlib.util, profilemate, sys; print(profilemate.__file__); "
        "print([p for p in sys.path if p.startswith(sys.argv[1])]); print(importlib.util.find_spec('a_neighbour'))"
    )
    done = run_installed(
        installed, ["--dir", str(tmp_path / "p"), "--", python, "-c", code, str(installed)], PYTHONPATH=str(vllm)
    )
    (installed / "a_neighbour.py").unlink()
    assert done.returncode == 0, done.stderr
    package = installed / "profilemate"
    assert done.stdout.splitlines() == [str(package / "__init__.py"), str([str(package / "inject")]), "None"]
    session = streams.only_session(tmp_path / "p")
    assert {path.name for path in session.iterdir()} >= FILES
    assert len(streams.all_rows(session, "engine_steps")) == 4


@pytest.mark.parametrize("before", [None, "", "/a:", ":/a"])
def test_odd_python_paths(tmp_path: Path, installed: Path, before: str | None) -> None:
    variables = {} if before is None else {"PYTHONPATH": before}
    code = "import os; print(ascii(os.environ['PYTHONPATH']))"
    done = run_installed(installed, ["--dir", str(tmp_path), "--", sys.executable, "-c", code], **variables)
    inject = str(installed / "profilemate" / "inject")
    assert done.stdout.strip() == ascii(f"{inject}:{before}" if before else inject), done.stderr


def test_the_installed_sitecustomize_runs_the_next_one(tmp_path: Path, installed: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "sitecustomize.py").write_text("print('theirs')")
    command = ["--dir", str(tmp_path / "p"), "--", sys.executable, "-c", "print('command')"]
    done = run_installed(installed, command, PYTHONPATH=str(tmp_path / "other"))
    assert done.stdout.splitlines()[-2:] == ["theirs", "command"], (done.stdout, done.stderr)
