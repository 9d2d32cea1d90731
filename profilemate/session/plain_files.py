"""Files of a session are opened for reading here: somebody may have put a link, a pipe or a folder in their place."""

from __future__ import annotations

import os
import stat
from pathlib import Path


class NotPlainError(OSError):
    """What lies there is no plain file."""


def open_plain(path: str | Path) -> int:
    """A descriptor of a plain file, never through a link and never waiting for a pipe. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        is_plain = stat.S_ISREG(os.fstat(descriptor).st_mode)
    except OSError:
        os.close(descriptor)
        raise
    if not is_plain:
        os.close(descriptor)
        raise NotPlainError(f"{path}: not a plain file")
    return descriptor
