"""`profilemate advise`: what it prints, and its exit codes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import golden
import pytest
from advise_steps import add_requests, add_steps, plain_step
from environment import ROOT
from graph_sessions import captures, config, full, piecewise, session_of
from session_builder import SessionBuilder

from profilemate.advise import TOPICS
from profilemate.advise.lengths import CUT
from profilemate.cli.main import main

LENGTHS = [(n, 20, "stop") for n in range(1, 301)]
READABLE = sorted(path.name for path in golden.SESSIONS.iterdir() if path.is_dir() and path.name != "old_format")


@pytest.fixture
def before(session: SessionBuilder) -> SessionBuilder:
    """Requests of at most 320 tokens under max_model_len 4,096; 448 is advised."""
    add_requests(session, LENGTHS)
    add_steps(session, [plain_step()])
    return session


def after(before: SessionBuilder, max_model_len: int, cut: int = 0) -> SessionBuilder:
    session = SessionBuilder(before.path.parent, "session_20251124_170000")
    add_requests(session, [*LENGTHS[: 300 - cut], *[(max_model_len - 20, 20, "length")] * cut])
    add_steps(session, [plain_step()], max_model_len=max_model_len)
    return session


def ladder_session(folder: Path, has_memory: bool = True) -> Path:
    """Decodes of 3, 5 and 8 and mixed batches of 11 on graphs of 1, 2, 8 and 16 tokens."""
    sizes = [1, 2, 8, 16]
    passes = [*[full(8, 3)] * 10, full(8, 5), full(8, 8), piecewise(16, 11)] * 20
    made = captures([1, 2, 8], sizes)
    if not has_memory:
        made = [{**row, "memory_bytes": None} for row in made]
    return Path(session_of(folder, config(sizes), made, passes).path)


def advise(*arguments: str, flags: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *flags, "-m", "profilemate", "advise", *arguments],
        capture_output=True, text=True, cwd=ROOT, env={"PATH": "/usr/bin:/bin", "HOME": "/nonexistent"}, check=False,
    )  # fmt: skip


def test_text_of_a_session(before: SessionBuilder, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["advise", str(before.path), "--topic", "lengths"]) == 0
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert lines[:2] == ["Advice for session_20251124_160000", "2 findings: 1 to look at, 1 with too little data"]
    assert "   Set: --max-model-len 448" in lines
    assert err == ""
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize(
    ("words", "sizes"), [("3", "8 16"), ("4", "8 11 16"), ("0.4s", "3 8 16"), ("0.4 s", "3 8 16"), ("40MiB", "3 8 16")]
)
def test_a_budget_of_captures(words: str, sizes: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = ladder_session(tmp_path)
    assert main(["advise", str(path), "--topic", "capture_sizes", "--capture-budget", words]) == 0
    assert f"Set: --cudagraph-capture-sizes {sizes}" in capsys.readouterr().out


def test_what_a_budget_predicted_is_looked_up_with_that_budget(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Run with the ladder of four graphs; that of as many as before would have been another one."""
    sizes = [8, 11, 16]
    passes = [*[full(8, 3)] * 10, full(8, 5), full(8, 8), piecewise(11, 11)] * 20
    after = session_of(tmp_path, config(sizes), captures([8], sizes), passes, "session_2").path
    command = ["advise", "--verify", str(ladder_session(tmp_path)), str(after), "--topic", "capture_sizes"]
    assert main([*command, "--capture-budget", "4"]) == 0
    assert main(command) == 2
    assert "was not run with what was advised" in capsys.readouterr().err


@pytest.mark.parametrize("words", ["0", "-3", "0s", "many", "5m", "1e9", "", "20 graphs", "0MiB"])
def test_what_is_no_budget(words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["advise", str(tmp_path), f"--capture-budget={words}"])
    assert ended.value.code == 2
    assert "is not a budget; for instance 20 (graphs), 5s or 500MiB" in capsys.readouterr().err


