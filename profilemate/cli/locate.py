"""Where ProfileMate lies, and what a child process needs on its path to be profiled."""

from __future__ import annotations

import ast
import os
import sys
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]
CONFIG_STATEMENTS = (ast.Import, ast.ImportFrom, ast.Assign, ast.AnnAssign, ast.ClassDef)


def injection_folder() -> Path:
    """The folder with our sitecustomize.py: the root of a checkout, where users edit it, or the packaged one."""
    root = PACKAGE.parent
    file = root / "sitecustomize.py"
    if file.is_file() and "profilemate.boot" in file.read_text(errors="replace"):
        return root
    return PACKAGE / "inject"


def profiling_config() -> object | None:
    """ProfilingConfig as the user edited it in a checkout's sitecustomize.py; None where there is none, or it fails.

    Only the file's imports, assignments and that class are run: its start of the probe is not for this process.
    """
    file = injection_folder() / "sitecustomize.py"
    try:
        tree = ast.parse(file.read_text())
        tree.body = [node for node in tree.body if isinstance(node, CONFIG_STATEMENTS)]
        space: dict[str, object] = {"__name__": "sitecustomize", "__file__": str(file)}
        exec(compile(tree, str(file), "exec"), space)
    except Exception:
        return None
    return space.get("ProfilingConfig")


def configured_directory() -> object:
    """ProfilingConfig.OUTPUT_DIR as the user edited it, or None."""
    return getattr(profiling_config(), "OUTPUT_DIR", None)


def with_folder_first(python_path: str | None, folder: Path) -> str:
    """A PYTHONPATH with a folder in front; empty entries, which mean the current folder, stay where they are."""
    return str(folder) if not python_path else f"{folder}{os.pathsep}{python_path}"


def own_command(*arguments: str) -> tuple[list[str], dict[str, str]]:
    """Command and environment that run this very ProfileMate in a process of its own, unprofiled."""
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE.parent), "PROFILEMATE_ENABLE": "0"}
    return [sys.executable, "-m", "profilemate", *arguments], environment
