"""The directions of imports, the names at the root, and that the half inside the server needs the standard library alone."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import environment
import pytest

from profilemate.trackers import BY_NAME, NAMES

PACKAGE = environment.ROOT / "profilemate"
IN_SERVER = ("boot.py", "plugin.py", "probe/*.py", "schema/*.py", "trackers/__init__.py")
IN_TRACKERS = ("__init__.py", "events.py", "hooks.py")
OFFLINE = {"session", "export", "cli", "report", "advise", "frames", "figures", "compare", "sessions"}


def imports(path: Path) -> set[str]:
    """Every module that a file imports, wherever in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def in_server_files() -> list[Path]:
    """What may be loaded inside vLLM: the trackers' hooks and what they import of their own folder."""
    files = [path for pattern in IN_SERVER for path in PACKAGE.glob(pattern)]
    for tracker in NAMES:
        todo = [PACKAGE / "trackers" / tracker / name for name in IN_TRACKERS]
        while todo:
            path = todo.pop()
            files.append(path)
            for name in imports(path):
                parts = name.split(".")
                if parts[:3] == ["profilemate", "trackers", tracker]:
                    candidates = [PACKAGE.joinpath(*parts[1:n]).with_suffix(".py") for n in (4, 5)]
                    todo += [c for c in candidates if c.exists() and c not in files and c not in todo]
    return sorted(set(files))


@pytest.mark.parametrize("path", in_server_files(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_the_half_inside_the_server_imports_the_standard_library_alone(path: Path) -> None:
    top = {name.split(".")[0] for name in imports(path)}
    assert top <= set(sys.stdlib_module_names) | {"profilemate", "__future__"}
    offline = {name for name in imports(path) if name.startswith("profilemate.") and name.split(".")[1] in OFFLINE}
    assert offline == set()
    assert not {"threading", "signal", "logging"} & top


@pytest.mark.parametrize("folder", ["session", "export", "cli", "cli/checks", "frames", "sessions", "sessions/merge"])
def test_the_offline_half_needs_no_package_at_import(folder: str) -> None:
    """Third-party packages are imported inside the command that needs them."""
    for path in (PACKAGE / folder).glob("*.py"):
        top_level = ast.parse(path.read_text()).body
        for node in top_level:
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                name = node.names[0].name if isinstance(node, ast.Import) else str(node.module)
                assert name.split(".")[0] in set(sys.stdlib_module_names) | {"profilemate", "__future__"}, path


def test_the_session_reader_does_not_know_the_probe() -> None:
    for folder in ("session", "export"):
        for path in (PACKAGE / folder).glob("*.py"):
            assert not any(name.startswith(("profilemate.probe", "profilemate.boot")) for name in imports(path)), path


def test_two_names_are_importable_at_the_root() -> None:
    root = environment.ROOT
    packages = {path.parent.name for path in root.glob("*/__init__.py")}
    modules = {path.stem for path in root.glob("*.py")}
    assert packages | modules == {"profilemate", "sitecustomize"}


def test_the_version_file_does_nothing_else() -> None:
    body = ast.parse((PACKAGE / "__init__.py").read_text()).body
    assert [type(node) for node in body] == [ast.Expr, ast.Assign, ast.FunctionDef]


def test_every_tracker_is_complete() -> None:
    for tracker in NAMES:
        folder = PACKAGE / "trackers" / tracker
        needed = {"events.py", "hooks.py", "analyze.py", "view.py"}
        assert {name for name in needed if (folder / name).exists()} == needed
        assert BY_NAME[tracker].switch in (environment.ROOT / "sitecustomize.py").read_text()


def test_hook_names_are_unique() -> None:
    code = (
        "from profilemate.probe.fit import all_hooks\n"
        "names = [hook.name for hook in all_hooks()]\n"
        "assert len(names) == len(set(names)), names\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=environment.ROOT, env=environment.clean(), capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
