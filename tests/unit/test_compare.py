"""Comparing sessions of made-up rows: values by hand, settings, load, the command."""

from __future__ import annotations

import json
import math
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import environment
import pytest
import report_pages
from session_builder import SessionBuilder, at

import profilemate
from profilemate.cli import main as cli
from profilemate.compare.catalogue import BY_NAME, NUMBERS
from profilemate.compare.comparison import Comparison, compare
from profilemate.compare.conditions import outcomes, parse
from profilemate.compare.ladder import ladders
from profilemate.schema.step_table import step_table
from profilemate.schema.table import Table
from profilemate.trackers.cuda_graphs import events as graphs
from profilemate.trackers.engine_steps import events as steps
from profilemate.trackers.forward_passes import events as passes
from profilemate.trackers.kv_cache import events as kv
from profilemate.trackers.requests import events as requests

STEP_ROW = Table("engine_steps", "", (*steps.STEPS.fields, *kv.STEPS.fields[3:]), "")
PASS_ROW = Table("forward_passes", "", (*passes.PASSES.fields, *graphs.PASSES.fields[6:]), "")
assert step_table("", "").columns == STEP_ROW.columns[:3]

BEGIN = 10.0
STEP_SECONDS = 0.05
CONFIG = {"num_gpu_blocks": 201, "max_num_seqs": 16, "device": "cpu", "model": "m"}


