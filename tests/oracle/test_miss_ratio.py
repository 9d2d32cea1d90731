"""The predicted hit rate of other cache sizes against what vLLM's own Scheduler gives with them on the same trace.

One run of the scheduler is recorded; the same trace then runs at five other sizes without ProfileMate, and vLLM's own metric
tells its hits. The plain LRU curve is held against a straightforward simulation in tests/unit/test_advise_kv_curve.py.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import environment
import pytest
import streams

import profilemate
from profilemate.advise import kv_cache_size, prefix_caching
from profilemate.advise.finding import THIN
from profilemate.advise.kv.outcome import Outcome
from profilemate.advise.kv.outputs import continued_prompts
from profilemate.advise.kv.prediction import NOW, UNLIMITED, Prediction, predict
from profilemate.advise.kv.replay import replay
from profilemate.frames.session import Session

DRIVE = Path(__file__).with_name("drive_cache_sizes.py")
MOONCAKE = environment.SHARED / "traces" / "mooncake_conversation.jsonl"
WITHIN = 0.02
FEW_PREEMPTIONS = 1

TRACES = {
    "shared-prefixes": ("300", "150,200,450,600,4000", ["--requests", "150"]),
    "async": ("250", "120,180,350,500,3000", ["--requests", "100", "--async"]),
    "chat": ("400", "200,300,600,800,3000", ["--chat", "40", "--max-num-seqs", "16"]),
    "mooncake": (
        "3000", "1500,2200,5000,8000,20000",
        ["--trace", str(MOONCAKE), "--limit", "600", "--max-num-batched-tokens", "4096", "--max-num-seqs", "256"],
    ),
}  # fmt: skip


class Runs(NamedTuple):
    """vLLM's own counts by size (the null block included), and the session of the first size."""

    recorded_size: int
    vllm: dict[int, dict[str, Any]]
    session: Session

    def replayed(self, size: int) -> Outcome:
        """The replay at a size."""
        trace = self.prediction.engines[0].trace
        assert trace is not None
        return replay(trace, continued_prompts(trace), size - 1)

    @property
    def prediction(self) -> Prediction:
        """What the session predicts."""
        return predict(self.session)

    def hit_rate(self, size: int) -> float:
        """VLLM's own."""
        return float(self.vllm[size]["hits"] / self.vllm[size]["queries"])

    @property
    def others(self) -> list[int]:
        """Sizes that ProfileMate did not see."""
        return [size for size in self.vllm if size != self.recorded_size]


def start(sizes: str, arguments: list[str], env: dict[str, str]) -> subprocess.Popen[str]:
    command = [sys.executable, str(DRIVE), "--sizes", sizes, *arguments]
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def result(process: subprocess.Popen[str]) -> dict[int, dict[str, Any]]:
    out, errors = process.communicate(timeout=environment.HANGS_SECONDS)
    assert process.returncode == 0, errors[-3000:]
    return {int(size): one for size, one in json.loads(out).items()}


@pytest.fixture(scope="module", params=list(TRACES))
def runs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """Both processes at once: their time is made up."""
    if request.param == "mooncake" and not MOONCAKE.exists():
        pytest.skip("the public request trace is not beside this checkout")
    size, others, arguments = TRACES[request.param]
    folder = tmp_path_factory.mktemp(request.param)
    env = environment.profiled(folder, PROFILEMATE_TRACKERS="default,prefix_lookups")
    unprofiled = environment.vllm(PROFILEMATE_ENABLE="0", PYTHONPATH=str(environment.ROOT))
    with start(size, arguments, env) as recorded, start(others, arguments, unprofiled) as beside:
        vllm = {**result(recorded), **result(beside)}
    return Runs(int(size), vllm, profilemate.open(streams.only_session(folder)))


def test_the_trace_tells_cache_sizes_apart(runs: Runs) -> None:
    """Else the comparison below would say nothing."""
    rates = [runs.hit_rate(size) for size in sorted(runs.vllm)]
    assert rates[-1] - rates[0] > 2 * WITHIN


