"""A real file system of a few kilobytes for tests of full disks, read-only disks and memory-backed mounts."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest


class SmallDisk(NamedTuple):
    """A mounted tmpfs. Commands that use it start with `prefix` and know it as `path`; this process sees it at `seen`."""

    prefix: tuple[str, ...]
    path: Path
    seen: Path

    def remount(self, options: str) -> None:
        """Change how it is mounted, as to read-only."""
        subprocess.run([*self.prefix, "mount", "-o", f"remount,{options}", str(self.path)], check=True)

    @property
    def free_bytes(self) -> int:
        """What is left of it."""
        found = os.statvfs(self.seen)
        return found.f_bavail * found.f_frsize


def mount(path: Path, options: str) -> str:
    """Mount a tmpfs as root can; returns why it does not work, or nothing."""
    try:
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "none", str(path)], capture_output=True, text=True, check=False
        )
    except OSError as error:
        return str(error)
    return done.stderr.strip() or (f"exit code {done.returncode}" if done.returncode else "")


@contextlib.contextmanager
def namespace(path: Path, options: str) -> Iterator[int]:
    """A process that holds the mount in a mount namespace of its own, which needs no root; its pid."""
    script = 'mount -t tmpfs -o "$1" none "$0" && echo ready && exec cat'
    holder = subprocess.Popen(
        ["unshare", "-Urm", "sh", "-c", script, str(path), options],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert holder.stdin is not None and holder.stdout is not None and holder.stderr is not None
    try:
        if holder.stdout.readline() != "ready\n":
            holder.wait(10)
            raise OSError(holder.stderr.read().strip())
        yield holder.pid
    finally:
        holder.stdin.close()
        holder.wait(10)
        holder.stdout.close()
        holder.stderr.close()


@contextlib.contextmanager
def small_disk(path: Path, options: str) -> Iterator[SmallDisk]:
    """Mount a tmpfs at a new folder by whichever way works here; skips the test, with the reasons, where none does."""
    path.mkdir()
    refused = mount(path, options)
    if not refused:
        try:
            yield SmallDisk((), path, path)
        finally:
            subprocess.run(["umount", "--lazy", str(path)], check=True)
        return
    with contextlib.ExitStack() as stack:
        try:
            pid = stack.enter_context(namespace(path, options))
        except OSError as error:
            pytest.skip(f"no small disk can be made here: mount: {refused}; unshare: {error}")
        prefix = ("nsenter", "-t", str(pid), "-U", "-m", "--preserve-credentials")
        yield SmallDisk(prefix, path, Path(f"/proc/{pid}/root{path}"))
