"""Which session a command means: a path, or the latest one under the folder of the settings."""

from __future__ import annotations

import os
import re
from pathlib import Path

from profilemate.schema import names
from profilemate.session.errors import SessionError

DEFAULT_DIRECTORY = "/tmp/vllm_profiling"
LATEST = "latest"
_NAME = re.compile(re.escape(names.SESSION_PREFIX) + r"(\d{8}_\d{6})(?:_(\d{1,4}))?")


def sessions_in(directory: Path) -> list[Path]:
    """Session folders, oldest first by name; links are left out."""
    found = []
    try:
        with os.scandir(directory) as entries:
            for entry in entries:
                match = _NAME.fullmatch(entry.name)
                if match and entry.is_dir(follow_symlinks=False):
                    found.append((match[1], int(match[2] or 1), Path(entry.path)))
    except OSError:
        return []
    return [path for _, _, path in sorted(found)]


def default_directories(configured: object = None) -> list[Path]:
    """Where sessions may lie: the environment's folder, the configured one, or the default and its substitute."""
    for name in ("PROFILEMATE_DIR", "VLLM_PROFILING_DIR"):
        if os.environ.get(name, "").strip():
            return [Path(os.environ[name].strip())]
    first = Path(configured) if isinstance(configured, str) and configured else Path(DEFAULT_DIRECTORY)
    return [first, Path(f"{DEFAULT_DIRECTORY}-{os.getuid()}")]


def find_session(wanted: str = LATEST, configured: object = None) -> Path:
    """The session folder for a command's argument: a session, a folder of sessions, `latest`, or a bare session name.

    `configured` is the user's ProfilingConfig.OUTPUT_DIR, where the environment names no folder.
    Raises SessionError with what was looked for and where.
    """
    if wanted == LATEST and not Path(wanted).exists():
        return _latest(default_directories(configured))
    path = Path(wanted)
    if not path.exists() and os.sep not in wanted:
        for directory in default_directories(configured):
            if (directory / wanted).is_dir():
                return directory / wanted
    if not path.exists():
        raise SessionError(f"there is no session at {wanted}")
    if path.is_file() and path.name in (names.SESSION_FILE, names.METADATA_FILE):
        path = path.parent
    if not path.is_dir():
        raise SessionError(f"{wanted} is a file; a session is a folder {names.SESSION_PREFIX}...")
    return path if holds_session(path) else _latest([path])


def holds_session(path: Path) -> bool:
    """Whether the folder holds anything of a session. A process that was killed as it made its folder leaves that empty."""
    try:
        return (path / names.SESSION_FILE).exists() or (path / names.PROCESSES_FOLDER).is_dir()
    except OSError:  # it cannot be looked into, which the command tells
        return True


def _latest(directories: list[Path]) -> Path:
    found = [path for directory in directories for path in sessions_in(directory) if holds_session(path)]
    if not found:
        places = " and ".join(str(directory) for directory in dict.fromkeys(directories))
        raise SessionError(f"there is no session in {places}; name one, or set PROFILEMATE_DIR")
    return max(found, key=lambda path: (_stamp(path), path.stat().st_mtime_ns))


def _stamp(path: Path) -> tuple[str, int]:
    match = _NAME.fullmatch(path.name)
    return (match[1], int(match[2] or 1)) if match else ("", 0)
