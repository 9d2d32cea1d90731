"""Runs of drive_kills.py, and what is left of each fork held against the lines that it wrote. No code of ProfileMate's."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import environment
import exported
import streams

DRIVE_KILLS = environment.ROOT / "tests" / "driver" / "drive_kills.py"
NO_RECORD = "process.json: missing"
EXPORT_ALL = """
import contextlib, io, sys
from profilemate.cli.main import main
for session in sys.argv[1:]:
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        code = main(["export", session])
    assert code == 0, said.getvalue()
"""


class Remains(NamedTuple):
    """What one fork left. `finished` are the tokens of its finished steps, `recorded` those of the rows of its session."""

    folder: Path
    session: Path | None
    finished: list[int]
    recorded: list[int]

    def faults(self) -> list[str]:
        """A finished step without its row, a row of a step that was never begun, or a file that cannot be read."""
        if self.session is None:
            return ["steps were made and there is no session"] if self.finished else []
        found = exported.unreadable(self.session) + exported.broken_streams(self.session)
        found += exported.differing_counts(self.session)
        found += [fault for fault in exported.metadata(self.session)["faults"] if not self.is_of_a_kill(fault)]
        ahead = len(self.recorded) - len(self.finished)
        if self.recorded[: len(self.finished)] != self.finished or ahead > 1:
            found.append(f"steps {self.recorded[-5:]} ({len(self.recorded)}), finished {self.finished[-5:]} "
                         f"({len(self.finished)})")  # fmt: skip
        return [f"{self.folder.name}: {fault}" for fault in found]

    def is_of_a_kill(self, fault: str) -> bool:
        """Whether the reader names a row that was cut off, or a process that died before it had written anything."""
        assert self.session is not None
        if exported.TORN_TAIL in fault:
            return True
        process = self.session / "processes" / fault.partition("/")[0]
        return fault.endswith(f"/{NO_RECORD}") and not list(process.glob("*.csv"))


def run(folder: Path, kills: int, seed: int, tell: Callable[[str], None] = lambda line: None) -> list[Remains]:
    """Kill so many forks and export what they left; `tell` gets lines of progress."""
    (folder / "tmp").mkdir()  # who is killed leaves its temporary files
    env = environment.profiled(folder / "unused", VLLM_LOGGING_LEVEL="ERROR", TMPDIR=str(folder / "tmp"))
    command = [sys.executable, str(DRIVE_KILLS), str(folder), str(kills), str(seed)]
    with (folder / "log").open("w") as log:
        driver = subprocess.Popen(command, env=env, stdout=log, stderr=subprocess.PIPE, text=True)
        assert driver.stderr is not None
        for line in driver.stderr:
            log.write(line)
            if line.startswith("[kills]"):
                tell(line.strip())
    assert driver.wait() == 0, (folder / "log").read_text()[-3000:]
    assert not (folder / "unused").exists(), "the process that forks made a session"
    found = [remains(folder / str(number)) for number in range(kills)]
    export([one.session for one in found if one.session is not None])
    return found


def export(sessions: list[Path]) -> None:
    """The files of all sessions, each by the command, in one process: most of an export is the start of Python."""
    done = subprocess.run(
        [sys.executable, "-c", EXPORT_ALL, *map(str, sessions)],
        cwd=environment.ROOT,
        env=environment.clean(),
        capture_output=True,
        text=True,
        timeout=environment.HANGS_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]


def remains(folder: Path) -> Remains:
    """Read what a fork left."""
    sessions = sorted((folder / "sessions").glob("session_*"))
    assert len(sessions) <= 1, sessions
    sessions = [path for path in sessions if (path / "session.json").exists()]  # else killed as it made the folder
    lines = (folder / "steps").read_text().splitlines() if (folder / "steps").exists() else []
    finished = [int(line.split()[1]) for line in lines]
    if not sessions:
        return Remains(folder, None, finished, [])
    totals = [int(row["scheduled_tokens"]) for row in streams.all_rows(sessions[0], "engine_steps")]
    return Remains(folder, sessions[0], finished, [after - before for before, after in pairwise([0, *totals])])


def summary(found: list[Remains]) -> dict[str, int]:
    """Counts for a report."""
    return {
        "kills": len(found),
        "kills_before_a_session": sum(one.session is None for one in found),
        "kills_between_first_and_last_step": sum(bool(one.finished) for one in found),
        "steps_finished": sum(len(one.finished) for one in found),
        "steps_recorded": sum(len(one.recorded) for one in found),
        "faults": sum(len(one.faults()) for one in found),
    }


def json_text(found: list[Remains]) -> str:
    """The summary for the message of a failure."""
    return json.dumps(summary(found))