class Server:
    """A server of one engine that makes a step every 50 ms, `slow` times as long, and answers a request every 4 steps."""

    def __init__(
        self, folder: Path, name: str, seed: int = 0, slow: float = 1.0, count: int = 4000, **config: Any
    ) -> None:
        self.dice = random.Random(seed)
        self.session = SessionBuilder(folder, name)
        self.slow, self.count, self.config = slow, count, {**CONFIG, **config}
        self.times = [BEGIN + n * STEP_SECONDS * slow * self.noise(0.002) for n in range(count)]
        self.times.sort()
        self.prompt_scale = 1.0

    def noise(self, part: float) -> float:
        return 1 + part * self.dice.gauss(0, 1)

    def write(self) -> Path:
        self.session.process("APIServer", engine_index=None).rows(requests.ENDS, *self.ends())
        self.session.process("EngineCore", engine_config=self.config).rows(STEP_ROW, *self.steps())
        worker = self.session.process("Worker", engine_config=self.config)
        worker.rows(PASS_ROW, *self.passes()).rows(graphs.CAPTURES, *self.captures())
        return self.session.path

    def ends(self) -> list[dict[str, Any]]:
        rows = []
        for n in range(0, self.count - 24, 4):
            arrival, first = self.times[n], self.times[n + 2]
            last = first + 20 * STEP_SECONDS * self.slow * self.noise(0.05)
            ttft = (first - arrival) * self.noise(0.02)
            rows.append({
                "time_ns": at(last), "request": f"r{n}", "reason": "length", "is_counted": True, "end_ns": at(last),
                "e2e_ns": round(1e9 * (ttft + last - first)), "ttft_ns": round(1e9 * ttft), "queued_ns": at(arrival),
                "scheduled_ns": at(arrival + 0.01 * self.slow * self.noise(0.1)), "first_token_ns": at(first),
                "last_token_ns": at(last), "prompt_tokens": round(self.prompt_scale * self.dice.randint(50, 150)),
                "cached_tokens": 0, "output_tokens": 21, "preemptions": 0,
            })  # fmt: skip
        return rows

    def steps(self) -> list[dict[str, Any]]:
        rows, sums = [], dict.fromkeys(("query_tokens", "hit_tokens", "evicted"), 0)
        for n, time in enumerate(self.times):
            asked = 100 * (n % 4 == 0)
            sums["query_tokens"] += asked
            sums["hit_tokens"] += self.dice.randint(20, 60) if asked else 0
            sums["evicted"] += self.dice.randint(0, 2)
            batch = self.dice.randint(2, 8)
            rows.append({
                "time_ns": at(time), "engine": 0, "step": n + 1, "scheduled_ns": at(time - 0.04), "schedule_ns": 400_000,
                "running": batch, "waiting": 1, "skipped": 0, "step_requests": batch, "step_tokens": batch + asked,
                "context_requests": int(bool(asked)), "context_tokens": asked, "recomputed_tokens": 0, "step_preempted": 0,
                "limit": "token_budget" if asked else "no_work", "free_blocks": 100, "max_requests": 16,
                "max_step_tokens": 256, "usable_blocks": 200, "model_ns": 1,
                "blocked_ns": round(4e7 * self.slow * self.noise(0.1)), "update_ns": 300_000, "between_ns": 100_000,
                "no_requests_ns": 0, "step_finished": 0, "drafted_tokens": 0, "accepted_tokens": 0, "in_flight": 0,
                "total_blocks": 200, "in_use": 100, "cached_free": 50, "empty": 50, "step_peak": 100, "peak": 120,
                "peak_time_ns": at(BEGIN), "preemptions": 0, "query_requests": n, "allocated": n, **sums,
            })  # fmt: skip
        return rows

    def passes(self) -> list[dict[str, Any]]:
        rows = []
        for n, time in enumerate(self.times):
            is_mixed = n % 4 == 0
            tokens = 100 if is_mixed else self.dice.randint(2, 8)
            rows.append({
                "time_ns": at(time - 0.03), "step": n + 1, "forward": n + 1, "runtime_mode": "NONE" if is_mixed else "FULL",
                "host_ns": round(3e7 * self.slow * self.noise(0.1)), "clock": "monotonic",
                "phase": "mixed" if is_mixed else "decode", "requests": 4, "tokens": tokens,
                "context_requests": int(is_mixed), "context_tokens": 0, "execute_ns": 1, "num_tokens": 100 if is_mixed else 8,
                "uniform": not is_mixed, "has_lora": False, "unpadded_tokens": tokens, "unpadded_reqs": 4,
                "graphs": int(not is_mixed), "fault": "",
            })  # fmt: skip
        return rows

    def captures(self) -> list[dict[str, Any]]:
        return [
            {"time_ns": at(1), "purpose": purpose, "owner": "main", "runtime_mode": "FULL", "num_tokens": size,
             "num_reqs": size, "uniform": True, "has_lora": False, "duration_ns": 10_000_000, "graphs": 1, "site": "x"}
            for purpose, size in (("estimate", 64), ("serving", 8), ("serving", 16))
        ]  # fmt: skip


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("sessions")
    longer = Server(folder, "session_20251124_160300", seed=4)
    longer.prompt_scale = 1.5
    return {
        "a": Server(folder, "session_20251124_160000", seed=1).write(),
        "same": Server(folder, "session_20251124_160100", seed=2, count=3000).write(),
        "slow": Server(folder, "session_20251124_160200", seed=3, slow=1.1, max_num_seqs=8).write(),
        "longer": longer.write(),
    }


def compared(*paths: Path) -> Comparison:
    return compare([profilemate.open(path) for path in paths])


@pytest.fixture(scope="module")
def with_slow(folders: dict[str, Path]) -> Comparison:
    return compared(folders["a"], folders["slow"])


def verdicts(comparison: Comparison, session: int = 0) -> dict[str, str]:
    return {change.number.name: change.verdict for change in comparison.changes[session]}


def test_names_are_unique_and_say_what_they_are() -> None:
    assert len(BY_NAME) == len(NUMBERS) > 50
    assert all(number.title and number.group for number in NUMBERS)


