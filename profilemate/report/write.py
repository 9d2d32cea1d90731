"""Where the page goes, and putting it there in one step."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from profilemate.export.atomic import replacing

FILE = "report.html"


def default_output(session: Path) -> Path:
    """Beside the session's files; in the current folder, under the session's name, where those cannot be written."""
    return session / FILE if is_writable(session) else Path.cwd() / f"{session.name}-{FILE}"


def is_writable(folder: Path) -> bool:
    """Whether a file can be made there: `os.access` is true for root on a read-only file system."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def write(path: Path, html: str, is_asked_for: bool = False) -> int:
    """Replace the file, one that the user named or the session's own; returns its size in bytes. Raises OSError."""
    with replacing(path, is_asked_for) as file:
        file.write(html)
    return os.stat(path).st_size
