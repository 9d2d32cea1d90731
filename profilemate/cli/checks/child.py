"""What a fresh interpreter says when it is asked."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping

START_TIMEOUT_SECONDS = 60


def ask_child(code: str, environ: Mapping[str, str], *options: str) -> dict[str, object] | None:
    """What a fresh interpreter with this environment says; None if it does not answer."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            done = subprocess.run(
                [sys.executable, *options, "-c", code],
                env=dict(environ),
                cwd=folder,
                capture_output=True,
                timeout=START_TIMEOUT_SECONDS,
                check=False,
            )
            return dict(json.loads(done.stdout.decode(errors="replace").strip().splitlines()[-1]))
        except (OSError, ValueError, IndexError, subprocess.TimeoutExpired):
            return None


def as_list(value: object) -> list[object]:
    """A part of an answer that ought to be a list; an empty one where it is none."""
    return value if isinstance(value, list) else []
