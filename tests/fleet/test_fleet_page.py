"""docs/fleet.md: its index, its example and its snippets are what comes out."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from fleet_documents import PAGE, between, example, make_fleet, snippets
from fleet_sessions import csv_rows

from profilemate.fleet.queries import QUERIES
from profilemate.fleet.tables import FORMAT, index

TEXT = PAGE.read_text()
SNIPPETS = snippets(TEXT)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("page")
    make_fleet(made)
    return made


def limits(folder: Path) -> list[tuple[str, str, int]]:
    """Steps by host and limit, by the csv module."""
    counts: dict[tuple[str, str], int] = {}
    for session in (folder / "sessions").glob("*/*"):
        for process, row in csv_rows(session, "engine_steps"):
            key = (process.split(".")[1], row["limit"])
            counts[key] = counts.get(key, 0) + 1
    return sorted((host, limit, count) for (host, limit), count in counts.items())


def test_the_index_is_that_of_the_tables() -> None:
    assert between(TEXT, "index") == index()
    assert all(f"| `{query.name}` |" in TEXT for query in QUERIES)
    assert f"format {FORMAT}" in TEXT


def test_the_example_is_what_the_commands_print(folder: Path) -> None:
    assert between(TEXT, "example") == example(folder)


def test_there_are_snippets_for_all_readers() -> None:
    assert set(SNIPPETS) == {"duckdb", "polars", "pyarrow", "ray", "pyspark", "pathlib"}


@pytest.mark.parametrize("name", ["duckdb", "polars", "pyarrow", "ray", "pathlib"])
def test_a_snippet_counts_what_the_rows_count(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if find_spec(name) is None:
        pytest.skip(f"{name} is not installed: its snippet in docs/fleet.md is not run")
    monkeypatch.chdir(folder)
    space: dict[str, Any] = {}
    exec(compile(SNIPPETS[name], f"docs/fleet.md, {name}", "exec"), space)
    found = [tuple(row.values()) if isinstance(row, dict) else tuple(row) for row in space["by_limit"]]
    assert found == limits(folder)
    if "usage" in space:
        assert [row["host"] for row in space["usage"]] == ["gpu-a", "gpu-b", "gpu-c"]
