"""Graph cells of the row of a pass, replays beside the main model's pass, and the counts that outlive old rows."""

from __future__ import annotations

import time
from typing import Any

from profilemate.probe import phase
from profilemate.probe.pace import pause_ns
from profilemate.probe.process import THIS
from profilemate.trackers.cuda_graphs import events
from profilemate.trackers.forward_passes.descriptor import Descriptor, without_graph
from profilemate.trackers.forward_passes.recorder import FORWARD

OTHER_REPLAYS = THIS.writer.stream(events.OTHER_REPLAYS)
TOTALS = THIS.writer.stream(events.TOTALS, detail=False, newest_counts=True)
PHASES = THIS.writer.stream(events.PHASES, detail=False)

MOST_UNCOUNTED = 64
"""Passes that are added up together at the latest."""

MOST_WAITING = 64
"""Rows that may wait for the end of a pass: a runner of somebody's own may have none that we see."""


class DescriptorText:
    """The cells of a descriptor after its mode, for the descriptor of the pass before: mostly it comes again."""

    __slots__ = ("descriptor", "text")

    def __init__(self) -> None:
        """No pass yet."""
        self.descriptor: Descriptor = ()
        self.text = ""

    def of(self, descriptor: Descriptor) -> str:
        """Another descriptor's."""
        self.descriptor = descriptor
        self.text = ",".join(["" if cell is None else str(cell) for cell in descriptor[1:]])
        return self.text


LAST = DescriptorText()


def pass_cells(scheduler_output: Any) -> str:
    """The columns of events.PASSES."""
    graphs, descriptor, tokens = FORWARD.graphs, FORWARD.descriptor, FORWARD.unpadded_tokens
    uncounted = COUNTS.uncounted
    uncounted.append((descriptor, graphs, tokens, FORWARD.host_ns or 0))
    if len(uncounted) > MOST_UNCOUNTED:
        COUNTS.count()
    if THIS.settings.check_replays:
        FORWARD.more = True
    text = LAST.text if descriptor is LAST.descriptor else LAST.of(descriptor)
    fault = "lazy_capture" if FORWARD.captured else "" if graphs or descriptor[0] == "NONE" else "not_replayed"
    return f"{text},{tokens},{FORWARD.unpadded_reqs},{graphs},{fault}"


class Counts:
    """Cumulative replays by descriptor and by phase."""

    def __init__(self) -> None:
        """All zero."""
        self.forget()

    def forget(self) -> None:
        """For a forked child."""
        self.by_descriptor: dict[tuple[str, Descriptor], list[int]] = {}
        self.uncounted: list[tuple[Descriptor, int, int, int]] = []
        self.explained: dict[str, int] = {}
        self.actual: dict[str, int] = {}
        self._reported: tuple[dict[str, int], dict[str, int]] = ({}, {})
        self._next_ns = 0

    def count(self) -> None:
        """Add up the passes since the last time: many together, rather than one by one."""
        last: Descriptor = ()
        total: list[int] = []
        all_graphs = 0
        for descriptor, graphs, tokens, host_ns in self.uncounted:
            if descriptor is not last:
                last, total = descriptor, self.total_of("main", descriptor)
            total[0] += 1
            if graphs:
                total[1] += 1
                total[2] += graphs
                total[3] += tokens
                total[4] += descriptor[1] or 0
                total[5] += host_ns
                all_graphs += graphs
        self.uncounted.clear()
        if all_graphs:
            self.explain(phase.SERVING, all_graphs)

    def total_of(self, owner: str, descriptor: Descriptor) -> list[int]:
        """The sums of one descriptor, in the order of the last columns of events.TOTALS."""
        key = (owner, without_graph(descriptor) if descriptor[0] == "NONE" else descriptor)
        total = self.by_descriptor.get(key)
        if total is None:
            total = self.by_descriptor[key] = [0, 0, 0, 0, 0, 0]
        return total

    def add_other(self, owner: str, descriptor: Descriptor, graphs: int) -> None:
        """One call of another owner's graph while serving."""
        total = self.total_of(owner, descriptor)
        for place, value in enumerate((1, 1, graphs, 0, descriptor[1] or 0)):
            total[place] += value
        self.explain(phase.SERVING, graphs)

    def explain(self, name: str, graphs: int) -> None:
        """Replays that a site saw in a phase."""
        self.explained[name] = self.explained.get(name, 0) + graphs

    def replayed(self) -> None:
        """Check mode: `torch.cuda.CUDAGraph.replay` was called."""
        name = phase.current()
        self.actual[name] = self.actual.get(name, 0) + 1

    def write_totals(self) -> None:
        """Queue one block of graph_totals, before old rows of passes go."""
        self.count()
        now = time.monotonic_ns()
        for (owner, descriptor), total in self.by_descriptor.items():
            TOTALS.add((now, FORWARD.number, owner, *descriptor, *total))

    def report_phases(self, now_ns: int) -> None:
        """Queue rows of graph_phases where they changed; at every flush in check mode, else ever more rarely."""
        self.count()
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
            FORWARD.more = True
        self._graphs += graphs

    def finish(self) -> None:
        """Make the row: another pass begins, or the call that ran this one returned."""
        if self.key is None:
            return
        owner, descriptor, site = self.key
        FORWARD.more = True
        OTHER_REPLAYS.add((self._time_ns, FORWARD.step, owner, *descriptor, self._graphs, None, site))
        COUNTS.add_other(owner, descriptor, self._graphs)
        self.forget()
        if len(OTHER_REPLAYS.pending) > MOST_WAITING:
            THIS.flush()


def other_replay(owner: str, descriptor: Descriptor, graphs: int, site: str) -> None:
    """One whole replay outside the main model's pass: a row while serving, a count otherwise."""
    OTHER.piece(None, owner, descriptor, graphs, site)
    OTHER.finish()


COUNTS = Counts()
OTHER = OtherPass()
