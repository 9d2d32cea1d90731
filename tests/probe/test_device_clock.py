"""Device times and device memory with a torch.cuda that counts what it is asked; it raises where anything would wait."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest

from profilemate.probe.process import THIS
from profilemate.probe.settings import Settings
from profilemate.probe.shared_row import SharedRow
from profilemate.probe.stream import Stream
from profilemate.schema.pass_table import BASE
from profilemate.trackers.cuda_graphs import captures, replays
from profilemate.trackers.cuda_graphs import events as graph_events
from profilemate.trackers.forward_passes import events, recorder
from profilemate.trackers.forward_passes.device_clock import MOST_PAIRS, DeviceClock

MS = 1_000_000
DECODE = ("FULL", 8, 8, True, False, 0, None, None, None)


class Device:
    """A stream whose clock the test moves; events recorded on it are reached when the test says so."""

    def __init__(self) -> None:
        self.now_ms = 0.0
        self.reached = 0
        self.recorded = 0
        self.events: list[Any] = []
        self.free_bytes = 1000


class Event:
    """Stands in for torch.cuda.Event."""

    device: Device

    def __init__(self, enable_timing: bool = False) -> None:
        assert enable_timing
        self.number = 0
        self.time_ms = 0.0
        self.device.events.append(self)

    def record(self) -> None:
        self.device.recorded += 1
        self.number, self.time_ms = self.device.recorded, self.device.now_ms

    def query(self) -> bool:
        return self.number <= self.device.reached

    def elapsed_time(self, other: Event) -> float:
        assert self.query() and other.query(), "asked for a time before the device got there"
        return other.time_ms - self.time_ms

    def synchronize(self) -> None:
        raise AssertionError("the profiler waited for the device")

    wait = synchronize


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Device:
    """A CUDA device in place of torch's."""
    made = Device()
    event = type("DeviceEvent", (Event,), {"device": made})

    def never(*args: Any) -> None:
        raise AssertionError("the profiler waited for the device")

    cuda = SimpleNamespace(
        Event=event,
        is_available=lambda: True,
        mem_get_info=lambda: (made.free_bytes, 4000),
        synchronize=never,
        current_stream=never,
    )
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=cuda))
    return made


@pytest.fixture
def no_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=SimpleNamespace(is_available=lambda: False)))


def run_pass(clock: DeviceClock, device: Device, number: int, took_ms: float) -> bool:
    sampled = clock.start()
    device.now_ms += took_ms
    if sampled:
        clock.stop(number)
    return sampled


@pytest.mark.usefixtures("no_device")
def test_without_a_device_nothing_is_timed() -> None:
    clock = DeviceClock()
    assert not clock.start()
    assert clock.read() == []
    assert captures.free_device_bytes() is None


def test_nothing_is_read_before_the_device_got_there(device: Device) -> None:
    clock = DeviceClock()
    run_pass(clock, device, 1, 1.5)
    run_pass(clock, device, 2, 0.25)
    assert clock.read() == []
    device.reached = 1  # the first event of pass 1 only
    assert clock.read() == []
    device.reached = 3
    assert clock.read() == [(1, 1.5 * MS)]
    assert clock.read() == []
    device.reached = 4
    assert clock.read() == [(2, 0.25 * MS)]


def test_never_more_than_64_pairs(device: Device) -> None:
    clock = DeviceClock()
    sampled = [number for number in range(1, 201) if run_pass(clock, device, number, 1)]
    assert MOST_PAIRS == 64
    assert sampled == list(range(1, 65))
    assert len(device.events) == 128
    device.reached = 2 * 10
    assert [number for number, _ in clock.read()] == list(range(1, 11))
    again = [number for number in range(201, 301) if run_pass(clock, device, number, 1)]
    assert again == list(range(201, 211))
    assert len(device.events) == 128
    device.reached = device.recorded
    assert [number for number, _ in clock.read()] == [*range(11, 65), *range(201, 211)]


def test_passes_that_raise_do_not_use_up_the_pairs(device: Device) -> None:
    clock = DeviceClock()
    for _ in range(1, 101):
        assert clock.start()  # never stopped
    assert len(device.events) == 2
    run_pass(clock, device, 101, 2)
    device.reached = device.recorded
    assert clock.read() == [(101, 2 * MS)]


def test_a_forked_child_uses_none_of_its_parents_events(device: Device) -> None:
    clock = DeviceClock()
    run_pass(clock, device, 1, 1)
    device.reached = device.recorded
    clock.forget()
    assert clock.read() == []
    run_pass(clock, device, 1, 1)
    assert len(device.events) == 4


