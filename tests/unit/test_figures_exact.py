"""What figures show adds up to what the summary says, which is counted by other code from the same rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from figure_sessions import rich_session

import profilemate
from profilemate.advise import run
from profilemate.advise.graphs import reading
from profilemate.figures import draw
from profilemate.figures.figure import Figure
from profilemate.figures.moe import _cells
from profilemate.figures.steps import LIMITS, PARTS
from profilemate.frames.session import Session

SECONDS = {
    "scheduling": "schedule_ns", "update": "update_ns", "waiting_for_model": "blocked_ns", "between_steps": "between_ns",
    "without_requests": "no_requests_ns",
}  # fmt: skip


@pytest.fixture(scope="module", params=[1, 2], ids=["one engine", "two engines"])
def session(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Session:
    """With everything in it, of one engine and of two."""
    opened: Session = profilemate.open(rich_session(tmp_path_factory.mktemp("rich"), engines=request.param).path)
    return opened


def figure(session: Session, name: str) -> Figure:
    """One that must be there."""
    found = draw(session, name)
    assert isinstance(found, Figure), found
    return found


@cache
def datasets(session: Session, name: str) -> list[list[dict[str, Any]]]:
    """All data of a figure's chart."""
    return list(figure(session, name).chart.to_dict()["datasets"].values())


def rows(session: Session, name: str, *columns: str) -> Iterator[dict[str, Any]]:
    """Data of a figure's chart that has these columns."""
    for data in datasets(session, name):
        if data and set(columns) <= set(data[0]):
            yield from data


def summed(session: Session, name: str, value: str, by: str = "kind") -> dict[str, float]:
    """Sums of a column of a figure's data."""
    found: Counter[str] = Counter()
    for row in rows(session, name, value, by):
        found[row[by]] += row[value]
    return {key: amount for key, amount in found.items() if amount}


def summary(session: Session, part: str) -> dict[str, Any]:
    """A part of metadata.json's summary."""
    return dict(session.metadata["summary"][part])


def seconds_by_phase(session: Session) -> dict[str, float]:
    """Of batch_utilization.csv, without the time in which there was no request."""
    found: Counter[str] = Counter()
    for row in session.table("batch_utilization").iter_rows(named=True):
        phase = "no tokens" if row["phase"] == "idle" else row["phase"]
        found[phase] += sum(row[f"{part}_sec"] for part in ("scheduling", "blocked", "update", "between_steps"))
    return dict(found)


def test_the_engines_time_adds_up_to_the_seconds_of_the_summary(session: Session) -> None:
    seconds = summary(session, "engine_steps")["seconds"]
    split = summed(session, "step_time_split", "seconds")
    expected = {PARTS[part]: seconds[name] for name, part in SECONDS.items()}
    assert split == pytest.approx(expected, abs=1e-4)
    phases = summed(session, "step_phases", "seconds")
    assert phases.pop("no requests") == pytest.approx(seconds["without_requests"], abs=1e-4)
    assert sum(phases.values()) == pytest.approx(sum(expected.values()) - seconds["without_requests"], abs=1e-3)
    assert phases == pytest.approx(seconds_by_phase(session), abs=1e-4)
    assert set(phases) == {"prefill", "decode", "mixed", "no tokens"}


def test_no_bar_of_the_engines_time_is_longer_than_its_bin(session: Session) -> None:
    for name in ("step_time_split", "step_phases"):
        assert max(row["top"] for row in rows(session, name, "top")) <= 100.001


def test_steps_by_limit_are_those_of_the_summary(session: Session) -> None:
    counted = {
        LIMITS[name]: count for name, count in summary(session, "engine_steps")["steps_by_limit"].items() if count
    }
    assert summed(session, "step_limits", "steps") == counted


def test_tokens_are_those_of_the_summary(session: Session) -> None:
    part = summary(session, "engine_steps")
    ends = [row for row in rows(session, "throughput", "tokens") if row["from"] != row["to"]]
    prefill = sum(row["tokens"] for row in ends if row["kind"].startswith("prefill"))
    decode = sum(row["tokens"] for row in ends if row["kind"].startswith("decode"))
    assert (prefill, decode) == (part["prefill_tokens"], part["decode_tokens"])
    assert f"{part['prefill_tokens']:,} prefill" in figure(session, "throughput").says


