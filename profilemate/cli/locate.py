"""Where ProfileMate lies, and what a child process needs on its path to be profiled."""

from __future__ import annotations

import os
import sys
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]


def injection_folder() -> Path:
    """The folder with our sitecustomize.py: the root of a checkout, where users edit it, or the packaged one."""
    root = PACKAGE.parent
    file = root / "sitecustomize.py"
    if file.is_file() and "profilemate.boot" in file.read_text(errors="replace"):
        return root
    return PACKAGE / "inject"


def with_folder_first(python_path: str | None, folder: Path) -> str:
    """A PYTHONPATH with a folder in front; empty entries, which mean the current folder, stay where they are."""
    return str(folder) if not python_path else f"{folder}{os.pathsep}{python_path}"


def own_command(*arguments: str) -> tuple[list[str], dict[str, str]]:
    """Command and environment that run this very ProfileMate in a process of its own, unprofiled."""
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE.parent), "PROFILEMATE_ENABLE": "0"}
    return [sys.executable, "-m", "profilemate", *arguments], environment
