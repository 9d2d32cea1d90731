"""Processes with tests/support/sabotage on their path: their environment, what was broken, and what the session says of it."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import environment
import exported

FOLDER = environment.ROOT / "tests" / "support" / "sabotage"
FAILURES_BEFORE_OFF = 5


def environ(folder: Path, sabotage: str, *paths: Path, **more: str) -> dict[str, str]:
    """A profiled environment in which `sabotage` is done to ProfileMate."""
    return environment.profiled(
        folder / "sessions", *paths, FOLDER, SABOTAGE=sabotage, SABOTAGE_LOG=str(folder / "broken"), **more
    )


def broken(folder: Path) -> Counter[tuple[int, str]]:
    """How often a handler was called that raised, by pid and hook."""
    lines = (folder / "broken").read_text().splitlines() if (folder / "broken").exists() else []
    return Counter((int(pid), hook) for pid, hook in (line.split() for line in lines))


def unnamed(session: Path, broken: Counter[tuple[int, str]], log: str = "") -> list[str]:
    """Failures that neither metadata.json nor `profilemate summary` tells rightly.

    A process whose role could not be taken has no folder: then its hooks are to be named in the server's log.
    """
    record = exported.metadata(session)
    pids = {process["name"]: process["pid"] for process in record["processes"]}
    told = {(pids[hook["process"]], hook["name"]): hook for hook in record["hooks"]}
    shown = summary(session)
    found = []
    for (pid, name), failures in broken.items():
        hook = told.get((pid, name))
        if hook is None:
            found += [] if f"hook {name} failed" in log else [f"{name} of {pid}: not in the log"]
            continue
        state = "switched_off" if failures >= FAILURES_BEFORE_OFF else "put_in"
        if (hook["failures"], hook["state"]) != (failures, state) or "explode" not in hook["reason"]:
            found.append(f"{name}: {failures} failures, told is {hook}")
        if name not in shown:
            found.append(f"{name}: not in the summary")
    return found


def switched_off(session: Path) -> set[str]:
    """Hooks that are off in some process."""
    return {hook["name"] for hook in exported.metadata(session)["hooks"] if hook["state"] == "switched_off"}


def summary(session: Path) -> str:
    """What `profilemate summary` prints."""
    done = subprocess.run(
        [sys.executable, "-m", "profilemate", "summary", str(session)],
        cwd=environment.ROOT,
        env=environment.clean(),
        capture_output=True,
        text=True,
        timeout=environment.HANGS_SECONDS,
        check=True,
    )
    return done.stdout
