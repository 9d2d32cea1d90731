"""A writer of one small table, and writes that fail as a test says."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from profilemate.probe.writer import Writer
from profilemate.schema.table import Table, fields

TABLE = Table("numbers", "A table.", fields(("n", "int", "a number"), ("text", "str", "words")))
TOTALS = Table(
    "sums",
    "Kept totals.",
    fields(
        ("n", "int", "sum so far"),
    ),
)


def open_writer(folder: Path, share: int = 1 << 30) -> Writer:
    """It has its folder; nothing is written yet."""
    writer = Writer()
    writer.open(str(folder), share, 0)
    return writer


def failing_write(monkeypatch: pytest.MonkeyPatch, failures: list[Any]) -> None:
    """Let the next writes raise, write so many bytes, or go well (None)."""
    real = os.write

    def write(descriptor: int, data: bytes) -> int:
        if failures:
            failure = failures.pop(0)
            if failure is None:
                return real(descriptor, data)
            if isinstance(failure, int):
                return real(descriptor, data[:failure])
            raise failure
        return real(descriptor, data)

    monkeypatch.setattr(os, "write", write)


def write_rows(writer: Writer, count: int) -> None:
    """One row and one flush each."""
    for n in range(count):
        writer.stream(TABLE).add((n, "x"))
        writer.flush()
