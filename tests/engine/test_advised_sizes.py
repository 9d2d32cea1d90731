"""Advised capture sizes on vLLM itself: what was predicted from one run is what vLLM counts in the next, to the unit.

The oracle is vLLM's CUDAGraphStat of each pass, read past ProfileMate; vLLM's own classes tell what it makes of sizes.
"""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any, NamedTuple

import environment
import pytest
import streams
import warm

import profilemate
from profilemate.advise import capture_sizes, graph_use
from profilemate.advise.finding import ACT, THIN, Finding
from profilemate.advise.graphs.plan import Budget
from profilemate.advise.graphs.rules import NONE, Ladder, Rules
from profilemate.frames.session import Session

DRIVER = environment.ROOT / "tests" / "engine" / "run_advised_sizes.py"
V2 = {"VLLM_USE_V2_MODEL_RUNNER": "1", "TRITON_INTERPRET": "1"}
V1 = {"VLLM_USE_V2_MODEL_RUNNER": "0"}
BEFORE = "--cudagraph-capture-sizes 16 1 2 4 8 8 4096"
"""Unordered, twice the same, one that vLLM drops; and decode batches of 17 to 24 have none."""
CASES = {
    "v1-full-and-piecewise": ("FULL_AND_PIECEWISE", V1),
    "v1-full-decode-only": ("FULL_DECODE_ONLY", V1),
}


class Run(NamedTuple):
    """What vLLM counted, and what ProfileMate recorded."""

    stats: list[tuple[str, int, int]]
    """Runtime mode, unpadded and padded tokens of each pass."""
    sizes: list[int]
    session: Session

    @property
    def padded_tokens(self) -> int:
        """Sum over all passes."""
        return sum(padded for _, _, padded in self.stats)

    @property
    def uncovered(self) -> int:
        """Passes without a graph."""
        return sum(mode == "NONE" for mode, _, _ in self.stats)

    @property
    def batches(self) -> list[int]:
        """Unpadded tokens."""
        return [tokens for _, tokens, _ in self.stats]


def run(folder: Path, model: Path, flags: str, mode: str, env: dict[str, str], *more: str) -> Run:
    folder.mkdir()
    profiled = environment.profiled(
        folder,
        environment.STANDIN,
        STANDIN_GRAPHS="1",
        STANDIN_GRAPHS_LOG=str(folder / "truth"),
        VLLM_ENABLE_V1_MULTIPROCESSING="0",
        **env,
    )
    command = [str(DRIVER), str(folder / "oracle.json"), "--model", str(model), "--mode", mode]
    done = warm.run([*command, *more, *shlex.split(flags)], env=profiled)
    assert done.returncode == 0, done.stderr[-3000:]
    oracle: dict[str, Any] = json.loads((folder / "oracle.json").read_text())
    stats = [(str(mode), int(unpadded), int(padded)) for mode, unpadded, padded in oracle["stats"]]
    return Run(stats, oracle["sizes"], profilemate.open(streams.only_session(folder)))


class Advised(NamedTuple):
    """A run, what was advised from it, and the run with that."""

    before: Run
    finding: Finding
    after: Run


