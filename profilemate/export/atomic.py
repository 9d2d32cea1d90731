"""Writing a file in one step: readers see the old one or the new one, never a part."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

_LEFT_OVER = re.compile(r"\..+\.(\d+)\.new")


@contextmanager
def replacing(path: Path) -> Iterator[TextIO]:
    """A text file that takes the place of `path` when the block ends well; it is removed when it does not."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.new")
    temporary.unlink(missing_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        with os.fdopen(os.open(temporary, flags, 0o600), "w", encoding="utf-8", newline="\n") as file:
            yield file
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def remove_left_overs(folder: Path) -> None:
    """Remove temporary files of exports that were killed."""
    for path in folder.iterdir():
        match = _LEFT_OVER.fullmatch(path.name)
        if match and not os.path.exists(f"/proc/{match[1]}"):
            path.unlink(missing_ok=True)
