"""`profilemate plot`: every format, several at once, clear sentences for what cannot be drawn."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import environment
import pytest
import report_pages
from figure_sessions import rich_session
from session_builder import SessionBuilder

import profilemate
from profilemate.cli.main import main
from profilemate.figures import BY_NAME, draw
from profilemate.figures.figure import Figure
from profilemate.figures.picture import Look, encoded, in_script

SCRIPT = "</script><script>alert(1)</script>"
BEGINNINGS = {"png": b"\x89PNG\r\n", "svg": b"<svg", "pdf": b"%PDF-", "html": b"<!doctype html>", "json": b"{"}

pytest.importorskip("vl_convert")


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A session with something in every figure, and a request whose id is markup."""
    return rich_session(tmp_path_factory.mktemp("rich"), 200, first=SCRIPT).path


@pytest.mark.parametrize("kind", BEGINNINGS)
def test_the_ending_says_the_format(path: Path, tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "new folder" / f"kv.{kind}"
    assert main(["plot", str(path), "--what", "kv_usage", "-o", str(target)]) == 0
    assert target.read_bytes().startswith(BEGINNINGS[kind])
    out = capsys.readouterr()
    assert out.out.startswith(f"{target}: On average ") and out.err == ""


def test_several_go_into_a_folder_and_the_missing_one_is_told(
    path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    what = [word for name in ("ttft", "memory_bandwidth", "step_limits") for word in ("--what", name)]
    assert main(["plot", str(path), *what, "-o", f"{tmp_path}/out/", "--format", "json"]) == 2
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == ["step_limits.json", "ttft.json"]
    err = capsys.readouterr().err
    assert err == "profilemate: no memory_bandwidth: no forward pass has both a time and the model's sizes\n"


def test_all_draws_what_there_is(path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plot", str(path), "--what", "all", "-o", str(tmp_path / "out"), "--format", "json", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    drawn = {one["name"] for one in told["figures"] if one["file"]}
    assert {one["name"] for one in told["figures"]} == set(BY_NAME)
    assert set(BY_NAME) - drawn == {"kv_usage_by_engine", "memory_bandwidth", "compute_rate"}
    assert {file.stem for file in (tmp_path / "out").iterdir()} == drawn
    assert all(one["reason"] for one in told["figures"] if not one["file"])


def test_size_theme_and_font_are_as_asked(path: Path, tmp_path: Path) -> None:
    target = tmp_path / "a.json"
    options = [
        "--width",
        "333",
        "--height",
        "111",
        "--theme",
        "dark",
        "--font",
        "Times New Roman",
        "--font-size",
        "9",
        "--no-title",
    ]
    assert main(["plot", str(path), "--what", "ttft", "-o", str(target), *options]) == 0
    spec = json.loads(target.read_text())
    assert (spec["width"], spec["height"], spec["config"]["font"]) == (333, 111, "Times New Roman")
    assert spec["config"]["background"] == "#15181C" and "title" not in spec
    assert spec["config"]["axis"]["labelFontSize"] == 8
    assert main(["plot", str(path), "--what", "ttft", "-o", str(target), "--transparent"]) == 0
    spec = json.loads(target.read_text())
    assert spec["config"]["background"] is None and spec["title"]["text"] == "Time to first token"


def test_a_png_has_so_many_pixels_as_its_scale_says(path: Path) -> None:
    figure = draw(profilemate.open(path), "ttft")
    assert isinstance(figure, Figure)
    widths = [int.from_bytes(encoded(figure, "png", Look(scale=scale))[16:20], "big") for scale in (1, 3)]
    assert abs(widths[1] - 3 * widths[0]) <= 3
    assert 700 < widths[0] < 900


def test_a_page_loads_nothing_and_takes_ids_for_text(browser: Any, path: Path, tmp_path: Path) -> None:
    target = tmp_path / "a.html"
    assert main(["plot", str(path), "--what", "request_waterfall", "-o", str(target), "--theme", "dark"]) == 0
    assert target.read_text().count("</script>") == 2
    with report_pages.opened(browser, target, report_pages.PHONE) as found:
        found.page.wait_for_selector("#chart svg")
        texts = found.page.locator("#chart svg text").all_text_contents()
        assert (found.asked, found.said, found.overflow() > 0) == ([target.as_uri()], [], False)
    assert any(text.startswith("</script><scrip") for text in texts)


def test_json_in_a_script_cannot_end_it() -> None:
    text = in_script({"a": "</script><!--&\u2028"})
    assert not {"<", ">", "&", "\u2028"} & set(text)
    assert json.loads(text) == {"a": "</script><!--&\u2028"}


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--what", "kv_usge"], "there is no figure 'kv_usge'; did you mean kv_usage or"),
        (["--what", "xyzzy"], "there is no figure 'xyzzy'; there are throughput,"),
        ([], "say which figure with --what: throughput,"),
        (["--what", "ttft", "-o", "a.gif"], "a.gif: the ending says the format, one of png, svg, pdf, html, json"),
        (
            ["--what", "ttft", "--what", "tpot", "-o", "a.png"],
            "2 figures do not fit into a.png: name a folder, such as a/",
        ),
        (["--what", "ttft", "-o", "a.png", "--format", "svg"], "a.png ends in .png, and --format says svg"),
        (["--what", "ttft", "--fonts-from", "/nowhere"], "there is no folder /nowhere"),
    ],
)
def test_bad_input_is_a_sentence(
    path: Path, arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plot", str(path), *arguments]) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"profilemate: {sentence}") and err.count("\n") == 1 and "Traceback" not in err


def test_a_size_that_is_none_is_refused(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for option, value in (("--width", "0"), ("--height", "tall"), ("--scale", "nan"), ("--font-size", "1e9")):
        with pytest.raises(SystemExit) as refused:
            main(["plot", str(path), "--what", "ttft", option, value])
        assert refused.value.code == 2
        assert f"argument {option}: '{value}' is not a number from" in capsys.readouterr().err


def test_an_empty_session_and_no_session(
    session: SessionBuilder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plot", str(session.path), "--what", "kv_usage", "-o", str(tmp_path / "a.png")]) == 2
    assert capsys.readouterr().err == "profilemate: no kv_usage: the KV cache tracker recorded no engine step\n"
    assert not (tmp_path / "a.png").exists()
    assert main(["plot", str(tmp_path / "nowhere"), "--what", "kv_usage"]) == 2
    assert "there is no session at" in capsys.readouterr().err


def test_the_list_has_a_line_for_each(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plot", "--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(BY_NAME)
    assert main(["plot", "--list", "--json"]) == 0
    assert [one["name"] for one in json.loads(capsys.readouterr().out)] == list(BY_NAME)


def test_help_needs_no_third_party_package() -> None:
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); from profilemate.cli.main import main; main(['plot', '--help'])"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-E", "-c", code, str(environment.ROOT)], capture_output=True, text=True
    )
    assert done.returncode == 0 and "profilemate plot --what kv_usage -o kv.png" in done.stdout, done.stderr


def test_the_document_has_a_row_for_every_figure_and_no_other() -> None:
    text = (environment.ROOT / "docs" / "figures.md").read_text()
    lines = [line for line in text.splitlines() if line.startswith("| `") and not line.startswith("| `-")]
    named = [line.split("|")[1].strip().strip("`") for line in lines]
    assert named == list(BY_NAME)
    for entry in BY_NAME.values():
        line = next(line for line in lines if line.startswith(f"| `{entry.name}`"))
        assert entry.shows in line and all(f"`{tracker}`" in line for tracker in entry.trackers), entry.name
