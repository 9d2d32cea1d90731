"""Runs every command that reads a session in this process, and says what no input may bring about."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import signal
import traceback
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import golden

from profilemate.cli.main import main

CPU_SECONDS = 60.0
"""No session of a test takes a command a tenth of this."""

WAITS_SECONDS = float(os.environ.get("HOSTILE_WAITS_SECONDS", "300"))
"""What waits so long waits for ever."""

GOOD_CODES = (0, 1, 2)
OWN_FAULTS = ("could not be worked out", "fault of ProfileMate", "Traceback")
"""Sentences by which `advise` and `report` tell of an exception of ours that they caught."""

RAW = ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")
"""Categories of characters that a terminal may obey or that turn the order of others round."""


class HungError(BaseException):
    """A command worked longer than any should."""


@dataclass(frozen=True)
class Command:
    """Arguments with places for `{session}`, `{folder}` (that it lies in), `{other}` (a good session) and `{out}`."""

    words: str
    only_ascii_json: bool = False

    @property
    def name(self) -> str:
        """The first word."""
        return self.words.split()[0]

    def arguments(self, session: Path, other: Path, out: Path) -> list[str]:
        """As the command line has them."""
        places = {"session": str(session), "folder": str(session.parent), "other": str(other), "out": str(out)}
        return [word.format(**places) for word in self.words.split()]


QUICK = (
    Command("list {folder}"),
    Command("list {folder} --json"),
    Command("show {session}"),
    Command("show {session} --json"),
    Command("show {session} --table engine_steps --head 0"),
    Command("show {session} --table my_tracker --head 0"),
    Command("export {session} --format prometheus"),
    Command("export {session} --output {out}/files"),
    Command("summary {session}"),
    Command("summary {session} --json"),
    Command("export {session}"),
    Command("merge {session} {other} --force -o {out}/merged"),
    Command("summary {out}/merged"),
    Command("prune {folder} --keep 0"),
    Command("prune {folder} --keep 0 --json"),
)
SLOWER = (
    Command("advise {session}"),
    Command("advise {session} --json"),
    Command("compare {session} {other} --why"),
    Command("compare {other} {session} --json"),
)
SLOW = (Command("report {session} -o {out}/page.html"), Command("plot {session} --what all -o {out}/figures/"))
LAST = (Command("prune {folder} --keep 0 --detail-only --yes"), Command("prune {folder} --keep 0 --yes"))
EVERY = (*QUICK, *SLOWER, *SLOW, *LAST)


@dataclass(frozen=True)
class Outcome:
    """What a command did. `error` is the traceback of what escaped it."""

    code: int | None
    out: str
    err: str
    error: str


def run(arguments: list[str], cpu_seconds: float = CPU_SECONDS) -> Outcome:
    """The command line, in this process and at most so long."""
    out, err = io.StringIO(), io.StringIO()
    code, error = None, ""
    try:
        with _no_longer_than(cpu_seconds), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main(arguments)
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 1
    except BaseException as escaped:
        if isinstance(escaped, KeyboardInterrupt):
            raise
        error = "".join(traceback.format_exception(escaped)[-6:])
    return Outcome(code, out.getvalue(), err.getvalue(), error)


@contextlib.contextmanager
def _no_longer_than(cpu_seconds: float) -> Iterator[None]:
    def stop(number: int, frame: FrameType | None) -> None:
        raise HungError(signal.Signals(number).name)

    before = [signal.signal(number, stop) for number in (signal.SIGPROF, signal.SIGALRM)]
    signal.setitimer(signal.ITIMER_PROF, cpu_seconds)
    signal.setitimer(signal.ITIMER_REAL, WAITS_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGPROF, before[0])
        signal.signal(signal.SIGALRM, before[1])


def raw_characters(text: str) -> set[str]:
    """What reached a terminal that should not have."""
    return {c for c in set(text) if c != "\n" and unicodedata.category(c) in RAW}


def faults_of(command: Command, outcome: Outcome) -> list[str]:
    """What is wrong with how a command ended, in sentences."""
    if outcome.error:
        return [f"{command.words}: {outcome.error}"]
    found = []
    if outcome.code not in GOOD_CODES:
        found.append(f"exit code {outcome.code}")
    if outcome.code and not outcome.err.strip() and command.name not in ("prune", "compare"):
        found.append(f"exit code {outcome.code} without a word")
    if outcome.code == 2 and command.name != "plot" and len(outcome.err.strip().splitlines()) != 1:
        found.append(f"not one sentence: {outcome.err!r}")
    found += [f"{sentence}: {_around(outcome, sentence)}" for sentence in OWN_FAULTS if _around(outcome, sentence)]
    raw = raw_characters(outcome.out) | raw_characters(outcome.err)
    if raw:
        found.append(f"raw characters {sorted(map(ascii, raw))}")
    return [f"{command.words}: {fault}" for fault in found]


def _around(outcome: Outcome, sentence: str) -> str:
    for text in (outcome.out, outcome.err):
        place = text.find(sentence)
        if place >= 0:
            return text[max(0, place - 300) : place + 700]
    return ""


def faults_on(session: Path, commands: tuple[Command, ...] = EVERY, other: Path | None = None) -> list[str]:
    """Run commands on a session; its folder's parent has nothing else. Files beside it must stay as they are."""
    world = session.parent.parent
    out = world / "out"
    out.mkdir()
    other = other or golden.copy("server", world, "session_20250101_000000")
    canary = world / "canary"
    canary.write_text("sings")
    before = sorted(world.iterdir())
    found = []
    for command in commands:
        if not session.exists() and "{session}" in command.words:
            continue
        found += faults_of(command, run(command.arguments(session, other, out)))
    if sorted(world.iterdir()) != before or canary.read_text() != "sings":
        found.append(f"files outside changed: {sorted(world.iterdir())}")
    if [path.name for path in session.parent.iterdir() if path != session]:
        found.append(f"files beside the session: {sorted(session.parent.iterdir())}")
    shutil.rmtree(out)
    return found
