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
def replacing(path: Path, is_asked_for: bool = False) -> Iterator[TextIO]:
    """A text file that takes the place of `path` when the block ends well; it is removed when it does not.

    A session's files are its user's alone. What a user asks for by name has the rights that any program's output has, and
    goes into a device or a pipe of that name.
    """
    if is_asked_for and path.exists() and not path.is_file():
        with open(path, "w", encoding="utf-8", newline="\n") as file:
            yield file
        return
    temporary = path.with_name(f".{path.name}.{os.getpid()}.new")
    temporary.unlink(missing_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    mode = 0o666 if is_asked_for else 0o600
    try:
        with os.fdopen(os.open(temporary, flags, mode), "w", encoding="utf-8", newline="\n") as file:
            yield file
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_asked_for(path: Path, content: bytes) -> None:
    """Write what a user asked for by name, in one step. Raises OSError."""
    with replacing(path, is_asked_for=True) as file:
        file.buffer.write(content)


def remove_left_overs(folder: Path) -> None:
    """Remove temporary files of exports that were killed."""
    for path in folder.iterdir():
        match = _LEFT_OVER.fullmatch(path.name)
        if match and not os.path.exists(f"/proc/{match[1]}"):
            path.unlink(missing_ok=True)
