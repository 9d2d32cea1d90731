"""The report of every golden session of an odd world opens in Chromium without an error, on a screen and on a phone."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import environment
import pytest
import report_pages

from profilemate.cli.main import main

SESSIONS = sorted(path for path in (environment.ROOT / "tests" / "golden" / "sessions").glob("*") if path.is_dir())
REFUSED = {"old_format": "has format 1, this ProfileMate reads format 2"}
"""What no ProfileMate of this format can read, and what it says instead."""


def test_there_are_golden_sessions() -> None:
    assert len(SESSIONS) >= 8


@pytest.mark.parametrize("session", SESSIONS, ids=lambda path: path.name)
def test_the_report_opens_without_an_error(
    session: Path, tmp_path: Path, browser: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = Path(shutil.copytree(session, tmp_path / "session"))
    code = main(["report", str(copy)])
    said = capsys.readouterr().err
    if session.name in REFUSED:
        assert code == 2 and REFUSED[session.name] in said and said.count("\n") == 1
        return
    assert (code, said) == (0, "")
    with report_pages.opened(browser, copy / "report.html") as found:
        found.draw_all()
        assert_is_sound(found)
        found.page.set_viewport_size({"width": report_pages.PHONE, "height": 900})
        found.until(FITS)
        assert_is_sound(found)


FITS = """() => Array.from(document.querySelectorAll("[data-drawn] :is(svg, canvas)")).every(
    one => one.getBoundingClientRect().width <= window.innerWidth
)"""


def assert_is_sound(found: report_pages.Opened) -> None:
    """Nothing on the console, nothing asked for, all drawn, nothing wider than the window, no fault of ours."""
    assert found.said == []
    assert [url for url in found.asked if not url.startswith("file:")] == []
    assert found.overflow() <= 0
    assert found.page.query_selector_all("main > section")
    assert {plot.get_attribute("data-drawn") for plot in found.plots()} <= {"light"}
    assert "fault of ProfileMate" not in found.page.content().split("<script", 1)[1].split("</main>")[0]
