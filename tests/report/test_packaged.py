"""The package as pip installs it has what the page is made of."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import environment

FILES = ("templates/*.html", "static/*.css", "static/*.js")


def made_of(root: Path) -> set[str]:
    """Templates, style and scripts below a package folder."""
    report = root / "profilemate" / "report"
    return {str(path.relative_to(report)) for pattern in FILES for path in report.glob(pattern)}


def test_templates_style_and_scripts_are_installed(tmp_path: Path) -> None:
    ignored = shutil.ignore_patterns(".git", ".venv", ".cache", "__pycache__", "*.egg-info", "build", "golden")
    shutil.copytree(environment.ROOT, tmp_path / "source", ignore=ignored)
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "--target"]
    done = subprocess.run(
        [*command, str(tmp_path / "installed"), str(tmp_path / "source")],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert made_of(tmp_path / "installed") == made_of(environment.ROOT)
    assert {"templates/page.html", "static/page.css", "static/figures.js"} <= made_of(environment.ROOT)
