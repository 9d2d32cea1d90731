"""The CSV files for people: a spreadsheet computes nothing of what others named, and a number stays a number."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import golden
import pytest
from hostile_values import FORMULAS, every_text, folder_of

from profilemate.export import readme_files
from profilemate.export.cells import word
from profilemate.export.user_files import _cell
from profilemate.session.session import Session

STARTS = ("=", "+", "-", "@", "\t", "\r", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""What makes a cell a formula in one spreadsheet or another: OWASP's list."""
NUMBER = re.compile(r"-?\d+(\.\d+)?(e[+-]?\d+)?")


def computed(cell: str) -> bool:
    """Whether a spreadsheet would take it for a formula: as it is, or where it separates cells at semicolons."""
    return any(part.strip(" ").startswith(STARTS) and not NUMBER.fullmatch(part) for part in cell.split(";"))


@pytest.mark.parametrize("name", ["server", "everything"])
def test_no_cell_of_an_exported_file_is_a_formula(tmp_path: Path, name: str) -> None:
    session = golden.copy(name, tmp_path)
    every_text(session, lambda number: FORMULAS[number % len(FORMULAS)])
    readme_files.write(Session(session))
    cells = 0
    for path in sorted(session.glob("*.csv")):
        rows = list(csv.reader(path.open(newline="")))
        assert len({len(row) for row in rows}) == 1, path.name
        found = [(path.name, cell) for row in rows for cell in row if computed(cell)]
        assert found == []
        cells += sum(cell.startswith("'") for row in rows for cell in row)
    assert cells > 30, "nothing hostile came through, so this shows little"


@pytest.mark.parametrize("text", FORMULAS)
def test_what_would_be_computed_is_text(text: str) -> None:
    shown = word(text)
    assert not computed(shown) and "," not in shown and '"' not in shown


@pytest.mark.parametrize(("text", "shown"), [
    ("plain", "plain"), ("a-b=c", "a-b=c"), ("=1", "'=1"), ("-5", "'-5"), ("\uff1d1", "'\uff1d1"), (" =1", "' =1"),
    ("x;y", "x;y"), ("x;=1", "x_=1"), ("x; @y", "x_ @y"), ('a,"b', "a__b"), ("a\tb", "a_b"), ("", ""),
])  # fmt: skip
def test_how_a_text_looks(text: str, shown: str) -> None:
    assert word(text) == shown


@pytest.mark.parametrize("text", ["-5", "-5.25", "-1e-9", "0", "7"])
def test_a_users_number_stays_a_number(tmp_path: Path, text: str) -> None:
    session = golden.copy("server", tmp_path)
    (folder_of(session) / "own.csv").write_text(f"time_ns,value\n1,{text}\n2,=1\n")
    readme_files.write(Session(session))
    rows = list(csv.DictReader((session / "own.csv").open(newline="")))
    assert [row["value"] for row in rows] == [text, "'=1"]
    assert _cell(text) == text
