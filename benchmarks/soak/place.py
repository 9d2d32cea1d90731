"""Where a server's sessions lie while it is soaked: a small disk of its own, or a folder with two thousand other sessions."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import environment
import streams
from small_disk import SmallDisk


@dataclass(frozen=True)
class Place:
    """Commands that work there begin with `prefix` and know it as `path`; this process sees it at `seen`."""

    prefix: tuple[str, ...]
    path: Path
    seen: Path

    @property
    def sessions(self) -> Path:
        """The folder of sessions, as ProfileMate knows it."""
        return self.path / "sessions"

    def newest(self, known: frozenset[str]) -> Path:
        """The one session that is not known yet, as this process sees it."""
        found = [path for path in (self.seen / "sessions").glob("session_*") if path.name not in known]
        assert len(found) == 1, found
        return found[0]

    def names(self) -> frozenset[str]:
        """The sessions that are there."""
        return frozenset(path.name for path in (self.seen / "sessions").glob("session_*"))

    def profilemate(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """One of our commands, as a user gives it."""
        return subprocess.run(
            [*self.prefix, sys.executable, "-m", "profilemate", *arguments],
            cwd=environment.ROOT,
            env=environment.clean() | {"PROFILEMATE_DIR": str(self.sessions)},
            capture_output=True,
            text=True,
            timeout=environment.HANGS_SECONDS,
            check=False,
        )

    def run(self, *command: str) -> None:
        """Another command."""
        subprocess.run([*self.prefix, *command], check=True, capture_output=True, timeout=environment.HANGS_SECONDS)

    def make_read_only(self) -> None:
        """What lies there can be read and written through descriptors that are open, and nothing made, renamed or removed.

        That is what a folder without the right to write is to a user; root, whom rights do not stop, needs a mount.
        """
        folder = str(self.sessions)
        if os.geteuid() and not self.prefix:
            self.run("chmod", "-R", "u-w", folder)
            return
        self.run("mount", "--bind", folder, folder)
        self.run("mount", "-o", "remount,bind,ro", folder)

    def make_writable(self) -> None:
        """As before."""
        if os.geteuid() and not self.prefix:
            self.run("chmod", "-R", "u+w", str(self.sessions))
        else:
            self.run("umount", "--lazy", str(self.sessions))


def on(disk: SmallDisk) -> Place:
    """A place on a small disk."""
    return Place(disk.prefix, disk.path, disk.seen)


def unreadable(place: Place, session: Path) -> list[str]:
    """Export a session where it lies; what is wrong with its files."""
    import exported

    done = place.profilemate("export", str(place.sessions / session.name))
    if done.returncode:
        return [f"export ended with {done.returncode}: {done.stderr[-300:]}"]
    return exported.unreadable(session)


def unreadable_elsewhere(place: Place, session: Path, target: Path) -> list[str]:
    """The same while nothing can be written there: into another folder."""
    done = place.profilemate("export", str(place.sessions / session.name), "--output", str(target))
    if done.returncode:
        return [f"export elsewhere ended with {done.returncode}: {done.stderr[-300:]}"]
    return [f"{name} was not made" for name in streams.README_FILES if not (target / name).exists()]
