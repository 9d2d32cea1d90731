"""The report without a browser: the command, where the page goes, and what stands in it."""

from __future__ import annotations

import json
import os
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
import sample_rows
from session_builder import SessionBuilder

from profilemate import figures
from profilemate.cli.main import main
from profilemate.figures import FIGURES
from profilemate.figures.figure import NoFigure
from profilemate.report import drawing, inline, numbers, write
from profilemate.report.sections import SECTIONS, section_of, settings


@pytest.fixture
def session(tmp_path: Path) -> SessionBuilder:
    return sample_rows.add_server(SessionBuilder(tmp_path))


@pytest.fixture
def without_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is tested here does not need them drawn."""
    monkeypatch.setattr(figures, "draw", lambda session, name: NoFigure(name, name, "not in this test"))


class Text(HTMLParser):
    """The text of a page, tags left out."""

    def __init__(self) -> None:
        super().__init__()
        self.parts: list[str] = []

    def handle_data(self, data: str) -> None:
        self.parts.append(data)


def text_of(path: Path) -> str:
    reader = Text()
    reader.feed(path.read_text())
    return " ".join(" ".join(reader.parts).split())


@pytest.mark.usefixtures("without_figures")
def test_the_page_lies_beside_the_files_and_only_the_user_reads_it(
    session: SessionBuilder, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", str(session.path)]) == 0
    page = session.path / "report.html"
    assert capsys.readouterr().out == f"{page}\n"
    assert page.stat().st_mode & 0o777 == 0o600
    assert page.read_text().lstrip().startswith("<!doctype html>")


@pytest.mark.usefixtures("without_figures")
def test_the_page_is_where_it_is_asked_for_and_replaces_another(session: SessionBuilder, tmp_path: Path) -> None:
    wanted = tmp_path / "mine.html"
    wanted.write_text("old")
    assert main(["report", str(session.path), "-o", str(wanted), "--sections", "graphs,overview"]) == 0
    assert re.findall(r'<section id="(\w+)"', wanted.read_text()) == ["overview", "graphs"]
    assert not (session.path / "report.html").exists()
    assert [path.name for path in tmp_path.glob(".*")] == []


@pytest.mark.usefixtures("without_figures")
def test_where_the_session_cannot_be_written_the_page_is_in_the_current_folder(
    session: SessionBuilder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(write, "is_writable", lambda folder: False)
    assert main(["report", str(session.path)]) == 0
    said = capsys.readouterr()
    assert said.out == f"{tmp_path / f'{session.path.name}-report.html'}\n"
    assert "cannot be written" in said.err and Path(said.out.strip()).exists()


def test_a_folder_that_cannot_be_written_is_known(tmp_path: Path) -> None:
    assert write.is_writable(tmp_path)
    assert not write.is_writable(tmp_path / "is not there")
    assert not write.is_writable(Path("/proc"))


def test_a_failed_write_leaves_the_earlier_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "report.html"
    page.write_text("earlier")

    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space"):
        write.write(page, "new")
    assert page.read_text() == "earlier" and [path.name for path in tmp_path.iterdir()] == ["report.html"]


@pytest.mark.usefixtures("without_figures")
@pytest.mark.parametrize("there_is_a_browser", [True, False])
def test_the_page_is_opened_where_there_is_a_browser(
    session: SessionBuilder,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    there_is_a_browser: bool,
) -> None:
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", lambda url: opened.append(url) or there_is_a_browser)
    assert main(["report", str(session.path), "--open", "--sections", "files"]) == 0
    assert opened == [(session.path / "report.html").as_uri()]
    assert ("no browser could be started" in capsys.readouterr().err) is not there_is_a_browser


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["/nowhere"], "there is no session at /nowhere"),
        (["SESSION", "--sections", "nonsense"], "there is no section 'nonsense'; there are recording"),
        (["SESSION", "-o", "FOLDER"], "is a folder; name a file"),
        (["SESSION", "-o", "FOLDER/no/page.html"], "there is no folder"),
    ],
)
def test_bad_input_is_one_sentence(
    session: SessionBuilder, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], sentence: str
) -> None:
    named = {"SESSION": str(session.path), "FOLDER": str(tmp_path)}
    given = [re.sub("SESSION|FOLDER", lambda found: named[found[0]], argument) for argument in arguments]
    assert main(["report", *given]) == 2
    said = capsys.readouterr()
    assert sentence in said.err and said.err.count("\n") == 1 and said.out == ""


def test_without_the_packages_the_pip_line_is_said(
    session: SessionBuilder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import sys

    monkeypatch.setattr(figures, "draw", lambda session, name: NoFigure(name, name, "not in this test"))
    monkeypatch.setitem(sys.modules, "jinja2", None)
    assert main(["report", str(session.path)]) == 2
    assert "pip install 'profilemate[report]'" in capsys.readouterr().err


@pytest.mark.usefixtures("without_figures")
def test_key_numbers_are_those_of_the_session(session: SessionBuilder) -> None:
    """By hand from sample_rows: five passes, three FULL, one PIECEWISE, one without; 50 of 200 blocks at the peak."""
    assert main(["report", str(session.path)]) == 0
    text = text_of(session.path / "report.html")
    assert "Forward passes 5 In a full graph 60.0 % In piecewise graphs 20.0 % Without a graph 20.0 %" in text
    assert "Peak use 50 of 200 blocks 25.0 %" in text
    assert "Prefix-cache hit rate 25.0 %" in text
    assert "Did not fit 1 hooks" in text and "did not fit this vLLM: graph.old" in text


@pytest.mark.usefixtures("without_figures")
def test_what_is_not_known_is_said_to_be_unknown_and_never_zero(tmp_path: Path) -> None:
    session = SessionBuilder(tmp_path)
    assert main(["report", str(session.path)]) == 0
    text = text_of(session.path / "report.html")
    assert "Peak use unknown" in text and "Forward passes unknown" in text
    assert "no vLLM process was recorded in this session" in text
    assert "Recorded whole" not in text


def test_why_there_is_no_figure_stands_in_its_place(session: SessionBuilder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "draw", lambda session, name: NoFigure(name, f"Title of {name}", "it was a Tuesday"))
    assert main(["report", str(session.path), "--sections", "moe"]) == 0
    html = (session.path / "report.html").read_text()
    assert "Title of moe_load; Title of moe_imbalance" in html and "it was a Tuesday" in html
    assert "vegaEmbed" not in html, "a page without a figure carries no Vega"


def test_a_figure_that_fails_takes_nothing_with_it_and_the_exit_code_tells(
    session: SessionBuilder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(session: object, name: str) -> None:
        raise ZeroDivisionError(f"in {name}")

    monkeypatch.setattr(figures, "draw", fail)
    assert main(["report", str(session.path), "--sections", "overview,moe"]) == 1
    assert "the figure moe_load is missing: it cannot be put on the page" in capsys.readouterr().err
    text = text_of(session.path / "report.html")
    assert "ZeroDivisionError: in throughput" in text and "Forward passes 5" in text


@pytest.mark.usefixtures("without_figures")
def test_advice_that_could_not_be_worked_out_is_told(
    session: SessionBuilder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(session: object) -> None:
        raise ZeroDivisionError("in the advice")

    monkeypatch.setattr("profilemate.advise.lengths.advise", fail)
    assert main(["report", str(session.path), "--sections", "advice"]) == 1
    assert "could not be worked out" in capsys.readouterr().err
    assert "ZeroDivisionError: in the advice" in text_of(session.path / "report.html")


def test_every_figure_has_its_place_in_one_section() -> None:
    places = [section for name in SECTIONS for section in section_of(name).figures]
    assert sorted(places) == sorted({entry.section for entry in FIGURES})


def test_a_running_session_says_so_far(session: SessionBuilder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "draw", lambda session, name: NoFigure(name, name, "not in this test"))
    monkeypatch.setattr("profilemate.sessions.state.is_alive", lambda process: True)
    assert main(["report", str(session.path), "--sections", "files"]) == 0
    text = text_of(session.path / "report.html")
    assert "running" in text and "so far" in text


def test_json_in_a_script_element_holds_no_tag_and_stays_the_same() -> None:
    value = {"a": "</script><!--\u2028\u2029\u202e&amp;", "b": [1.5, None, True]}
    text = inline.json_for_script(value)
    assert json.loads(text) == value
    assert text.isascii() and not set("<>&") & set(text)


def test_a_script_cannot_end_its_element() -> None:
    assert "</script" not in inline.script_text("x = '</script>'; y = '<!--'")
    bundle = inline.vega_script()
    assert "</script" not in bundle and "<!--" not in bundle and "vegaEmbed" in bundle


def test_data_is_packed_without_loss_and_what_json_lacks_is_null() -> None:
    rows = [{"a": 1, "b": float("nan")}, {"a": 1 / 3, "c": "x"}, {"b": float("inf")}]
    packed = drawing.packed_rows(rows)
    assert packed == {
        "columns": ["a", "b", "c"], "rows": [[1, None, None], [0.333333333, None, "x"], [None, None, None]]
    }  # fmt: skip


@pytest.mark.parametrize(("rows", "wanted"), [(0, 5), (1, 5), (5, 5), (6, 5), (1000, 24)])
def test_an_excerpt_has_the_first_and_the_last_row_and_none_twice(rows: int, wanted: int) -> None:
    places = drawing.spread(rows, wanted)
    assert len(places) == min(rows, wanted) and places == sorted(set(places))
    if rows:
        assert places[0] == 0 and places[-1] == rows - 1


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0, "0"),
        (0.29, "0.290"),
        (91.0, "91.0"),
        (123.4, "123"),
        (12345.6, "12,346"),
        (0.00001234, "1.2e-05"),
        (999.6, "1,000"),
    ],
)
def test_numbers_have_three_significant_digits(value: float, shown: str) -> None:
    assert numbers.significant(value) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0.0, "0 s"), (2.5, "2.50 s"), (0.012, "12.0 ms"), (3e-5, "30.0 µs"), (-0.5, "-500 ms")]
)
def test_durations_have_a_unit_that_is_read_easily(seconds: float, shown: str) -> None:
    assert " ".join(numbers.in_time_unit(seconds)) == shown


@pytest.mark.parametrize("value", [None, "12", True, float("nan"), float("inf"), [1]])
def test_what_is_no_number_is_unknown(value: object) -> None:
    assert not numbers.count("x", value).is_known and not numbers.duration("x", value).is_known


@pytest.mark.parametrize(
    ("seconds", "shown"), [(2.54, "2.5 s"), (59.97, "60.0 s"), (106, "1 min 46 s"), (3725, "1 h 2 min")]
)
def test_how_long_it_took(seconds: float, shown: str) -> None:
    assert numbers.lasting(seconds) == shown


def test_settings_are_written_as_a_person_would() -> None:
    nested = {"a": [1, 2], "b": {"c": None}, "d_bytes": 2048, "e": []}
    assert settings.shown(nested) == "a (1, 2), b (c none), d_bytes 2,048 (2.00 KiB), e (none)"
    assert settings.shown([1, "x", False]) == "1, x, False" and settings.shown(3, "d_bytes") == "3"
