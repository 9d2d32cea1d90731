"""Which Python a command's script starts, and with which options: read from its first lines, nothing is run."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path

FIRST_BYTES = 2048
EXEC_TRICK = "'''exec' "
"""How pip writes the first line where the interpreter's path is too long or has a space: a shell that replaces itself."""


def script_interpreter(script: str | Path, search_path: str | None = None) -> list[str]:
    """The interpreter and its options in the first lines of a script; empty where it is no Python script.

    `search_path` is the PATH for `#!/usr/bin/env python3`.
    """
    try:
        with open(script, "rb") as file:
            lines = file.read(FIRST_BYTES).decode(errors="replace").splitlines()
    except OSError:
        return []
    if not lines or not lines[0].startswith("#!"):
        return []
    words = _split(lines[0][2:])
    if len(lines) > 1 and lines[1].startswith(EXEC_TRICK):
        words = [word for word in _split(lines[1][len(EXEC_TRICK) :]) if word not in ("$0", "$@")]
    if words and Path(words[0]).name == "env":
        words = [word for word in words[1:] if word != "-S"]
        words[:1] = [shutil.which(words[0], path=search_path) or words[0]] if words else []
    return words if words and "python" in Path(words[0]).name else []


def _split(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError:
        return text.split()


def ignores_python_path(options: list[str]) -> bool:
    """Whether options of a Python make it ignore PYTHONPATH (-E, -I) or run no sitecustomize at all (-S)."""
    short = "".join(option[1:] for option in options if option.startswith("-") and not option.startswith("--"))
    return bool({"E", "I", "S"} & set(short))


def environment_of(interpreter: str) -> Path:
    """The folder of an interpreter's environment: the virtual environment of .../bin/python, links of folders resolved."""
    return Path(interpreter).parent.resolve().parent
