"""Device times and device memory with a torch.cuda that counts what it is asked; it raises where anything would wait."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest

from profilemate.probe.process import THIS
from profilemate.probe.settings import Settings
from profilemate.probe.stream import Stream
from profilemate.trackers.cuda_graphs import captures, events, forward
from profilemate.trackers.cuda_graphs.device_clock import MOST_PAIRS, DeviceClock

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
    """Streams and state of the tracker, fresh."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, every: int) -> None:
        self.dispatches = Stream(events.DISPATCHES)
        self.latencies = Stream(events.LATENCIES)
        self.clock = DeviceClock()
        self.forward = forward.Forward()
        monkeypatch.setattr(forward, "DISPATCHES", self.dispatches)
        monkeypatch.setattr(forward, "LATENCIES", self.latencies)
        monkeypatch.setattr(forward, "CLOCK", self.clock)
        monkeypatch.setattr(forward, "COUNTS", forward.Counts())
        monkeypatch.setattr(THIS, "settings", Settings()._replace(device_timing_every=every))

    def run(self, device: Device, took_ms: float) -> None:
        self.forward.dispatched(DECODE, 5, 5)
        self.forward.begin()
        device.now_ms += took_ms
        self.forward.graphs += 1
        self.forward.end()
        self.forward.finish()

    def rows(self, stream: Stream) -> list[dict[str, Any]]:
        return [dict(zip(stream.table.columns, row, strict=True)) for row in stream.pending]


@pytest.mark.parametrize("every", [1, 3, 10, 0])
def test_every_nth_pass_is_timed_and_none_at_zero(device: Device, monkeypatch: pytest.MonkeyPatch, every: int) -> None:
    recorded = Recorded(monkeypatch, every)
    for _ in range(30):
        recorded.run(device, 1)
    timed = [row["forward"] for row in recorded.rows(recorded.dispatches) if row["clock"] == "cuda_event"]
    assert timed == [number for number in range(1, 31) if every and number % every == 0]
    assert len(device.events) == 2 * len(timed)


def test_latency_rows_join_the_passes_that_say_so(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    recorded = Recorded(monkeypatch, every=3)
    for number in range(1, 11):
        recorded.run(device, number)
        device.reached = max(0, device.recorded - 2)  # always one pass behind
        forward.read_device_times()
    dispatches = recorded.rows(recorded.dispatches)
    timed = [row["forward"] for row in dispatches if row["clock"] == "cuda_event"]
    assert timed == [3, 6, 9]
    assert {row["clock"] for row in dispatches if row["forward"] not in timed} == {"monotonic"}
    assert recorded.rows(recorded.latencies) == [{"forward": number, "device_ns": number * MS} for number in (3, 6)]
    device.reached = device.recorded
    forward.read_device_times()
    assert [row["forward"] for row in recorded.rows(recorded.latencies)] == timed


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> captures.CaptureLog:
    monkeypatch.setattr(captures, "CAPTURES", Stream(events.CAPTURES))
    return captures.CaptureLog()


def capture(log: captures.CaptureLog, device: Device, taken: int) -> None:
    log.begin()
    device.free_bytes -= taken
    log.end(None)


def memory_cells(log: captures.CaptureLog) -> list[Any]:
    log.emit()
    column = events.CAPTURES.columns.index("memory_bytes")
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
