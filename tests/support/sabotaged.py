"""Processes with tests/support/sabotage on their path: their environment, what was broken, and what the session says of it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import environment
import exported

FOLDER = environment.ROOT / "tests" / "support" / "sabotage"
FAILURES_BEFORE_OFF = 5


def environ(folder: Path, sabotage: str, *paths: Path, **more: str) -> dict[str, str]:
    """A profiled environment in which `sabotage` is done to ProfileMate."""
    return environment.profiled(
        folder / "sessions", *paths, FOLDER, SABOTAGE=sabotage, SABOTAGE_LOG=str(folder / "broken"), **more
    )


def broken(folder: Path) -> list[tuple[int, str]]:
    """Pid and hook of each call of a handler that raised, in order. The line is written before the exception is raised."""
    lines = (folder / "broken").read_text().splitlines() if (folder / "broken").exists() else []
    return [(int(pid), hook) for pid, hook in (line.split() for line in lines)]


def unnamed(session: Path, broken: list[tuple[int, str]], log: str = "") -> list[str]:
    """Failures that neither metadata.json nor `profilemate summary` tells rightly.

    A process whose role could not be taken has no folder: then its hooks are to be named in the server's log.
    """
    record = exported.metadata(session)
    pids = {process["name"]: process["pid"] for process in record["processes"]}
    told = {(pids[hook["process"]], hook["name"]): hook for hook in record["hooks"]}
    shown = summary(session)
    cut_short = killed_at_once(session, broken)
    found = []
    for (pid, name), failures in Counter(broken).items():
        hook = told.get((pid, name))
        if hook is None:
            found += [] if f"hook {name} failed" in log else [f"{name} of {pid}: not in the log"]
            continue
        fewest = failures - 1 if (pid, name) in cut_short else failures
        if not is_rightly_told(hook, fewest, failures):
            found.append(f"{name}: {fewest} to {failures} failures, told is {hook}")
        if name not in shown and hook["failures"]:
            found.append(f"{name}: not in the summary")
    return found


def killed_at_once(session: Path, broken: list[tuple[int, str]]) -> set[tuple[int, str]]:
    """Of each process that was killed the hook that failed last: it may not have lived to tell of that failure.

    vLLM's front end kills an engine that takes long to end, and an engine that ends calls `finish_requests` first.
    """
    records = [json.loads(file.read_text()) for file in session.glob("processes/*/process.json")]
    killed = {record["pid"] for record in records if record["ended_ns"] is None}
    return {(pid, hook) for pid, hook in dict(broken).items() if pid in killed}


def is_rightly_told(hook: dict[str, Any], fewest: int, most: int) -> bool:
    """Whether metadata.json tells as many failures, what became of the hook, and why."""
    failures = hook["failures"]
    state = "switched_off" if failures >= FAILURES_BEFORE_OFF else "put_in"
    return fewest <= failures <= most and hook["state"] == state and (not failures or "explode" in hook["reason"])


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