def test_whole_numbers_are_those_of_the_sessions_own_metadata(with_slow: Comparison) -> None:
    """The oracle is the session's summary, which other code makes in another way (row by row, no frames)."""
    for side in with_slow.sides:
        summary = json.loads((Path(side.path) / "metadata.json").read_text())["summary"]
        whole, wanted = side.whole, {}
        for name, key in (("ttft", "ttft"), ("tpot", "tpot"), ("e2e", "e2e"), ("queue", "queue")):
            wanted[f"{name}_mean"] = summary["requests"]["latencies"][key]["mean_sec"]
        passes = summary["cuda_graphs"]["forward_passes"]
        wanted["full_graph_share"] = passes["full_graph"] / passes["total"]
        wanted["no_graph_share"] = passes["no_graph"] / passes["total"]
        wanted["padding_share"] = summary["cuda_graphs"]["padding_fraction"]
        wanted["hit_rate"] = summary["kv_cache"]["hit_rate"]
        wanted["kv_usage_peak"] = summary["kv_cache"]["peak_blocks"] / 200
        wanted["schedule_time_mean"] = summary["engine_steps"]["scheduling_ms"]["mean"] / 1e3
        wanted["bound_by_token_budget"] = summary["engine_steps"]["share_by_limit"]["token_budget"]
        wanted["batch_tokens_mean"] = (
            summary["engine_steps"]["scheduled_tokens"] / summary["engine_steps"]["busy_steps"]
        )
        wanted["evictions"] = summary["kv_cache"]["evicted"] / summary["requests"]["requests"]
        for phase in ("decode", "mixed"):
            wanted[f"{phase}_pass_mean"] = summary["forward_passes"]["phases"][phase]["mean_ms"] / 1e3
        for name, value in wanted.items():
            assert math.isclose(whole[name] or 0, value, rel_tol=1e-5, abs_tol=1e-6), (name, whole[name], value)


def test_totals_are_those_of_the_sessions_own_metadata(with_slow: Comparison) -> None:
    for side in with_slow.sides:
        summary = json.loads((Path(side.path) / "metadata.json").read_text())["summary"]
        totals = {total.name: total.value for total in side.totals}
        assert totals["requests"] == summary["requests"]["requests"] == 994
        assert totals["output_tokens"] == 994 * 21
        assert totals["steps"] == summary["engine_steps"]["total_samples"] == 4000
        assert totals["evicted_blocks"] == summary["kv_cache"]["evicted"] > 0
        assert totals["replays"] == summary["cuda_graphs"]["replays"] == 3000
        assert totals["graphs_captured"] == 2


def test_a_slower_server_is_found_and_what_did_not_change_is_not(with_slow: Comparison) -> None:
    found = verdicts(with_slow)
    worse = {"tpot_mean", "tpot_p50", "tpot_p95", "ttft_mean", "e2e_p50", "step_time_mean", "decode_pass_p50",
             "mixed_pass_mean", "output_throughput", "request_throughput"}  # fmt: skip
    assert {name for name in worse if found[name] != "worse"} == set()
    unchanged = {
        "full_graph_share",
        "padding_share",
        "hit_rate",
        "batch_requests_mean",
        "schedule_time_mean",
        "prompt_length",
    }
    assert {name for name in unchanged if found[name] != "same"} == set()


def test_the_change_and_its_interval_are_right(with_slow: Comparison) -> None:
    change = next(one for one in with_slow.changes[0] if one.number.name == "step_time_mean")
    true = (40 * 1.1 + 0.8) / (40 + 0.8) - 1
    assert change.low is not None and change.high is not None and change.relative is not None
    assert change.low < true < change.high and change.high - change.low < 0.03
    assert abs(change.relative - true) < 0.01


def test_two_runs_of_the_same_server_do_not_differ(folders: dict[str, Path]) -> None:
    found = verdicts(compared(folders["a"], folders["same"]))
    assert {name for name, verdict in found.items() if verdict in ("worse", "better", "differs")} == set()
    assert sum(verdict == "same" for verdict in found.values()) > 35


def test_graphs_are_those_of_the_sessions_own_files(with_slow: Comparison) -> None:
    """Captured in vain, replayed, and none of the estimates that vLLM throws away."""
    found = {(step.mode, step.size): step.rungs for step in ladders([side.material for side in with_slow.sides])}
    assert set(found) == {("FULL", 8), ("FULL", 16)}
    for rung in found["FULL", 8]:
        assert rung is not None and (rung.replays, rung.share, rung.is_captured) == (3000, 0.75, True)
    assert all(rung is not None and (rung.replays, rung.is_captured) == (0, True) for rung in found["FULL", 16])


