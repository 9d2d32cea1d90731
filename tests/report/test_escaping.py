"""What users and servers name is shown and never run: in the page, in its attributes, in the figures and their data."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import report_pages
import sample_rows
from session_builder import SessionBuilder, at

from profilemate import figures
from profilemate.advise import run as advise_run
from profilemate.advise.finding import ACT, Evidence, Finding, Gain
from profilemate.cli.main import main
from profilemate.figures.figure import Figure, NoFigure
from profilemate.schema.probe_tables import GAPS
from profilemate.trackers.requests import events

RUN = "window.ran=(window.ran||0)+1"
HOSTILE = (
    f"<script>{RUN}</script>",
    f"</script><script>{RUN}</script>",
    f"<!--<script>{RUN}",
    f'"><img src=x onerror={RUN}>',
    f"' autofocus onfocus='{RUN}",
    f"<svg onload={RUN}>",
    f"javascript:{RUN}",
    f'"+({RUN})+"',
    f"${{{RUN}}}",
    "{{ 7 * 7 }}{% raw %}",
    "datum.x]; window.ran=1; //",
    "\u202egnp.exe\u2028\u2029\u0000",
)
ALL = " ".join(HOSTILE)


def hostile_session(folder: Path) -> Path:
    """Everything that a session can hold of others' words, hostile."""
    folder = folder / "<img src=x onerror=alert(1)>'\" {{ 7 * 7 }}"
    folder.mkdir()
    session = SessionBuilder(folder, host=ALL, session_id=ALL, settings={"directory": ALL, ALL: ALL})
    hook = {"name": ALL, "tracker": ALL, "target": ALL, "state": "does_not_fit", "reason": ALL}
    record = {
        "vllm": ALL, "torch": ALL, "host": ALL, "warnings": list(HOSTILE), "hooks": [*sample_rows.HOOKS, hook],
        "engine_config": {"model": ALL, "device": ALL, ALL: [ALL], "nested": {ALL: ALL}, "num_gpu_blocks": 201},
    }  # fmt: skip
    engine = sample_rows.add_engine(session, **record)
    sample_rows.add_worker(session, **record)
    words = [re.sub(r"[,\n\r\u0000\u2028\u2029\u0085]", "", text) for text in HOSTILE]
    for number, word in enumerate(words):
        times = {
            "queued_ns": at(1),
            "scheduled_ns": at(1.5),
            "first_token_ns": at(2),
            "prompt_tokens": 8,
            "output_tokens": 4,
        }
        row = {"time_ns": at(3 + number), "engine": 0, "step": 1, "request": word, "event": "finished", "status": word}
        engine.rows(events.IN_ENGINE, {**row, **times})
        engine.rows(GAPS, {"time_ns": at(3), "table": word, "rows": 1, "reason": word})
    return session.path


def hostile_figure(name: str) -> Figure:
    import altair
    import polars

    data = polars.DataFrame({"x": list(HOSTILE), "y": list(range(len(HOSTILE))), f"<b>{RUN}": [ALL] * len(HOSTILE)})
    chart = altair.Chart(data).mark_bar().encode(
        x=altair.X("x:N", title=ALL), y=altair.Y("y:Q", title=ALL), tooltip=["x:N", "y:Q"], color=altair.Color("x:N", title=ALL)
    )  # fmt: skip
    return Figure(name, ALL, ALL, chart, ALL)


def hostile_finding() -> Finding:
    return Finding(
        ALL, ALL, ACT, ALL, ALL, (Evidence(ALL, 1, ALL),), (f"--flag '{ALL}'",), (Gain(ALL, ALL, 1, 2, 1, 3, ALL),), ALL
    )


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The report, with hostile figures and advice as well."""
    with pytest.MonkeyPatch.context() as patch:
        drawn = {"throughput": hostile_figure, "kv_usage": lambda name: NoFigure(name, ALL, ALL)}
        real = figures.draw
        patch.setattr(
            figures, "draw", lambda session, name: drawn[name](name) if name in drawn else real(session, name)
        )
        patch.setattr(advise_run, "findings", lambda session: [hostile_finding()])
        folder = tmp_path_factory.mktemp("hostile")
        path = hostile_session(folder)
        assert main(["report", str(path), "-o", str(folder / "page.html")]) == 0
    yield folder / "page.html"


def visit(found: report_pages.Opened) -> None:
    """Look at all of it, hover, open and save: whatever could run something."""
    found.draw_all()
    found.unfold()
    found.page.click("#theme-switch")
    found.until("document.querySelector('[data-drawn=dark]')")
    box = found.page.query_selector("#figure-throughput .plot svg .mark-rect path:last-child").bounding_box()
    found.page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    found.page.wait_for_timeout(200)
    for button in found.page.query_selector_all("[data-all-rows], [data-copy]"):
        button.click()


def test_nothing_of_it_runs(page: Path, browser: Any) -> None:
    with report_pages.opened(browser, page) as found:
        visit(found)
        assert found.page.evaluate("window.ran") is None
        assert [line for line in found.said if "clipboard" not in line.lower()] == []
        assert [url for url in found.asked if not url.startswith("file:")] == []


def test_nothing_of_it_runs_even_without_the_policy(page: Path, browser: Any, tmp_path: Path) -> None:
    """Escaping holds by itself; the policy is a second wall."""
    html, count = re.subn(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page.read_text())
    assert count == 1
    (tmp_path / "page.html").write_text(html)
    with report_pages.opened(browser, tmp_path / "page.html") as found:
        visit(found)
        assert found.page.evaluate("window.ran") is None
        assert found.page.query_selector_all("img, [onerror], [onload], [onfocus], [autofocus]") == []


def test_it_is_shown_as_it_was_written(page: Path, browser: Any) -> None:
    with report_pages.opened(browser, page) as found:
        assert f"<script>{RUN}</script>" in found.page.inner_text("h1")
        assert "{{ 7 * 7 }}" in found.page.inner_text("#settings")
        assert f"<svg onload={RUN}>" in found.page.inner_text("#figure-throughput .says")


def test_the_policy_stops_what_would_get_through(page: Path, browser: Any, tmp_path: Path) -> None:
    """The other way round: with a script smuggled in, the policy alone keeps it from running."""
    html = page.read_text().replace("<main", f"<script>{RUN}</script><img src=x onerror={RUN}><main", 1)
    (tmp_path / "page.html").write_text(html)
    with report_pages.opened(browser, tmp_path / "page.html") as found:
        found.page.wait_for_timeout(200)
        assert found.page.evaluate("window.ran") is None
        assert any("Content Security Policy" in line for line in found.said)


def test_the_policy_allows_no_script_but_by_its_hash(page: Path) -> None:
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page.read_text())
    assert policy is not None
    rules = dict(rule.strip().split(" ", 1) for rule in policy[1].replace("&#39;", "'").split(";"))
    assert rules["default-src"] == "'none'"
    assert all(source.startswith("'sha256-") for source in rules["script-src"].split())
