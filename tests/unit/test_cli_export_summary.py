"""The command line: messages, exit codes, what it loads."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from environment import ROOT
from sample_rows import add_engine, add_server, step
from session_builder import SessionBuilder

from profilemate.cli.main import main
from profilemate.cli.summary import short_summary
from profilemate.export.readme_files import file_names
from profilemate.session.session import Session
from profilemate.trackers.kv_cache import events as kv


def run(*arguments: str, flags: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *flags, "-m", "profilemate", *arguments],
        capture_output=True, text=True, cwd=ROOT, env={"PATH": "/usr/bin:/bin", "HOME": "/nonexistent"},
    )  # fmt: skip


def test_export_writes_the_files_and_prints_where(session: SessionBuilder, capsys: pytest.CaptureFixture[str]) -> None:
    add_server(session)
    assert main(["export", str(session.path)]) == 0
    assert capsys.readouterr().out == f"{session.path}\n"
    assert all((session.path / name).is_file() for name in file_names(Session(session.path)))


def test_export_needs_no_third_party_package_and_nothing_of_the_probe(session: SessionBuilder) -> None:
    add_server(session)
    done = run("export", str(session.path), flags=("-S", "-W", "error"))
    assert (done.returncode, done.stderr) == (0, "")
    script = (
        "import sys; from profilemate.cli.main import main; main(['summary', sys.argv[1]]);"
        "bad = [m for m in sys.modules if m.split('.')[0] in ('pandas', 'numpy', 'vllm', 'torch')"
        " or m.startswith(('profilemate.probe', 'profilemate.boot'))]; sys.exit(str(bad) if bad else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-c", script, str(session.path)], capture_output=True, text=True, cwd=ROOT
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["export", "/nonexistent/session"], "profilemate: there is no session at /nonexistent/session\n"),
        (["summary", "/etc/hostname"], "profilemate: /etc/hostname is a file; a session is a folder session_...\n"),
        (["exprot"], "profilemate: there is no command 'exprot'; there are"),
        (["export", "--format", "pdf"], "invalid choice: 'pdf'"),
        (["export", "--wait", "soon"], "invalid"),
        ([], "usage: profilemate"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(arguments: list[str], message: str) -> None:
    done = run(*arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_help_has_examples() -> None:
    for command in ("export", "summary"):
        done = run(command, "--help")
        assert done.returncode == 0
        assert "examples:" in done.stdout
    assert "export" in run("--help").stdout


def test_a_closed_pipe_is_quiet(server: SessionBuilder) -> None:
    done = subprocess.run(
        ["bash", "-c", f"{sys.executable} -m profilemate summary {server.path} | head -1"],
        capture_output=True, text=True, cwd=ROOT,
    )  # fmt: skip
    assert done.stdout.startswith("session_20251124_160000, begun 2025-11-24T16:00:00Z on host, vLLM 0.32.0")
    assert done.stderr == ""


def test_summary_text(session: SessionBuilder, capsys: pytest.CaptureFixture[str]) -> None:
    add_server(session)
    assert main(["summary", str(session.path)]) == 0
    out = capsys.readouterr().out
    for expected in (
        "forward passes 5: full graph 3 (60.0 %), piecewise 1 (20.0 %), no graph 1 (20.0 %)",
        "padding: 22.5 % of 40 tokens in replayed graphs",
        "never replayed: FULL 4 tokens, 4 requests, uniform",
        "prefix cache hit rate 25.0 %",
        "did not fit: graph.old (has no x)",
        "in place but never called: BlockPool.free",
        "as of 2.900 s",
    ):
        assert expected in out
    assert 10 <= len(out.splitlines()) <= 60
    assert (session.path / "metadata.json").exists()


def test_summary_follows_the_streams(server: SessionBuilder, capsys: pytest.CaptureFixture[str]) -> None:
    steps = next(server.path.glob("processes/EngineCore*/engine_steps.csv"))
    with open(steps, "a") as file:
        file.write(steps.read_text().splitlines()[-1].replace(",0,2,200,", ",0,3,200,") + "\n")
    assert main(["summary", "--json", str(server.path)]) == 0
    assert json.loads(capsys.readouterr().out)["summary"]["kv_cache"]["steps"] == 3


def test_short_summary(session: SessionBuilder, tmp_path: Path) -> None:
    add_server(session)
    lines = short_summary(session.path).splitlines()
    assert 5 <= len(lines) <= 14
    assert short_summary(SessionBuilder(tmp_path, "session_20200101_000000").path).count("\n") >= 3


def test_control_characters_do_not_reach_the_terminal(session: SessionBuilder) -> None:
    add_engine(session, role="EngineCore", warnings=["\x1b[31mred\nnext"], vllm="\x1b]0;x\x07")
    done = run("summary", str(session.path))
    assert done.returncode == 0
    assert "\x1b" not in done.stdout and "\x07" not in done.stdout


def test_latest_and_prometheus_to_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("prometheus_client")
    monkeypatch.setenv("VLLM_PROFILING_DIR", str(tmp_path))
    SessionBuilder(tmp_path, "session_20250101_000000").process("EngineCore").rows(kv.STEPS, step(1, 1, 1))
    output = tmp_path / "samples.prom"
    assert main(["export", "--format", "prometheus", "--output", str(output)]) == 0
    assert capsys.readouterr().out == ""
    assert "profilemate:engine_steps_total" in output.read_text()
