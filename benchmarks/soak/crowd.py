"""Two thousand short sessions in one folder: of a pretended vLLM, by forks of one process in which ProfileMate is active.

    python benchmarks/soak/crowd.py FOLDER COUNT

Each is what a server leaves that is killed after four steps.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

SHORT_SESSIONS = 2000


def make(folder: Path, pretended: Path, count: int = SHORT_SESSIONS) -> None:
    """Make so many in FOLDER/sessions."""
    import environment
    from pretend_vllm import PRETEND_VLLM

    for name, text in PRETEND_VLLM.items():
        path = pretended / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text).lstrip("\n"))
    env = environment.clean() | {
        "PYTHONPATH": f"{environment.ROOT}:{pretended}",
        "PROFILEMATE_DIR": str(folder / "sessions"),
    }
    done = subprocess.run(
        [sys.executable, __file__, str(count)], env=env, capture_output=True, text=True, timeout=3600, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]


def main() -> int:
    """Fork, and let each fork be a server that is gone at once."""
    import vllm.engine.arg_utils
    import vllm.v1.core.sched.scheduler as scheduler

    from profilemate.probe import process

    process.launch_tidying = lambda session: None  # the newest server sees to it, once
    for number in range(int(sys.argv[1])):
        pid = os.fork()
        if not pid:
            with contextlib.suppress(BaseException), open(os.devnull, "w") as nothing:
                os.dup2(nothing.fileno(), 2)
                vllm.engine.arg_utils.EngineArgs()
                scheduler.run(4)
            os._exit(0)
        os.waitpid(pid, 0)
        if number % 500 == 499:
            print(number + 1, file=sys.stderr)
    return 0


def troubles(place: object, session: Path, count: int) -> list[str]:
    """What is wrong with the commands in such a folder, and with some of its sessions."""
    from soak.place import Place, unreadable

    assert isinstance(place, Place)
    listed = place.profilemate("list", str(place.sessions), "--json")
    if listed.returncode:
        return [f"list ended with {listed.returncode}: {listed.stderr[-300:]}"]
    found = json.loads(listed.stdout)
    told = [] if len(found) == count + 1 else [f"list has {len(found)} of {count + 1} sessions"]
    latest = place.profilemate("export", str(place.sessions))
    if latest.returncode or session.name not in latest.stdout:
        told.append(f"the newest session is not exported: {latest.stdout[-200:]} {latest.stderr[-200:]}")
    for name in sorted(place.names() - {session.name})[:: max(1, count // 20)]:
        told += [f"{name}: {what}" for what in unreadable(place, session.parent / name)]
    return told


if __name__ == "__main__":
    sys.exit(main())