def test_a_budget_of_memory_where_none_was_recorded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = ladder_session(tmp_path, has_memory=False)
    assert main(["advise", str(path), "--capture-budget", "40MiB"]) == 2
    out, err = capsys.readouterr()
    assert out == "" and "a budget of memory needs the memory that captures took" in err


def test_json_of_a_session(before: SessionBuilder, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["advise", str(before.path), "--json", "--topic", "lengths", "--topic", "scheduling"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["schema"] == 1
    assert record["session"] == {"session_id": "session_20251124_160000", "path": str(before.path)}
    assert (record["topics"], record["failed_topics"]) == (["lengths", "scheduling"], [])
    assert record["findings"][0]["command_line"] == "--max-model-len 448"
    assert [one["number"] for one in record["findings"]] == list(range(1, len(record["findings"]) + 1))


def test_a_session_that_runs_says_so(before: SessionBuilder, capsys: pytest.CaptureFixture[str]) -> None:
    golden.alive_in(before.path)
    assert main(["advise", str(before.path), "--topic", "lengths"]) == 0
    assert capsys.readouterr().out.startswith("Advice for session_20251124_160000, still running: so far\n")


def test_verify_exits_with_0_if_all_holds(before: SessionBuilder, capsys: pytest.CaptureFixture[str]) -> None:
    other = after(before, 448)
    assert main(["advise", "--topic", "lengths", "--verify", str(before.path), str(other.path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "Predicted from session_20251124_160000, observed in session_20251124_170000"
    assert lines[1] == "2 of 2 predictions hold"
    assert f"1. holds: {CUT} (lengths.max_model_len)" in lines


def test_verify_exits_with_1_if_one_does_not_hold(before: SessionBuilder, capsys: pytest.CaptureFixture[str]) -> None:
    other = after(before, 448, cut=20)
    assert main(["advise", "--topic", "lengths", "--json", "--verify", str(before.path), str(other.path)]) == 1
    record = json.loads(capsys.readouterr().out)
    assert (record["all_hold"], record["not_looked_up"], record["also_changed"]) == (False, [], {})
    assert (record["verdicts"][0]["quantity"], record["verdicts"][0]["holds"]) == (CUT, False)
    assert record["verdicts"][0]["observed"] == pytest.approx(100 * 20 / 300, rel=1e-5)


def test_verify_refuses_a_session_without_the_advice(
    before: SessionBuilder, capsys: pytest.CaptureFixture[str]
) -> None:
    other = after(before, 2048)
    assert main(["advise", "--topic", "lengths", "--verify", str(before.path), str(other.path)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err == (
        "profilemate: no prediction can be looked up, since the second session was not run with what was advised: "
        "lengths.max_model_len: --max-model-len 448 was advised; the other session was run with 2048\n"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["/nonexistent/session"], "profilemate: there is no session at /nonexistent/session\n"),
        (["/etc/hostname"], "profilemate: /etc/hostname is a file; a session is a folder session_...\n"),
        (["--topic", "weather"], "invalid choice: 'weather'"),
        (["--verify", "one"], "expected 2 arguments"),
        (["--verify", "/nonexistent/one", "/nonexistent/other"], "there is no session at /nonexistent/one"),
        ([str(golden.SESSIONS / "old_format")], "has format 1, this ProfileMate reads format 2"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(arguments: list[str], message: str) -> None:
    done = advise(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_help_names_the_topics_and_has_examples_without_any_package() -> None:
    done = advise("--help", flags=("-S",))
    assert done.returncode == 0
    assert all(topic in done.stdout for topic in TOPICS)
    assert "examples:" in done.stdout


def test_without_the_packages_it_is_one_pip_line(before: SessionBuilder) -> None:
    done = advise(str(before.path), flags=("-S",))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "profilemate: this needs the package polars: pip install 'profilemate[report]'\n"


@pytest.mark.parametrize("name", READABLE)
def test_no_topic_fails_on_a_golden_session(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["advise", str(golden.copy(name, tmp_path)), "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["failed_topics"] == []
    assert record["topics"] == list(TOPICS)
    assert record["findings"]