def test_the_hit_rate_at_five_other_sizes_is_within_two_points(runs: Runs) -> None:
    assert len(runs.others) == 5
    off = {size: runs.replayed(size).hit_rate - runs.hit_rate(size) for size in runs.others}
    assert {size: one for size, one in off.items() if abs(one) > WITHIN} == {}


def test_at_its_own_size_the_replay_is_the_session(runs: Runs) -> None:
    """The same steps, hence the same tokens found, to a thousandth."""
    outcome, vllm = runs.replayed(runs.recorded_size), runs.vllm[runs.recorded_size]
    assert outcome.asked_tokens == vllm["queries"]
    assert outcome.hit_tokens == pytest.approx(vllm["hits"], abs=0.001 * vllm["queries"])
    assert outcome.evictions == pytest.approx(runs.prediction.engines[0].recorded.evicted, rel=0.01)


def test_preemptions_are_near_vllms(runs: Runs) -> None:
    for size, vllm in runs.vllm.items():
        assert runs.replayed(size).preemptions == pytest.approx(vllm["preemptions"], abs=FEW_PREEMPTIONS), size


def test_unlimited_blocks_find_what_vllm_finds_with_more_than_it_needs(runs: Runs) -> None:
    """To a part of a point: the order in which requests wait differs a little."""
    largest = max(runs.vllm)
    engine = runs.prediction.engines[0]
    assert engine.outcomes[UNLIMITED].most_filled < largest
    assert engine.outcomes[UNLIMITED].hit_rate == pytest.approx(runs.hit_rate(largest), abs=0.005)
    assert engine.outcomes[UNLIMITED].evictions == 0 == engine.outcomes[UNLIMITED].preemptions


def test_the_finding_says_the_sizes_and_a_command_line(runs: Runs) -> None:
    finding = next(one for one in kv_cache_size.advise(runs.session) if one.name == "kv_cache_size.hit_rate")
    sizes = {one["factor"]: one for one in finding.numbers["sizes"]}
    assert {0.5, 1.5, 2.0, None} <= set(sizes)
    counted = runs.hit_rate(runs.recorded_size)
    assert sizes[NOW]["hit_rate"] == pytest.approx(counted, abs=0.001)
    assert finding.numbers["counted_hit_rate"] == pytest.approx(counted)
    assert len(finding.gains) == 4 and all(gain.low <= gain.expected <= gain.high for gain in finding.gains)
    factor = finding.numbers["advised_factor"]
    if factor != NOW:
        assert f"--num-gpu-blocks-override {sizes[factor]['usable_blocks'] + 1}" in [
            *finding.flags,
            *finding.alternatives,
        ]


# -- what is not predicted ----------------------------------------------------------------------------------------------


def recorded_alone(folder: Path, *arguments: str) -> Session:
    env = environment.profiled(folder, PROFILEMATE_TRACKERS="default,prefix_lookups")
    with start("300", ["--requests", "80", *arguments], env) as process:
        result(process)
    return profilemate.open(streams.only_session(folder))


def test_a_model_with_two_kinds_of_layers_is_said_and_not_predicted(tmp_path: Path) -> None:
    finding = next(
        one for one in kv_cache_size.advise(recorded_alone(tmp_path, "--hybrid")) if one.name.endswith("hit_rate")
    )
    assert finding.level == THIN and not finding.flags and not finding.gains
    assert "several groups" in finding.says


def test_what_prefix_caching_would_find_is_what_it_finds(tmp_path: Path) -> None:
    """The session of a scheduler without prefix caching, and vLLM's own count with it."""
    (finding,) = prefix_caching.advise(recorded_alone(tmp_path, "--no-caching"))
    assert finding.flags == ("--enable-prefix-caching",)
    unprofiled = environment.vllm(PROFILEMATE_ENABLE="0", PYTHONPATH=str(environment.ROOT))
    with start("300", ["--requests", "80"], unprofiled) as process:
        truth = result(process)[300]
    assert finding.numbers["asked_tokens"] == truth["queries"]
    assert abs(finding.numbers["would_find"] - truth["hits"]) < WITHIN * truth["queries"]
