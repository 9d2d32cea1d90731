"""`profilemate fleet query`: the questions, and their answers as tables or as JSON."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from profilemate.cli.progress import Progress
from profilemate.session.errors import SessionError
from profilemate.session.records import text
from profilemate.sessions.grid import NOTHING, Column, print_grid, print_lines

if TYPE_CHECKING:
    from profilemate.fleet.readers import Fleet

LONGEST_CELL = 60
MISSING = "missing"
NARROW = {"session": 24, "model": 14, "host": 8, "missing": 24}
"""Texts that may be cut where the terminal is narrow, and how narrow they may become."""
FIRST_COLUMNS = 4
"""So many columns stay where the terminal is narrow."""


def run_query(arguments: argparse.Namespace) -> int:
    """Ask, and print. Raises SessionError."""
    from profilemate.fleet.packages import load
    from profilemate.fleet.queries import QUERIES, query

    if arguments.list:
        print_lines([f"{one.name:<16} {one.help}" for one in QUERIES])
        return 0
    if not 1 <= len(arguments.words) <= 2:
        raise SessionError("name a data set: profilemate fleet query [NAME] DATASET; --list shows the names")
    *names, folder = arguments.words
    asked = [query(name) for name in names] or list(QUERIES)
    load("pyarrow")
    fleet = _open(Path(folder), arguments.memory)
    with Progress("asking") as progress:
        found = {}
        for one in asked:
            progress.show(one.name)
            found[one.name] = _answer(one.name, fleet)
        lacking = found[MISSING] if MISSING in found else _answer(MISSING, fleet)
    if arguments.json:
        sys.stdout.write(json.dumps(found[names[0]] if names else found, indent=1, default=str) + "\n")
        return 0
    for one in asked:
        _print(f"{one.name}: {one.help}", found[one.name])
    if MISSING not in names:
        _print_missing(lacking)
    return 0


def _open(path: Path, memory_bytes: int) -> Fleet:
    from profilemate.fleet.readers import on_duckdb

    return on_duckdb(path, memory_bytes)


def _answer(name: str, fleet: Fleet) -> list[dict[str, Any]]:
    """Raises SessionError where a file is damaged, or a column is missing since an older ProfileMate wrote the data set."""
    from profilemate.fleet.packages import load
    from profilemate.fleet.queries import answer

    try:
        return answer(name, fleet)
    except (load("duckdb").Error, load("ibis.common.exceptions").IbisError, AttributeError) as error:
        raise SessionError(f"{name}: {text(str(error).partition(chr(10))[0])}") from error


def _print(title: str, rows: Sequence[dict[str, Any]]) -> None:
    print_lines([title])
    if not rows:
        print_lines(["nothing was recorded", ""])
        return
    names = list(rows[0])
    columns = [_column(name, place, rows) for place, name in enumerate(names)]
    left_out = print_grid(columns, [[_cell(row[name]) for name in names] for row in rows])
    print_lines([*([f"no room for {', '.join(left_out)}; --json has them"] if left_out else []), ""])


def _column(name: str, place: int, rows: Sequence[dict[str, Any]]) -> Column:
    is_number = any(isinstance(row[name], (int, float)) for row in rows)
    rank = max(0, place - FIRST_COLUMNS + 1)
    return Column(name, rank, is_number, NARROW.get(name, 0))


def _cell(value: Any) -> str:
    if value is None:
        return NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.2f}"
    if isinstance(value, int):
        return f"{value:,}"
    line = text(str(value).partition("\n")[0])
    return line if len(line) <= LONGEST_CELL else f"{line[: LONGEST_CELL - 1]}…"


def _print_missing(lacking: Sequence[dict[str, Any]]) -> None:
    """The answers hold what was recorded; how many sessions have more to say."""
    if not lacking:
        return
    lost = sum(row["lost_rows"] or 0 for row in lacking)
    trimmed = sum(bool(row["is_trimmed"]) for row in lacking)
    told = [
        f"{len(lacking):,} sessions are not whole" if len(lacking) > 1 else "1 session is not whole",
        f"{lost:,} rows lost" if lost else "",
        f"{trimmed:,} trimmed: their rows are in no answer" if trimmed else "",
    ]
    print_lines([f"{', '.join(part for part in told if part)}; profilemate fleet query missing says what"])
