"""How large the page is: what it is made of, and that a longer session makes it hardly larger."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from long_session import long_session

from profilemate.cli.main import main

MEGABYTE = 1_000_000
LIMIT = 5 * MEGABYTE
SHORT, LONG = 2_000, 40_000


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[int, Path]]:
    """The reports of a short session and of one of twenty times as many rows."""
    found = {}
    for steps in (SHORT, LONG):
        session = long_session(tmp_path_factory.mktemp(str(steps)), steps)
        assert main(["report", str(session)]) == 0
        found[steps] = session / "report.html"
    yield found


def rows_of(page: Path) -> dict[str, int]:
    """Rows of data by figure."""
    specs = re.findall(r'<script type="application/json" id="spec-(\w+)">(.*?)</script>', page.read_text(), re.DOTALL)
    return {name: sum(len(one["rows"]) for one in json.loads(text)["datasets"].values()) for name, text in specs}


def test_the_page_is_small(pages: dict[int, Path]) -> None:
    for page in pages.values():
        assert MEGABYTE / 2 < page.stat().st_size < LIMIT / 2


def test_twenty_times_the_rows_do_not_make_twice_the_page(pages: dict[int, Path]) -> None:
    short, long = pages[SHORT].stat().st_size, pages[LONG].stat().st_size
    assert long - short < 0.3 * MEGABYTE


def test_each_figure_has_a_bounded_number_of_rows(pages: dict[int, Path]) -> None:
    """So that an hour, a day and a week have pages of one size."""
    found = rows_of(pages[LONG])
    assert len(found) >= 12
    assert max(found.values()) <= 6000, found


def test_thinned_figures_say_so(pages: dict[int, Path]) -> None:
    text = pages[LONG].read_text()
    for figure in ("kv_usage", "step_phases", "ttft"):
        part = text[text.index(f'id="figure-{figure}"') :]
        assert re.search(r"bins? of|[Ee]ach bar is|drawn through", part[: part.index("</figure>")]), figure
