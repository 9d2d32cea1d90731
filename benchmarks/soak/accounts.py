"""Rows of a session held against an oracle outside of it. Shares no code with ProfileMate.

What there is and what the session names as missing have to add up to what was done.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import engine_steps
import exported
import streams

from soak.tally import LifeEnd

SIZE_CAP = "size_cap"
MOST_IN_FLIGHT = 2
"""Passes that a worker may have finished whose steps the engine did not see the end of."""


def named_missing(session: Path) -> Counter[tuple[str, str]]:
    """Rows that the gaps streams name, by table and reason."""
    found: Counter[tuple[str, str]] = Counter()
    for row in streams.all_rows(session, "gaps"):
        found[row["table"], row["reason"]] += int(row["rows"])
    return found


def lost_by_reason(session: Path) -> Counter[str]:
    """Rows that failed writes cost so far; the size cap is no failure."""
    found: Counter[str] = Counter()
    for (_, reason), rows in named_missing(session).items():
        if reason != SIZE_CAP:
            found[reason] += rows
    return found


def unnamed(session: Path, before: Counter[tuple[str, str]]) -> list[str]:
    """What metadata.json, which users read, does not tell of the gaps. `before`: what they were when it was not yet made."""
    told: Counter[tuple[str, str]] = Counter()
    metadata = exported.metadata(session)
    for gap in metadata["gaps"]:
        told[gap["table"], gap["reason"]] += gap["rows"]
    found = []
    if not before <= told <= named_missing(session):
        found.append(f"metadata.json tells of {dict(told - before)} too many and {dict(before - told)} too few rows")
    notes, reasons = " ".join(metadata["notes"]), {why for _, why in before if why != SIZE_CAP}
    return found + [f"no note names {reason}" for reason in reasons if reason not in notes]


def has_caught_up(session: Path, steps: int, passes: int) -> bool:
    """Whether so many steps and passes are there or named as missing: every process writes again."""
    missing: Counter[str] = Counter()
    for (table, _), rows in named_missing(session).items():
        missing[table] += rows
    return all(
        len(streams.all_rows(session, table)) + missing[table] >= count
        for table, count in (("engine_steps", steps), ("forward_passes", passes))
    )


def kept_bytes(session: Path) -> int:
    """Bytes of all streams."""
    return sum(path.stat().st_size for path in (session / "processes").glob("*/*.csv"))


def settle(end: LifeEnd, session: Path, oracle: Path) -> LifeEnd:
    """The session's account after the end of its server, and every way in which it does not add up."""
    finished = engine_steps.finished(oracle)
    busy = sum(1 for tokens in finished if tokens)
    missing: Counter[str] = Counter()
    for (table, _), rows in named_missing(session).items():
        missing[table] += rows
    steps, passes = streams.all_rows(session, "engine_steps"), streams.all_rows(session, "forward_passes")
    told = replace(
        end,
        steps=len(finished), step_rows=len(steps), step_rows_named_missing=missing["engine_steps"],
        passes=busy, pass_rows=len(passes), pass_rows_named_missing=missing["forward_passes"],
        bytes_kept=kept_bytes(session),
    )  # fmt: skip
    last = int(steps[-1]["step"]) if steps else 0
    return replace(told, troubles=(*end.troubles, *disagreements(told, last), *exported.broken_streams(session)))


def disagreements(end: LifeEnd, last_step: int) -> list[str]:
    """Where rows and named gaps are not what the oracle counted."""
    found = []
    steps = end.step_rows + end.step_rows_named_missing
    if not end.steps <= steps <= end.steps + 1:
        found.append(
            f"{end.steps} steps finished, {end.step_rows} rows and {end.step_rows_named_missing} named missing"
        )
    passes = end.pass_rows + end.pass_rows_named_missing
    if not end.passes <= passes <= end.passes + MOST_IN_FLIGHT:
        found.append(f"{end.passes} passes, {end.pass_rows} rows and {end.pass_rows_named_missing} named missing")
    if not end.steps <= last_step <= end.steps + 1:
        found.append(f"{end.steps} steps finished, the total in the last row is {last_step}")
    if end.bytes_kept > end.cap_bytes:
        found.append(f"{end.bytes_kept} bytes are kept, the cap is {end.cap_bytes}")
    return found


def odd_times(session: Path) -> list[str]:
    """Times of the README's files that lie before the session or go back, and durations below nothing."""
    found = []
    for path in sorted(session.glob("*.csv")):
        table = exported.read(session, path.name)
        for column in table.columns:
            if not column.endswith(("_sec", "_ms")) or table[column].dtype.kind not in "if":
                continue
            lowest = table[column].min()
            if lowest < 0:
                found.append(f"{path.name}: {column} of {lowest}")
    return found
