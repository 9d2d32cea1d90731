"""The serving forward pass in progress, from its dispatch to its row, and the counts that outlive old rows."""

from __future__ import annotations

import time
from typing import Any

from profilemate.probe import phase
from profilemate.probe.pace import pause_ns
from profilemate.probe.process import THIS
from profilemate.trackers.cuda_graphs import events
from profilemate.trackers.cuda_graphs.descriptor import Descriptor, without_graph
from profilemate.trackers.cuda_graphs.device_clock import CLOCK

DISPATCHES = THIS.writer.stream(events.DISPATCHES)
LATENCIES = THIS.writer.stream(events.LATENCIES)
OTHER_REPLAYS = THIS.writer.stream(events.OTHER_REPLAYS)
TOTALS = THIS.writer.stream(events.TOTALS, detail=False)
PHASES = THIS.writer.stream(events.PHASES, detail=False)

MOST_UNCOUNTED = 64
"""Passes that are added up together at the latest."""

MOST_WAITING = 64
"""Rows that may wait for the end of a pass: a runner of somebody's own may have none that we see."""


class Forward:
    """One pass at a time: vLLM's runners are single-threaded.

    What it runs per pass is kept in few functions: beside a model nothing of ours is in the processor's caches, and there
    a call more costs more than the work in it.
    """

    __slots__ = (
        "began_ns", "captured", "descriptor", "ended_ns", "graphs", "more", "number", "pending", "requested", "running",
        "sampled", "step", "uncounted", "unpadded_reqs", "unpadded_tokens",
    )  # fmt: skip

    def __init__(self) -> None:
        """No pass yet."""
        self.forget()

    def forget(self) -> None:
        """For a forked child."""
        self.step = self.number = 0
        self.pending = self.running = self.sampled = self.captured = False
        self.descriptor: Descriptor = ()
        self.requested: Any = None
        self.graphs = self.began_ns = self.ended_ns = 0
        self.unpadded_tokens = self.unpadded_reqs = 0
        self.more = False
        self.uncounted: list[tuple[Descriptor, int, int, int]] = []

    def dispatched(self, descriptor: Descriptor, tokens: int, reqs: int) -> None:
        """The descriptor that vLLM chose for the batch of this step is known."""
        self.descriptor = descriptor
        self.unpadded_tokens, self.unpadded_reqs = tokens, reqs
        self.graphs = self.began_ns = self.ended_ns = 0
        self.running = self.sampled = self.captured = False
        self.pending = True

    def begin(self) -> None:
        """The model is about to be launched."""
        if self.pending and not self.began_ns:
            self.running = True
            every = THIS.settings.device_timing_every
            if every and not (self.number + 1) % every:
                self.sampled = CLOCK.start()
            self.began_ns = time.monotonic_ns()

    def launched(self, token: None, result: Any) -> None:
        """The call that launches the model returned."""
        if self.running:
            self.end()

    def end(self) -> None:
        """The model was launched (on a CPU: has run)."""
        if self.running:
            self.ended_ns = time.monotonic_ns()
            self.running = False
            if self.sampled:
                CLOCK.stop(self.number + 1)

    def finish(self) -> None:
        """The execute call returned: make the row."""
        if not self.pending:
            return
        if self.running:
            self.end()
        self.pending = False
        self.number += 1
        began_ns, graphs, descriptor = self.began_ns, self.graphs, self.descriptor
        host_ns = self.ended_ns - began_ns if began_ns else None
        fault = "lazy_capture" if self.captured else "" if graphs or descriptor[0] == "NONE" else "not_replayed"
        DISPATCHES.add(
            (
                began_ns or time.monotonic_ns(),
                self.step,
                self.number,
                *descriptor,
                self.unpadded_tokens,
                self.unpadded_reqs,
                host_ns,
                graphs,
                "cuda_event" if self.sampled else "monotonic",
                fault,
            )
        )
        self.uncounted.append((descriptor, graphs, self.unpadded_tokens, host_ns or 0))
        if len(self.uncounted) > MOST_UNCOUNTED:
            self.count()

    def count(self) -> None:
        """Add up the passes since the last time: many together, rather than one by one."""
        uncounted, self.uncounted = self.uncounted, []
        for descriptor, graphs, tokens, host_ns in uncounted:
            COUNTS.add_pass("main", descriptor, graphs, tokens, host_ns)


