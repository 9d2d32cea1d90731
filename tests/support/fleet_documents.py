"""The data set of docs/fleet.md and the parts of that page that are made of it; run it to write them anew."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import environment
from fleet_sessions import SESSIONS, one_host

from profilemate.fleet.tables import index

PAGE = environment.ROOT / "docs" / "fleet.md"
HOSTS = {"gpu-a": "server", "gpu-b": "two_engines", "gpu-c": "cap_reached"}
SHOWN = ("kv_usage", "hit_rates", "preemptions", "graph_coverage", "graph_ladder")
WIDTH = "128"


def make_fleet(folder: Path) -> Path:
    """The data set `fleet` in a folder, of three golden sessions."""
    for host, name in HOSTS.items():
        copy = Path(shutil.copytree(SESSIONS / name, folder / "sessions" / host / name))
        record = json.loads((copy / "session.json").read_text())
        one_host(copy, host, record["session_id"])
    words = [f"sessions/{host}" for host in HOSTS]
    done = run(folder, "fleet", "export", *words, "-o", "fleet")
    assert done.returncode == 0, done.stderr
    return folder / "fleet"


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """The command, as wide as the page."""
    own = {**environment.clean(), "PYTHONPATH": str(environment.ROOT), "COLUMNS": WIDTH}
    return subprocess.run(
        [sys.executable, "-m", "profilemate", *words], cwd=folder, env=own, capture_output=True, text=True, check=False,
        timeout=environment.HANGS_SECONDS,
    )  # fmt: skip


def example(folder: Path) -> str:
    """Questions and answers as a terminal shows them."""
    parts = []
    for name in SHOWN:
        done = run(folder, "fleet", "query", name, "fleet")
        assert done.returncode == 0, done.stderr
        lines = [line.rstrip() for line in done.stdout.splitlines()]
        parts.append(f"$ profilemate fleet query {name} fleet\n" + "\n".join(lines).strip())
    return "```\n" + "\n\n".join(parts) + "\n```\n"


def between(page: str, name: str) -> str:
    """The part of the page between two marks."""
    found = re.search(rf"<!-- {name}: begin -->\n(.*?)<!-- {name}: end -->", page, re.DOTALL)
    assert found, name
    return found[1].strip("\n") + "\n"


def snippets(page: str) -> dict[str, str]:
    """The page's Python by the packages that it imports first."""
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    return {re.split(r"[ .]", block.split(maxsplit=1)[1])[0].strip().split("\n")[0]: block for block in blocks}


def put(page: str, name: str, text: str) -> str:
    """The page with another part."""
    begin, end = f"<!-- {name}: begin -->\n", f"<!-- {name}: end -->"
    head, _, rest = page.partition(begin)
    return f"{head}{begin}\n{text}\n{end}{rest.partition(end)[2]}"


def main() -> None:
    """Write the page anew."""
    folder = Path(sys.argv[1])
    os.makedirs(folder)
    make_fleet(folder)
    page = put(put(PAGE.read_text(), "index", index()), "example", example(folder))
    PAGE.write_text(page)


if __name__ == "__main__":
    main()
