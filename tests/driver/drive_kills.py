"""The scheduler driver killed again and again, in forks of one process in which ProfileMate is active.

drive_kills.py FOLDER KILLS SEED [ARGUMENTS OF drive.py]

Each fork is a program of its own with a session of its own in FOLDER/<number>/sessions. After every step that finished it
writes one line to FOLDER/<number>/steps (step, tokens), outside every hook: a line there means that the step, and all that
others do at its end, is over. One in four is killed at a moment drawn from the whole run, so before, while or after its
session is made; three in four at one drawn from the time in which a run makes steps. The first two runs, one with each
scheduler, are not killed: their durations are what is drawn from. Prints one JSON line: these and the moments.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import random
import signal
import sys
import time
import traceback
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE)]
DRIVE = ("--requests", "24", "--step-ms", "2")
SCHEDULERS = ((), ("--async",))
PROGRESS_EVERY = 20


def drive_and_tell(folder: Path, arguments: list[str]) -> None:
    """A fork's life, if nobody ends it."""
    import drive

    point_at(folder / "sessions")
    descriptor = os.open(folder / "steps", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    update = drive.Driver._update

    def update_and_tell(driver: drive.Driver) -> None:
        tokens = driver.in_flight[0][0].total_num_scheduled_tokens if driver.in_flight else 0
        before = driver.tally["steps"]
        update(driver)
        if driver.tally["steps"] > before:
            os.write(descriptor, b"%d %d\n" % (driver.tally["steps"], tokens))

    drive.Driver._update = update_and_tell
    drive.run(drive.parse(arguments))


def point_at(sessions: Path) -> None:
    """A fork's own folder of sessions, so that it has no company whose sessions it would look at."""
    from profilemate.probe.process import THIS

    assert not THIS.session, "the process that forks has no session of its own"
    THIS.settings = THIS.settings._replace(directory=str(sessions))


def forked(folder: Path, arguments: list[str]) -> int:
    """Start a fork; its pid."""
    folder.mkdir()
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        with (folder / "log").open("w") as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
        drive_and_tell(folder, arguments)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError):
            sys.stderr.flush()
        os._exit(code)  # as a kill does: no exit handler runs


def whole_run(folder: Path, arguments: list[str]) -> tuple[float, float]:
    """Seconds that a run takes to its first step, and from there to its end."""
    began = time.monotonic()
    pid = forked(folder, arguments)
    wait_for_a_step(folder, pid)
    stepping = time.monotonic()
    _, status = os.waitpid(pid, 0)
    assert status == 0, (folder / "log").read_text()[-3000:]
    return stepping - began, time.monotonic() - stepping


def wait_for_a_step(folder: Path, pid: int) -> None:
    """Until a fork has finished a step, or is over."""
    steps = folder / "steps"
    while not (steps.exists() and steps.stat().st_size):
        if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
            return
        time.sleep(0.001)


def kill(folder: Path, pid: int, pause_seconds: float, at_any_moment: bool) -> None:
    """SIGKILL to a fork, so long after it began or after its first step."""
    if not at_any_moment:
        wait_for_a_step(folder, pid)
    time.sleep(pause_seconds)
    os.kill(pid, signal.SIGKILL)  # not waited for yet, so the number is still its own
    _, status = os.waitpid(pid, 0)
    assert status in (0, signal.SIGKILL), (folder / "log").read_text()[-3000:]


def main() -> int:
    """Kill, and print the moments."""
    folder, kills, dice = Path(sys.argv[1]), int(sys.argv[2]), random.Random(int(sys.argv[3]))
    arguments = [*DRIVE, *sys.argv[4:]]
    import drive  # noqa: F401 - the forks find it here, and what follows takes them no time
    import vllm.engine.arg_utils
    import vllm.tracing
    import vllm.v1.core.sched.async_scheduler
    import vllm.v1.executor.abstract  # noqa: F401

    gc.collect()
    gc.freeze()
    wholes = [
        whole_run(folder / f"whole{number}", [*arguments, *scheduler]) for number, scheduler in enumerate(SCHEDULERS)
    ]
    moments = []
    for number in range(kills):
        scheduler = number % len(SCHEDULERS)
        at_any_moment = number % 4 == dice.randrange(4)
        before_steps, stepping = wholes[scheduler]
        moments.append(dice.uniform(0, before_steps + stepping if at_any_moment else stepping))
        mine = folder / str(number)
        kill(mine, forked(mine, [*arguments, *SCHEDULERS[scheduler]]), moments[-1], at_any_moment)
        if number % PROGRESS_EVERY == PROGRESS_EVERY - 1:
            print(f"[kills] {number + 1} of {kills}", file=sys.stderr, flush=True)
    print(json.dumps({"whole_seconds": wholes, "moments_seconds": moments}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
