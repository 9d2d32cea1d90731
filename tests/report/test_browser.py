"""The page of a session in which every tracker saw something, in headless Chromium."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import report_pages

from profilemate.report.sections import SECTIONS

MARKS = ".mark-rect path, .mark-line path, .mark-area path, .mark-symbol path, .mark-rule line, .mark-text text"


@pytest.fixture(scope="module")
def shown(browser: Any, whole_page: Path) -> Iterator[report_pages.Opened]:
    """The page on a wide screen, every figure drawn."""
    with report_pages.opened(browser, whole_page) as found:
        found.draw_all()
        yield found


def test_nothing_is_said_on_the_console_and_nothing_is_asked_for(shown: report_pages.Opened, whole_page: Path) -> None:
    assert shown.said == []
    assert shown.asked == [whole_page.resolve().as_uri()]


def test_all_sections_are_there_in_order(shown: report_pages.Opened) -> None:
    names = shown.page.eval_on_selector_all("main > section", "found => found.map(one => one.id)")
    assert names == list(SECTIONS)


@pytest.mark.parametrize("name", SECTIONS)
def test_a_section_is_not_blank(shown: report_pages.Opened, name: str, tmp_path: Path) -> None:
    section = shown.page.query_selector(f"#{name}")
    picture = section.screenshot(path=tmp_path / f"{name}.png")
    assert report_pages.colours(picture) > 20
    assert len(section.inner_text()) > 20


def test_every_figure_has_marks(shown: report_pages.Opened) -> None:
    plots = shown.plots()
    assert len(plots) >= 20
    for plot in plots:
        name = plot.get_attribute("data-spec")
        if plot.query_selector("canvas") is not None:
            assert report_pages.colours(plot.screenshot()) > 20, name
        else:
            assert plot.query_selector_all(MARKS), name


def test_every_figure_has_a_text_and_a_table(shown: report_pages.Opened) -> None:
    for figure in shown.page.query_selector_all("figure"):
        assert len(figure.query_selector(".says").inner_text()) > 20
        assert figure.query_selector("details.data tbody tr") is not None
        named = figure.query_selector("svg[aria-label], canvas[aria-label], [role=graphics-document][aria-label]")
        assert named is not None and len(named.get_attribute("aria-label")) > 20


def test_headings_go_down_one_level_at_a_time(shown: report_pages.Opened) -> None:
    levels = shown.page.eval_on_selector_all("h1, h2, h3, h4", "found => found.map(one => Number(one.tagName[1]))")
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))


def test_there_are_landmarks(shown: report_pages.Opened) -> None:
    for landmark in ("header", "nav[aria-label]", "main", "footer"):
        assert len(shown.page.query_selector_all(f"body > {landmark}, body > .columns > {landmark}")) == 1


def test_ids_are_unique(shown: report_pages.Opened) -> None:
    ids = shown.page.eval_on_selector_all(
        "body [id]", "found => found.map(one => one.id).filter(id => !id.includes('vg-'))"
    )
    assert len(ids) == len(set(ids))


def test_figures_wait_until_they_are_near(browser: Any, whole_page: Path) -> None:
    with report_pages.opened(browser, whole_page) as found:
        found.page.wait_for_timeout(500)
        drawn = found.page.query_selector_all("[data-drawn]")
        assert len(drawn) < len(found.plots()) / 2


def test_a_dark_system_gives_a_dark_page(browser: Any, whole_page: Path) -> None:
    with report_pages.opened(browser, whole_page, color_scheme="dark") as found:
        found.draw_all()
        assert {plot.get_attribute("data-drawn") for plot in found.plots()} == {"dark"}
        assert found.said == []
        found.page.evaluate("window.scrollTo(0, 0)")
        assert report_pages.brightness(found.page.screenshot()) < 80


def test_the_switch_redraws_and_is_remembered(browser: Any, whole_page: Path) -> None:
    with report_pages.opened(browser, whole_page) as found:
        found.draw_all()
        found.page.click("#theme-switch")
        found.until("!document.querySelector('[data-drawn=light]')")
        assert found.page.inner_text("#theme-switch") == "Light page"
        assert report_pages.brightness(found.page.screenshot()) < 80
        found.page.reload()
        assert found.page.get_attribute("html", "data-theme") == "dark"


def test_the_switch_works_where_nothing_may_be_stored(browser: Any, whole_page: Path) -> None:
    with report_pages.opened(browser, whole_page) as found:
        forbidden = "Object.defineProperty(window, 'localStorage', { get() { throw new Error('not allowed'); } })"
        found.page.add_init_script(forbidden)
        found.page.reload()
        found.page.click("#theme-switch")
        assert found.page.get_attribute("html", "data-theme") == "dark"
        assert found.said == []


def test_a_phone_needs_no_sideways_scrolling(browser: Any, whole_page: Path) -> None:
    with report_pages.opened(browser, whole_page, report_pages.PHONE) as found:
        found.draw_all()
        found.unfold()
        found.page.wait_for_timeout(300)
        found.draw_all()
        assert found.overflow() <= 0
        for plot in found.plots():
            box = plot.bounding_box()
            assert box["x"] >= 0 and box["x"] + box["width"] <= report_pages.PHONE
            inside = plot.query_selector("svg, canvas")
            assert inside.bounding_box()["width"] <= box["width"] + 1, plot.get_attribute("data-spec")
            drawn = float(inside.get_attribute("width"))
            assert drawn <= box["width"] + 1, f"{plot.get_attribute('data-spec')} is shrunk, not drawn for this width"


def test_figures_follow_the_window(browser: Any, whole_page: Path) -> None:
    with report_pages.opened(browser, whole_page) as found:
        plot = found.page.query_selector("#overview [data-spec]")
        found.draw(plot)
        wide = plot.query_selector("svg, canvas").bounding_box()["width"]
        found.page.set_viewport_size({"width": 700, "height": 900})
        picture = "document.querySelector('#overview [data-spec] :is(svg, canvas)')"
        narrower = f"before => {picture}.getBoundingClientRect().width < before"
        found.until(narrower, wide - 100)


def test_the_keyboard_reaches_everything(browser: Any, whole_page: Path) -> None:
    with report_pages.opened(browser, whole_page) as found:
        order = []
        for _ in range(8):
            found.page.keyboard.press("Tab")
            order.append(found.page.evaluate("document.activeElement.id || document.activeElement.textContent.trim()"))
        assert order[:4] == ["Skip to the content", "theme-switch", "print-page", "The recording"]
        assert found.page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
        found.page.keyboard.press("Enter")
        assert found.page.evaluate("location.hash").startswith("#")


def test_the_skip_link_leads_to_the_content(browser: Any, whole_page: Path) -> None:
    with report_pages.opened(browser, whole_page) as found:
        found.page.keyboard.press("Tab")
        assert found.page.evaluate("document.activeElement.getBoundingClientRect().left") >= 0
        found.page.keyboard.press("Enter")
        assert found.page.evaluate("document.activeElement.id") == "main"


def test_a_table_of_data_opens_by_the_keyboard(browser: Any, whole_page: Path) -> None:
    with report_pages.opened(browser, whole_page) as found:
        found.page.focus("#overview details.data > summary")
        found.page.keyboard.press("Enter")
        assert found.page.evaluate("document.querySelector('#overview details.data').open")


def test_all_rows_of_the_data_can_be_shown(browser: Any, whole_page: Path) -> None:
    with report_pages.opened(browser, whole_page) as found:
        found.unfold()
        button = found.page.query_selector("[data-all-rows]")
        details = button.evaluate_handle("element => element.closest('details')").as_element()
        promised = int(details.query_selector(".how-many").inner_text().split()[0].replace(",", ""))
        assert len(details.query_selector_all("tbody tr")) < promised
        button.click()
        assert len(details.query_selector_all("tbody tr")) == promised
        assert found.said == []


def test_data_and_pictures_can_be_saved(browser: Any, whole_page: Path) -> None:
    with report_pages.opened(browser, whole_page) as found:
        plot = found.page.query_selector("#overview [data-spec]")
        name = plot.get_attribute("data-spec")
        found.draw(plot)
        for kind, begin in (("svg", b"<svg"), ("png", b"\x89PNG")):
            with found.page.expect_download() as download:
                found.page.click(f"#figure-{name} [data-save={kind}]")
            assert download.value.suggested_filename == f"{name}.{kind}"
            assert Path(download.value.path()).read_bytes().startswith(begin)
        found.unfold()
        with found.page.expect_download() as download:
            found.page.click(f"#figure-{name} [data-save=csv]")
        lines = Path(download.value.path()).read_text().splitlines()
        promised = found.page.inner_text(f"#figure-{name} .how-many").split()[0].replace(",", "")
        assert len(lines) == int(promised) + 1
        assert found.said == []


def test_printing_draws_every_figure_in_light_colours(browser: Any, whole_page: Path) -> None:
    with report_pages.opened(browser, whole_page, color_scheme="dark") as found:
        found.page.evaluate("window.print = () => { window.printed = true; }")
        found.page.click("#print-page")
        found.until("window.printed")
        there = [plot for plot in found.plots() if plot.evaluate("element => element.clientWidth")]
        assert there and {plot.get_attribute("data-drawn") for plot in there} == {"light"}
        found.page.emulate_media(media="print")
        assert found.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        assert not found.page.is_visible(".tools")


def test_without_scripts_the_tables_and_a_note_are_there(browser: Any, whole_page: Path) -> None:
    with report_pages.opened(browser, whole_page, java_script_enabled=False) as found:
        assert found.page.is_visible("noscript p") and "not drawn" in found.page.inner_text("noscript p")
        assert not found.page.is_visible("#theme-switch")
        assert found.page.is_visible("#overview .key-numbers")
        found.page.click("#overview details.data > summary")
        assert found.page.is_visible("#overview details.data tbody tr")
        assert found.said == []