@pytest.fixture(scope="module", params=list(CASES))
def advised(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Advised:
    mode, env = CASES[request.param]
    folder = tmp_path_factory.mktemp(request.param)
    before = run(folder / "before", tiny_model, BEFORE, mode, env)
    ladder, *_ = capture_sizes.advise(before.session)
    assert ladder.level == ACT, ladder
    after = run(folder / "after", tiny_model, ladder.command_line, mode, env)
    return Advised(before, ladder, after)


def test_the_load_makes_the_same_batches_on_other_graphs(advised: Advised) -> None:
    assert advised.before.batches == advised.after.batches
    assert len(advised.before.batches) > 200


def test_what_is_counted_now_is_vllms_count(advised: Advised) -> None:
    now = {gain.quantity: gain.now for gain in advised.finding.gains if gain.unit != "%"}
    assert now == {
        "padded tokens of all passes": advised.before.padded_tokens,
        "passes without a graph": advised.before.uncovered,
    }


def test_the_prediction_is_vllms_count_to_the_unit(advised: Advised) -> None:
    expected = {gain.quantity: gain.expected for gain in advised.finding.gains if gain.unit != "%"}
    assert expected == {
        "padded tokens of all passes": advised.after.padded_tokens,
        "passes without a graph": advised.after.uncovered,
    }
    within = [one for one in zip(advised.before.stats, advised.after.stats, strict=True) if one[0][1] <= 24]
    before, after = (sum(run[2] - run[1] for run in runs) for runs in zip(*within, strict=True))
    assert after < before or advised.after.uncovered < advised.before.uncovered


def test_vllm_takes_the_sizes_as_advised(advised: Advised) -> None:
    assert advised.finding.numbers["advised"]["sizes"] == advised.after.sizes
    captured = {int(row["num_tokens"]) for row in streams.all_rows(Path(advised.after.session.path), "graph_captures")}
    assert captured == set(advised.after.sizes)


def test_sizes_that_vllm_dropped_are_named(advised: Advised) -> None:
    found = {finding.name: finding for finding in graph_use.advise(advised.before.session)}
    dropped = found["graph_use.dropped_sizes"]
    assert dropped.numbers["asked"] == [16, 1, 2, 4, 8, 8, 4096]
    assert dropped.numbers["without_graph"] == [4096]
    assert dropped.numbers["listed"] == advised.before.sizes == [1, 2, 4, 8, 16]


def test_fallbacks_are_vllms_passes_without_a_graph(advised: Advised) -> None:
    found = {finding.name: finding for finding in graph_use.advise(advised.before.session)}
    rows = found["graph_use.fallbacks"].numbers["fallbacks"]
    assert sum(row["passes"] for row in rows if row["runtime_mode"] == "NONE") == advised.before.uncovered
    assert "not_explained" not in {row["cause"] for row in rows}


def test_decode_batches_up_to_max_num_seqs_have_a_graph_afterwards(advised: Advised) -> None:
    hole = capture_sizes.advise(advised.before.session)[1]
    assert (hole.name, hole.level) == ("capture_sizes.decode_cap", ACT)
    assert hole.numbers["largest_decode_graph_tokens"] == 16
    assert hole.numbers["decode_cap_tokens"] == 24
    decodes = sum(1 for tokens in advised.before.batches if 16 < tokens <= 24)
    assert 0 < hole.numbers["passes_above"] <= decodes
    assert capture_sizes.advise(advised.after.session)[1].level == "fine"


def test_verify_says_that_every_prediction_holds(advised: Advised) -> None:
    verdicts = capture_sizes.verify(advised.finding, advised.after.session)
    assert {verdict.quantity for verdict in verdicts if "same batches" in verdict.says} == {
        gain.quantity for gain in advised.finding.gains
    }
    assert [verdict for verdict in verdicts if not verdict.holds] == []
    unadvised = capture_sizes.verify(advised.finding, advised.before.session)
    assert [verdict for verdict in unadvised if not verdict.holds]


def test_the_v2_runner_gives_what_was_planned_to_the_unit(tmp_path: Path, tiny_model: Path) -> None:
    """Its kernels are interpreted here and take half a second each pass, so that the load is below the advice's minimum."""
    load = ("--requests", "30", "--longest", "24")
    before = run(tmp_path / "before", tiny_model, BEFORE, "FULL_AND_PIECEWISE", V2, *load)
    assert capture_sizes.advise(before.session)[0].level == THIN
    found = capture_sizes.plan(before.session, Budget())
    assert (found.present.count.padded, found.present.count.uncovered) == (before.padded_tokens, before.uncovered)
    flags = "--cudagraph-capture-sizes " + " ".join(map(str, found.advised.sizes))
    after = run(tmp_path / "after", tiny_model, flags, "FULL_AND_PIECEWISE", V2, *load)
    assert before.batches == after.batches
    assert (found.advised.count.padded, found.advised.count.uncovered) == (after.padded_tokens, after.uncovered)
    assert after.uncovered < before.uncovered
    assert any(row["uniform_token_count"] == "1" for row in streams.all_rows(after.session.path, "graph_captures"))


LADDERS = environment.ROOT / "tests" / "engine" / "drive_ladders.py"
MIXED = {"FULL": "FULL", "PIECEWISE": "PIECEWISE", "FULL_AND_PIECEWISE": "PIECEWISE", "FULL_DECODE_ONLY": NONE}


FLAG = "--cudagraph-capture-sizes 3 5 8 16"


@pytest.fixture(scope="module")
def of_vllm(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """VLLM's own answers for 300 configurations of both runners, and what its command line makes of a flag."""
    out = tmp_path_factory.mktemp("ladders") / "ladders.json"
    command = [str(LADDERS), str(out), "7", "300", *shlex.split(FLAG)]
    done = warm.run(command, env=environment.vllm())
    assert done.returncode == 0, done.stderr[-3000:]
    answers: dict[str, Any] = json.loads(out.read_text())
    return answers


@pytest.fixture(scope="module")
def ladders(of_vllm: dict[str, Any]) -> list[dict[str, Any]]:
    answers: list[dict[str, Any]] = of_vllm["answers"]
    return answers


def test_vllms_command_line_takes_sizes_as_they_are_advised(of_vllm: dict[str, Any]) -> None:
    assert of_vllm["sizes"] == [3, 5, 8, 16]


def ladder_of(one: dict[str, Any]) -> Ladder:
    rules = Rules(
        runner=one["runner"],
        full_decode=one["mode"] in ("FULL_AND_PIECEWISE", "FULL_DECODE_ONLY"),
        mixed_mode=MIXED[one["mode"]],
        query_len=one["query_len"],
        max_num_seqs=one["max_num_seqs"],
        max_batched_tokens=one["max_num_batched_tokens"],
    )
    return rules.ladder(one["sizes"])


def test_the_rules_give_the_graphs_that_vllm_makes_of_any_sizes(ladders: list[dict[str, Any]]) -> None:
    assert len({(one["runner"], one["mode"], one["query_len"] > 1) for one in ladders}) == 16
    for one in ladders:
        ladder = ladder_of(one)
        ours = [[ladder.mixed_mode, size, False] for size in ladder.mixed] + [
            ["FULL", size, True] for size in ladder.decode
        ]
        assert sorted(ours) == sorted(one["graphs"]), one


def test_the_rules_give_each_batch_the_graph_that_vllm_gives_it(ladders: list[dict[str, Any]]) -> None:
    graphs = 0
    for one in ladders:
        ladder = ladder_of(one)
        for tokens, uniform, mode, padded in one["choices"]:
            assert ladder.dispatch(tokens, uniform) == (mode, padded), (one["runner"], one["mode"], tokens, uniform)
            graphs += mode != "NONE"
    assert graphs > 1000
