"""The data set of docs/fleet.md and the parts of that page that are made of it; run it to write them anew."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shutil
import sys
from pathlib import Path

import environment
from fleet_sessions import SESSIONS, one_host

from profilemate.cli.main import main
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
    run("fleet", "export", *(str(folder / "sessions" / host) for host in HOSTS), "-o", str(folder / "fleet"))
    return folder / "fleet"


def run(*words: str) -> str:
    """What the command prints, as wide as the page."""
    width, os.environ["COLUMNS"] = os.environ.get("COLUMNS"), WIDTH
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed):
            assert main([*words]) == 0
    finally:
        del os.environ["COLUMNS"]
        os.environ |= {"COLUMNS": width} if width else {}
    return printed.getvalue()


def example(folder: Path) -> str:
    """Questions and answers as a terminal shows them."""
    parts = []
    for name in SHOWN:
        lines = [line.rstrip() for line in run("fleet", "query", name, str(folder / "fleet")).splitlines()]
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


def write_page() -> None:
    """Write the page anew."""
    folder = Path(sys.argv[1])
    os.makedirs(folder)
    make_fleet(folder)
    page = put(put(PAGE.read_text(), "index", index()), "example", example(folder))
    PAGE.write_text(page)


if __name__ == "__main__":
    write_page()