def test_settings_that_differ_are_named_and_no_others(with_slow: Comparison) -> None:
    rows = {(one.area, one.name): one.values for one in with_slow.settings}
    assert rows == {("vLLM", "max_num_seqs"): ("16", "8")}


def test_the_numbers_of_a_third_session_are_against_the_first(folders: dict[str, Path]) -> None:
    three = compared(folders["a"], folders["same"], folders["slow"])
    assert [side.label for side in three.sides] == ["A", "B", "C"]
    assert verdicts(three, 0)["tpot_mean"] == "same" and verdicts(three, 1)["tpot_mean"] == "worse"


def test_another_load_is_said(folders: dict[str, Path], with_slow: Comparison) -> None:
    said = compared(folders["a"], folders["longer"]).load
    assert len(said) == 1 and said[0].startswith("B had longer prompts: ")
    assert with_slow.load == (), "a closed loop that a slower server slows down is the same load"


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "profilemate", "compare", *words], cwd=environment.ROOT,
        env={**environment.clean(), "COLUMNS": "80"}, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_the_text_fits_and_pipes_plainly(folders: dict[str, Path]) -> None:
    done = run(str(folders["a"]), str(folders["slow"]), str(folders["same"]))
    assert done.returncode == 0 and done.stderr == ""
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert "\x1b" not in done.stdout and done.stdout.isascii()
    assert "max_num_seqs  16  8  16" in done.stdout
    titles = [line for line in done.stdout.splitlines() if line.startswith("time per output token, p50 ")]
    assert [line.rstrip().endswith(word) for line, word in zip(titles, ("worse", "within noise"), strict=True)] == [
        True,
        True,
    ]
    assert any(line.startswith("  worse    time per output token, p50: 5") for line in done.stdout.splitlines())
    assert "FULL 16" in done.stdout and "FULL 64" not in done.stdout