def test_blocks_fill_the_cache_in_every_bin_and_the_peak_is_the_summarys(session: Session) -> None:
    part = summary(session, "kv_cache")
    stacked: Counter[float] = Counter()
    for row in rows(session, "kv_usage", "blocks"):
        stacked[row["from"]] += row["blocks"]
    assert list(stacked.values()) == pytest.approx([part["total_blocks"]] * len(stacked), abs=0.05)
    peak = max(engine["peak_blocks"] for engine in part["engines"])
    assert f"the most was {peak:,} of" in figure(session, "kv_usage").says
    if len(part["engines"]) == 1:
        assert max(row["peak"] for row in rows(session, "kv_usage", "peak")) == part["peak_blocks"]


def test_evictions_and_hits_are_those_of_the_summary(session: Session) -> None:
    part = summary(session, "kv_cache")
    assert sum(summed(session, "kv_evictions", "blocks").values()) == part["evicted"]
    hits = list(rows(session, "prefix_hit_rate", "hit_tokens"))
    assert sum(row["hit_tokens"] for row in hits) == part["hit_tokens"]
    assert sum(row["query_tokens"] for row in hits) == part["query_tokens"]


def test_missed_tokens_are_those_of_the_summary_by_reason(session: Session) -> None:
    part = summary(session, "prefix_lookups")
    shown = summed(session, "prefix_misses", "tokens")
    assert sum(shown.values()) == part["asked_tokens"]
    assert shown["found in this cache"] == part["hit_tokens"]
    assert shown["evicted before"] == part["missed"]["evicted"]


def test_replays_and_padding_are_those_of_the_summary(session: Session) -> None:
    part = summary(session, "cuda_graphs")
    tokens = summed(session, "graph_padding", "tokens")
    assert tokens["padding"] == part["padding_tokens"]
    assert sum(tokens.values()) == part["padded_tokens"]
    replays = {row["graph"]: row["replays"] for row in rows(session, "graph_padding", "kind", "replays")}
    assert sum(replays.values()) == part["replays"]
    ladder = [row for row in rows(session, "graph_ladder", "state") if row["row"].startswith("replayed")]
    assert sum(row["replays"] for row in ladder) == part["replays"]
    never = [row for row in rows(session, "graph_ladder", "state") if row["state"].startswith("captured, never")]
    assert len(never) == len(part["never_replayed"])


def test_passes_with_and_without_a_graph_are_those_of_the_summary(session: Session) -> None:
    part = summary(session, "cuda_graphs")["forward_passes"]
    passes = {
        row["kind"]: row["amount"] for row in rows(session, "graph_coverage", "of") if row["of"] == "forward passes"
    }
    assert passes == {"FULL": part["full_graph"], "PIECEWISE": part["piecewise_graph"], "no graph": part["no_graph"]}
    assert sum(row["passes"] for row in rows(session, "graph_uncovered", "passes")) == part["no_graph"]
    time = summary(session, "forward_passes")["phases"]
    whole = sum(phase["mean_ms"] * phase["timed"] for phase in time.values()) / 1e3
    shown = sum(row["amount"] for row in rows(session, "graph_coverage", "of") if row["of"] == "time (s)")
    assert shown == pytest.approx(whole, rel=1e-5)
    assert sum(row["passes"] for row in rows(session, "forward_time", "median", "passes")) == part["total"]


def test_preemptions_and_their_tokens_are_those_of_the_summary(session: Session) -> None:
    part = summary(session, "requests")["preemptions"]
    assert sum(summed(session, "preemptions", "preemptions").values()) == part["total_preemptions"]
    assert sum(summed(session, "preemptions", "lost_tokens").values()) == part["lost_tokens"]
    tokens = summed(session, "preemption_cost", "tokens")
    assert sum(tokens.values()) == part["lost_tokens"]
    assert tokens["found again in the cache"] == part["kept_tokens"]
    assert tokens["computed again"] == part["recomputed_tokens"]