class Counts:
    """Cumulative replays by descriptor and by phase."""

    def __init__(self) -> None:
        """All zero."""
        self.forget()

    def forget(self) -> None:
        """For a forked child."""
        self.by_descriptor: dict[tuple[str, Descriptor], list[int]] = {}
        self.explained: dict[str, int] = {}
        self.actual: dict[str, int] = {}
        self._reported: tuple[dict[str, int], dict[str, int]] = ({}, {})
        self._next_ns = 0

    def add_pass(self, owner: str, descriptor: Descriptor, graphs: int, tokens: int, host_ns: int) -> None:
        """One serving pass, or one call of another owner's graph."""
        key = (owner, without_graph(descriptor) if descriptor[0] == "NONE" else descriptor)
        total = self.by_descriptor.get(key)
        if total is None:
            total = self.by_descriptor[key] = [0, 0, 0, 0, 0, 0]
        total[0] += 1
        if graphs:
            total[1] += 1
            total[2] += graphs
            total[3] += tokens
            total[4] += descriptor[1] or 0
            total[5] += host_ns
            self.explain(phase.SERVING, graphs)

    def explain(self, name: str, graphs: int) -> None:
        """Replays that a site saw in a phase."""
        self.explained[name] = self.explained.get(name, 0) + graphs

    def replayed(self) -> None:
        """Check mode: `torch.cuda.CUDAGraph.replay` was called."""
        name = phase.current()
        self.actual[name] = self.actual.get(name, 0) + 1

    def write_totals(self) -> None:
        """Queue one block of graph_totals, before old dispatch rows go."""
        FORWARD.count()
        now = time.monotonic_ns()
        for (owner, descriptor), total in self.by_descriptor.items():
            TOTALS.add((now, FORWARD.number, owner, *descriptor, *total))

    def report_phases(self, now_ns: int) -> None:
        """Queue rows of graph_phases where they changed; at every flush in check mode, else ever more rarely."""
        FORWARD.count()
        check = THIS.settings.check_replays
        if now_ns < self._next_ns and not check and phase.is_serving():
            return
        explained, actual = self._reported
        for name in {*self.explained, *self.actual}:
            pair = self.explained.get(name, 0), self.actual.get(name, 0)
            if pair != (explained.get(name, 0), actual.get(name, 0)):
                PHASES.add((now_ns, name, pair[0], pair[1] if check else None))
        self._reported = dict(self.explained), dict(self.actual)
        self._next_ns = now_ns + pause_ns(now_ns - THIS.began_ns)


class OtherPass:
    """Replays outside the main model's pass: the pieces that another model replays one after another become one row."""

    def __init__(self) -> None:
        """No pass yet."""
        self.forget()

    def forget(self) -> None:
        """For a forked child."""
        self.key: tuple[str, Descriptor, str] | None = None
        self._first = 0
        self._time_ns = self._graphs = 0

    def piece(self, wrapper: Any, owner: str, descriptor: Descriptor, graphs: int, site: str) -> None:
        """A wrapper replayed; the wrapper that began a pass begins the next one when it comes again."""
        if not phase.is_serving():
            COUNTS.explain(phase.current(), graphs)
            return
        key = (owner, descriptor, site)
        if key != self.key or id(wrapper) == self._first:
            self.finish()
            self.key, self._first, self._time_ns = key, id(wrapper), time.monotonic_ns()
        self._graphs += graphs

    def finish(self) -> None:
        """Make the row: another pass begins, or the call that ran this one returned."""
        if self.key is None:
            return
        owner, descriptor, site = self.key
        FORWARD.more = True
        OTHER_REPLAYS.add((self._time_ns, FORWARD.step, owner, *descriptor, self._graphs, None, site))
        COUNTS.add_pass(owner, descriptor, self._graphs, 0, 0)
        self.forget()
        if len(OTHER_REPLAYS.pending) > MOST_WAITING:
            THIS.flush()


def other_replay(owner: str, descriptor: Descriptor, graphs: int, site: str) -> None:
    """One whole replay outside the main model's pass: a row while serving, a count otherwise."""
    OTHER.piece(None, owner, descriptor, graphs, site)
    OTHER.finish()


def read_device_times() -> None:
    """Queue the device times that are ready."""
    for forward, device_ns in CLOCK.read():
        FORWARD.more = True
        LATENCIES.add((forward, device_ns))


FORWARD = Forward()
COUNTS = Counts()
OTHER = OtherPass()