class Recorded:
    """Streams and state of the recorder, fresh, with the graph tracker's cells in the row."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, every: int) -> None:
        self.passes = SharedRow(Stream(BASE))
        self.latencies = Stream(events.LATENCIES)
        self.clock = DeviceClock()
        self.forward = recorder.Forward()
        for name, fresh in (
            ("PASSES", self.passes), ("LATENCIES", self.latencies), ("CLOCK", self.clock), ("FORWARD", self.forward),
        ):  # fmt: skip
            monkeypatch.setattr(recorder, name, fresh)
        monkeypatch.setattr(replays, "FORWARD", self.forward)
        monkeypatch.setattr(replays, "COUNTS", replays.Counts())
        monkeypatch.setattr(THIS, "settings", Settings()._replace(device_timing_every=every))
        recorder.contribute(graph_events.PASSES, replays.pass_cells)

    def run(self, device: Device, took_ms: float) -> None:
        self.forward.descriptor = DECODE
        self.forward.dispatched(5, 5)
        self.forward.begin()
        device.now_ms += took_ms
        self.forward.graphs += 1
        self.forward.end()
        self.forward.finish(0, None)

    def rows(self) -> list[dict[str, str]]:
        """Rows of passes."""
        lines = [str(text).removesuffix("\n").split(",") for text in self.passes.stream.pending]
        return [dict(zip(graph_events.PASSES.columns, line, strict=True)) for line in lines]

    def timed(self) -> list[int]:
        """Passes that say that a device time follows."""
        return [int(row["forward"]) for row in self.rows() if row["clock"] == "cuda_event"]

    def device_times(self) -> list[Any]:
        """Rows of the latencies."""
        return list(self.latencies.pending)


@pytest.mark.parametrize("every", [1, 3, 10, 0])
def test_every_nth_pass_is_timed_and_none_at_zero(device: Device, monkeypatch: pytest.MonkeyPatch, every: int) -> None:
    recorded = Recorded(monkeypatch, every)
    for _ in range(30):
        recorded.run(device, 1)
    assert recorded.timed() == [number for number in range(1, 31) if every and number % every == 0]
    assert len(device.events) == 2 * len(recorded.timed())


def test_a_bounded_number_of_pairs_waits_for_a_device_that_is_behind(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded = Recorded(monkeypatch, every=1)
    for _ in range(200):
        recorded.run(device, 1)
        recorder.read_device_times()
    assert recorded.timed() == list(range(1, MOST_PAIRS + 1))
    assert {row["clock"] for row in recorded.rows()[MOST_PAIRS:]} == {"monotonic"}
    device.reached = device.recorded
    recorder.read_device_times()
    assert [forward for forward, _ in recorded.device_times()] == recorded.timed()


def test_latency_rows_join_the_passes_that_say_so(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    recorded = Recorded(monkeypatch, every=3)
    for number in range(1, 11):
        recorded.run(device, number)
        device.reached = max(0, device.recorded - 2)  # always one pass behind
        recorder.read_device_times()
    assert recorded.timed() == [3, 6, 9]
    assert {row["clock"] for row in recorded.rows()} == {"monotonic", "cuda_event"}
    assert recorded.device_times() == [(number, number * MS) for number in (3, 6)]
    device.reached = device.recorded
    recorder.read_device_times()
    assert [forward for forward, _ in recorded.device_times()] == recorded.timed()


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> captures.CaptureLog:
    monkeypatch.setattr(captures, "CAPTURES", Stream(graph_events.CAPTURES))
    return captures.CaptureLog()


def capture(log: captures.CaptureLog, device: Device, taken: int) -> None:
    log.begin()
    device.free_bytes -= taken
    log.end(None)


def memory_cells(log: captures.CaptureLog) -> list[Any]:
    log.emit()
    column = graph_events.CAPTURES.columns.index("memory_bytes")
    return [row[column] for row in captures.CAPTURES.pending]


def test_device_memory_of_a_graph_is_the_sum_over_its_pieces(device: Device, log: captures.CaptureLog) -> None:
    for taken in (100, 20, 3):
        capture(log, device, taken)
        log.claim("main", ("PIECEWISE", 8, *DECODE[2:]), 1, "CUDAGraphWrapper")
    capture(log, device, 7)
    log.claim("main", DECODE, 1, "CUDAGraphWrapper")
    assert memory_cells(log) == [123, 7]


def test_memory_given_back_during_a_capture_counts_as_none_taken(device: Device, log: captures.CaptureLog) -> None:
    capture(log, device, -50)
    log.claim("main", DECODE, 1, "CUDAGraphWrapper")
    assert memory_cells(log) == [0]


@pytest.mark.usefixtures("no_device")
def test_without_a_device_the_cell_is_empty(log: captures.CaptureLog) -> None:
    capture(log, Device(), 5)
    log.claim("main", DECODE, 1, "CUDAGraphWrapper")
    assert memory_cells(log) == [None]


def test_a_graph_whose_capture_was_not_seen_leaves_memory_and_time_empty(
    device: Device, log: captures.CaptureLog
) -> None:
    capture(log, device, 5)
    log.claim("main", DECODE, 2, "BreakableCUDAGraphWrapper")
    assert memory_cells(log) == [None]
