"""What an encoder pass makes of the objects that vLLM's hooks get: rows, device times without waiting, nothing kept."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from profilemate.probe import phase
from profilemate.probe.process import THIS
from profilemate.probe.settings import Settings
from profilemate.probe.stream import Stream
from profilemate.trackers.encoder_decoder import events, hooks
from profilemate.trackers.forward_passes.device_clock import MOST_PAIRS


class Event:
    """Stands in for torch.cuda.Event: the device reaches it when the test says so, after a millisecond each."""

    recorded = 0
    reached = 0

    def __init__(self, enable_timing: bool = False) -> None:
        assert enable_timing

    def record(self) -> None:
        Event.recorded += 1
        self.number = Event.recorded

    def query(self) -> bool:
        return self.number <= Event.reached

    def elapsed_time(self, other: Event) -> float:
        assert self.query() and other.query(), "asked for a time before the device got there"
        return float(other.number - self.number)


@pytest.fixture(autouse=True)
def tracker(monkeypatch: pytest.MonkeyPatch) -> None:
    """Empty streams that nothing writes."""
    hooks.after_fork()
    monkeypatch.setattr(hooks, "PASSES", Stream(events.PASSES))
    monkeypatch.setattr(hooks, "LATENCIES", Stream(events.LATENCIES))
    monkeypatch.setattr(THIS, "flush_step", lambda streams, now: None)
    monkeypatch.setattr(THIS, "settings", Settings())
    hooks.CLOCK._asked = True  # no device


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> None:
    """A CUDA device."""
    monkeypatch.setattr(Event, "recorded", 0)
    monkeypatch.setattr(Event, "reached", 0)
    hooks.CLOCK._event_class = Event


def rows() -> list[dict[str, Any]]:
    return [dict(zip(events.PASSES.columns, row, strict=True)) for row in hooks.PASSES.pending]


def feature(modality: str = "image", tokens: int = 10, data: object = "pixels") -> Any:
    return SimpleNamespace(modality=modality, data=data, mm_position=SimpleNamespace(get_num_embeds=lambda: tokens))


def v1_pass(**features: list[Any]) -> None:
    """One call of a runner whose requests have these features, all scheduled."""
    runner = SimpleNamespace(requests={name: SimpleNamespace(mm_features=items) for name, items in features.items()})
    scheduled = {name: list(range(len(items))) for name, items in features.items()}
    output = SimpleNamespace(scheduled_encoder_inputs=scheduled)
    hooks.v1_ends(hooks.v1_begins(runner, output), None, runner, output)


def v2_pass(*modalities: str, requests: int = 1, result: Any = None) -> None:
    items = [(modality, None) for modality in modalities]
    hooks.v2_prepared(None, {f"r{number}": [0] for number in range(requests)})
    embeddings = [SimpleNamespace(shape=(5, 8)) for _ in items] if result is None else result
    hooks.v2_ends(hooks.v2_begins(items), embeddings, items)


def test_items_without_data_and_embeddings_that_pass_through_are_not_encoded() -> None:
    v1_pass(a=[feature(), feature(data=None)], b=[feature("prompt_embeds"), feature("audio", 7)])
    assert [rows()[0][name] for name in ("items", "tokens", "requests", "modality")] == [2, 17, 2, "audio+image"]


@pytest.mark.parametrize("features", [{}, {"a": [feature(data=None)]}, {"a": [feature("prompt_embeds")]}])
def test_nothing_to_encode_is_no_pass(features: dict[str, list[Any]]) -> None:
    v1_pass(**features)
    assert rows() == []


def test_runs_of_vllms_own_are_no_passes() -> None:
    depth = phase.enter("profile")
    try:
        v1_pass(a=[feature()])
        v2_pass("image")
    finally:
        phase.leave(depth)
    v2_pass("image", "video", requests=2)
    assert [rows()[0][name] for name in ("number", "items", "tokens", "requests")] == [1, 2, 10, 2]


def test_what_a_version_does_not_tell_stays_unknown() -> None:
    hooks.v2_ends(hooks.v2_begins([("image", None)]), {"hash": "tensor"}, [])
    assert (rows()[0]["tokens"], rows()[0]["requests"], rows()[0]["graph_hits"]) == (None, None, None)
    v2_pass("image", requests=3)
    hooks.v2_ends(hooks.v2_begins([("image", None)]), [], [])
    assert [row["requests"] for row in rows()] == [None, 3, None], "those of one pass are not the next one's"


def test_a_modality_that_is_no_word_does_not_reach_the_row() -> None:
    v2_pass("image", 'a,b\n"c"')
    assert rows()[0]["modality"] == "image+other"


def test_graph_hits_are_of_this_pass_over_all_its_calls() -> None:
    manager = SimpleNamespace(graph_hits=5, graph_misses=1)
    batch = hooks.v2_begins([("image", None), ("video", None)])
    for hits, misses in ((2, 0), (0, 1)):
        before = hooks.graphs_asked(manager)
        manager.graph_hits += hits
        manager.graph_misses += misses
        hooks.graphs_ran(before, None, manager)
    hooks.v2_ends(batch, [], [])
    v2_pass("audio")
    assert [(row["graph_hits"], row["graph_misses"]) for row in rows()] == [(2, 1), (None, None)]
    assert (rows()[1]["graph_hits_so_far"], rows()[1]["graph_misses_so_far"]) == (2, 1)


@pytest.mark.usefixtures("device")
def test_device_times_come_when_the_device_got_there() -> None:
    v2_pass("image")
    v2_pass("image")
    assert {row["clock"] for row in rows()} == {"cuda_event"} and not hooks.LATENCIES.pending
    Event.reached = 2
    hooks.before_flush(0)
    assert list(hooks.LATENCIES.pending) == [(1, 1_000_000)]
    Event.reached = 4
    v2_pass("image")
    assert list(hooks.LATENCIES.pending) == [(1, 1_000_000), (2, 1_000_000)]


@pytest.mark.usefixtures("device")
def test_passes_beyond_the_pairs_have_host_times_alone() -> None:
    for _ in range(MOST_PAIRS + 2):
        v2_pass("image")
    assert [row["clock"] for row in rows()].count("monotonic") == 2
    assert all(row["host_ns"] > 0 for row in rows())


@pytest.mark.usefixtures("device")
def test_a_pass_that_raised_leaves_no_row_and_no_pair() -> None:
    for _ in range(MOST_PAIRS + 1):
        hooks.v2_begins([("image", None)])
    v2_pass("image")
    assert [row["number"] for row in rows()] == [1] and rows()[0]["clock"] == "cuda_event"
    Event.reached = Event.recorded
    hooks.before_flush(0)
    assert list(hooks.LATENCIES.pending) == [(1, 1_000_000)]


@pytest.mark.usefixtures("device")
def test_device_timing_can_be_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(THIS, "settings", Settings(device_timing_every=0))
    v2_pass("image")
    assert Event.recorded == 0 and rows()[0]["clock"] == "monotonic"


def test_a_forked_child_counts_from_one() -> None:
    v2_pass("image")
    hooks.after_fork()
    v2_pass("image")
    assert [row["number"] for row in rows()] == [1, 1] and rows()[1]["items_so_far"] == 1