@pytest.mark.parametrize("name", ["ttft", "tpot"])
def test_latencies_are_those_of_the_summary(session: Session, name: str) -> None:
    part = summary(session, "requests")["latencies"][name]
    marked = {row["share"]: row["value"] for row in rows(session, name, "percentile")}
    assert set(marked) == {50, 95, 99}
    for share, value in marked.items():
        assert value == pytest.approx(part[f"p{share:.0f}_sec"], rel=0.01)
    assert f"of {part['count']:,} requests" in figure(session, name).says


def test_the_slowest_requests_are_split_into_their_whole_time(session: Session) -> None:
    lives = {row["request_id"]: row for row in session.table("request_lifecycle").iter_rows(named=True)}
    slowest = sorted(lives.values(), key=lambda row: -row["e2e_latency_sec"])[:25]
    shown: dict[str, dict[str, float]] = {}
    for row in rows(session, "request_waterfall", "request"):
        parts = shown.setdefault(row["request"], {})
        parts[row["kind"]] = parts.get(row["kind"], 0) + row["seconds"]
    assert list(shown) == [row["request_id"] for row in slowest]
    for row in slowest:
        parts = shown[row["request_id"]]
        assert sum(parts.values()) == pytest.approx(row["finished_sec"] - row["arrival_sec"], abs=1e-4)
        assert parts["queue"] == pytest.approx(row["queue_time_scheduler_sec"], abs=1e-5)
        preempted = row["preemption_delay_sec"] or 0
        assert parts.get("preempted", 0) == pytest.approx(preempted, abs=1e-5)
        assert parts["decode"] == pytest.approx(row["decode_time_sec"] - preempted, abs=1e-4)


def test_experts_choices_are_those_of_the_summary(session: Session) -> None:
    layers = summary(session, "moe_routing")["layers"]
    shown: Counter[str] = Counter()
    for row in rows(session, "moe_load", "choices"):
        shown[f"layer_{row['layer']}"] += row["choices"]
    assert shown == {name: layer["total_activations"] for name, layer in layers.items()}
    for name, layer in layers.items():
        loads = [row["load"] for row in rows(session, "moe_load", "choices") if f"layer_{row['layer']}" == name]
        assert sum(loads) / len(loads) == pytest.approx(1, abs=1e-3)
        assert max(loads) == pytest.approx(layer["max_over_mean"], abs=1e-3)


def test_own_cost_is_that_of_the_summary(session: Session) -> None:
    processes: list[dict[str, Any]] = session.metadata["summary"]["own_cost"]
    shown = list(rows(session, "own_cost_by_process", "spent_ms"))
    assert len(shown) == len(processes) > 0
    spent_ms = sum(1e3 * one["seconds"] for one in processes)
    assert sum(row["spent_ms"] for row in shown) == pytest.approx(spent_ms, rel=1e-3)
    assert sum(row["spent_ms"] for row in rows(session, "own_cost_by_hook", "calls")) == pytest.approx(
        spent_ms, rel=1e-3
    )


def test_the_readmes_line_is_the_file_itself(session: Session) -> None:
    pandas = pytest.importorskip("pandas")
    assert session.metadata
    usage = pandas.read_csv(Path(session.path) / "kv_cache_usage.csv")
    shown = sorted((row["timestamp_sec"], row["usage_pct"]) for row in rows(session, "kv_usage_percent", "usage_pct"))
    assert shown == sorted(zip(usage["timestamp_sec"], usage["usage_pct"], strict=True))


def test_experts_that_share_a_cell_are_averaged() -> None:
    assert _cells(3, (4, 0, 8, 0, 0, 12), 4) == [(3, 0, 4, 0.75, 12), (3, 4, 6, 1.5, 12)]


def test_advice_reads_the_forward_passes_once_for_all_topics(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    read = []
    real = reading.read_observed
    monkeypatch.setattr(reading, "read_observed", lambda session: (read.append(session), real(session))[1])
    fresh = profilemate.open(session.path)
    assert {finding.topic for finding in run.findings(fresh)} >= {"capture_sizes", "graph_use"} and len(read) == 1