def call(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = cli.main(["compare", *words])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.mark.parametrize(
    ("condition", "state"),
    [
        ("tpot_p50 > +5%", "holds"),
        ("tpot_p50 > +15%", "does not hold"),
        ("tpot_p50 > +3ms", "holds"),
        ("tpot_p50>+9000us", "does not hold"),
        ("tpot_p50 > 40 ms", "holds"),
        ("tpot_p50 > 1s", "does not hold"),
        ("output_throughput < -5%", "holds"),
        ("output_throughput <= 1 tokens/s", "does not hold"),
        ("hit_rate < 50%", "holds"),
        ("hit_rate >= 50%", "does not hold"),
        ("hit_rate < -10pt", "does not hold"),
        ("ttft_p99 > +1%", "cannot tell"),
        ("acceptance < -1pt", "cannot tell"),
        ("evictions > 1e9", "does not hold"),
    ],
)
def test_a_condition_holds_or_does_not_or_cannot_be_told(with_slow: Comparison, condition: str, state: str) -> None:
    (outcome,) = outcomes([parse(condition)], with_slow.changes[-1])
    assert outcome.state == state and outcome.says.startswith(f"{condition}: ")


def test_conditions_decide_the_exit_code(folders: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    words = (str(folders["a"]), str(folders["slow"]), "--fail-if", "tpot_p50 > +15%", "--json")
    code, out, err = call(capsys, *words)
    assert (code, err) == (0, "") and json.loads(out)["conditions"][0]["state"] == "does not hold"
    code, out, err = call(capsys, *words, "--fail-if", "tpot_p50 > +5%")
    assert code == 1 and err.startswith("profilemate: tpot_p50 > +5%: holds, tpot_p50 went from ")
    assert [one["state"] for one in json.loads(out)["conditions"]] == ["does not hold", "holds"]


def test_a_change_within_the_noise_fails_nothing_unless_told_to(
    folders: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    words = (str(folders["a"]), str(folders["same"]), "--fail-if", "ttft_p95 > -50%")
    code, out, _ = call(capsys, *words)
    assert code == 0 and "which is within the noise" in out
    code, out, _ = call(capsys, *words, "--ignore-noise")
    assert code == 1 and "the noise was not looked at" in out


def test_thin_data_fails_where_that_is_asked_for(folders: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    words = (str(folders["a"]), str(folders["slow"]), "--fail-if", "ttft_p99 > +1%")
    assert call(capsys, *words)[0] == 0
    code, out, _ = call(capsys, *words, "--fail-if-unsure")
    assert code == 1 and "cannot be told" in out and "1000 are needed" in out


@pytest.mark.parametrize(
    ("condition", "said"),
    [
        ("ttft_p59 > +10%", "near it: ttft_p99, ttft_p95, ttft_p50"),
        ("ttft_p95 ! 10%", "at character 10 there should be one of > >= < <=; '! 10%' stands there"),
        ("ttft_p95 > ten", "at character 12 there should be a value"),
        ("ttft_p95 >", "it ends there"),
        ("ttft_p95 > 10%", "a sign before the percent"),
        ("ttft_p95 > +10", "% or s, ms, us or ns after the value"),
        (
            "ttft_p95 > 10 parsecs",
            "at character 15 there should be s, ms, us or ns after the value; 'parsecs' stands there",
        ),
        ("hit_rate < -2", "% after the value: hit_rate is a share"),
        ("", "the name of a number"),
    ],
)
def test_a_wrong_condition_is_one_sentence_with_the_place(
    capsys: pytest.CaptureFixture[str], condition: str, said: str
) -> None:
    code, out, err = call(capsys, "nowhere", "nowhere", "--fail-if", condition)
    assert code == 2 and out == "" and said in err and err.count("\n") == 1


def test_bad_input_is_one_sentence(
    folders: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    both = (str(folders["a"]), str(folders["same"]))
    for words in ((both[0],), (*both, "--least", "-1"), (both[0], str(tmp_path / "none")),
                  (*both, "--html", str(tmp_path / "no" / "x.html"))):  # fmt: skip
        code, _, err = call(capsys, *words)
        assert code == 2 and err.startswith("profilemate: ") and err.count("\n") == 1, err


def test_list_names_every_number(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call(capsys, "--list")
    assert code == 0 and [line.split()[0] for line in out.splitlines()] == [number.name for number in NUMBERS]


def test_an_empty_session_compares_with_nothing_told(tmp_path: Path, folders: dict[str, Path]) -> None:
    empty = SessionBuilder(tmp_path, "session_20251124_170000")
    empty.process("EngineCore")
    for pair in ((empty.path, folders["a"]), (folders["a"], empty.path), (empty.path, empty.path)):
        found = verdicts(compared(*pair))
        assert set(found.values()) <= {"cannot tell", "one value"}


def test_the_page_is_whole_and_escapes_what_it_shows(browser: Any, tmp_path: Path) -> None:
    script = "<script>alert('x')</script>"
    paths = [
        Server(tmp_path, f"session_20251124_18000{n}", seed=n, count=600, model=f"{script}{n}").write()
        for n in range(2)
    ]
    page = tmp_path / "page.html"
    assert cli.main(["compare", *map(str, paths), "--html", str(page)]) == 0
    text = page.read_text()
    assert script not in text and "&lt;script&gt;alert" in text
    assert 'http-equiv="Content-Security-Policy" content="default-src \'none\'' in text.replace("&#39;", "'")
    for name in ("changes_B_percent", "ladder", "ttft", "tpot", "step_time", "batch_requests"):
        assert f'data-spec="{name}"' in text
    assert len(text) < 3_000_000
    for width in (report_pages.WIDE, report_pages.PHONE):
        with report_pages.opened(browser, page, width) as found:
            found.draw_all()
            assert found.said == [] and found.overflow() <= 0
            assert len(found.plots()) == len(found.page.query_selector_all("[data-drawn] svg")) >= 6
            assert [url for url in found.asked if not url.startswith("file:")] == []
