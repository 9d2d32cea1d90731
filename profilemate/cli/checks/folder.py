"""Whether the folder of the sessions can be written, has room and is on a file system that will do."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from profilemate.cli.check import FAILURE, OK, WARNING, Check
from profilemate.cli.locate import profiling_config
from profilemate.probe import folders
from profilemate.probe.settings import Settings, load

TRIAL_BYTES = 1 << 12


def folder_can_be_written(environ: Mapping[str, str]) -> list[Check]:
    """Whether a session can be made, and how much room it has."""
    settings = load(environ, profiling_config())
    try:
        folder = folders.usable_directory(settings.directory)
        with tempfile.TemporaryDirectory(dir=folder, prefix="doctor_") as trial:
            (Path(trial) / "rows").write_bytes(bytes(TRIAL_BYTES))
    except OSError as error:
        return [Check("folder", FAILURE, str(error), "set PROFILEMATE_DIR to a folder of your own")]
    found = os.statvfs(folder)
    free = found.f_bavail * found.f_frsize
    room = f"{free / (1 << 30):.1f} GiB free"
    if folder != settings.directory:
        room += f" ({settings.directory} belongs to another user)"
    if free < folders.caps_of(folder, settings).disk_floor_bytes:
        return [
            Check("folder", FAILURE, f"{folder} has {room}, less than is left alone", "free space, or PROFILEMATE_DIR")
        ]
    return [_mount_check(folder, room, settings)]


def _mount_check(folder: str, room: str, settings: Settings) -> Check:
    kind = folders.mount_type(folder)
    if kind in folders.NETWORK and not settings.network_file_system:
        text = f"{folder} is on a network file system ({kind}), where nothing is recorded"
        return Check("folder", FAILURE, text, "set PROFILEMATE_DIR to a local folder, or PROFILEMATE_NETWORK_FS=1")
    if kind in folders.MEMORY_BACKED:
        return Check(
            "folder", WARNING, f"{folder} is in memory ({kind}): caps are a quarter", "PROFILEMATE_DIR on a disk"
        )
    return Check("folder", OK, f"sessions go to {folder}, {room}")
