"""The one recorder of forward passes: from the dispatch of a pass to its row, whichever trackers contribute to that.

A tracker takes part with `contribute(table, cells)`; `waits_beside(tracker, function)` is for rows of its own that go out
with it.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic_ns
from typing import Any

from profilemate.probe.guarded import Guarded
from profilemate.probe.process import THIS
from profilemate.probe.shared_row import SharedRow
from profilemate.schema.pass_table import BASE
from profilemate.schema.table import Table
from profilemate.trackers.forward_passes import events
from profilemate.trackers.forward_passes.descriptor import Descriptor
from profilemate.trackers.forward_passes.device_clock import CLOCK

Cells = Callable[[Any], str]

PASSES = SharedRow(THIS.writer.stream(BASE))
LATENCIES = THIS.writer.stream(events.LATENCIES)
PASSES.write_with(LATENCIES)
ROW_ALONE = (PASSES.stream,)

FAILURES_BEFORE_OFF = 5

TOLD_BY_THE_BATCH = -1
"""In the place of tokens and requests that the dispatch does not tell, as in vLLM 0.11."""


def ignore_graph(manager: Any, desc: Any) -> None:
    """A FULL graph of the V2 runner that is not the main model's, while no tracker asks for those."""


class Contributor:
    """Who makes some cells of the row; `empty` stands there instead where that failed."""

    __slots__ = ("cells", "empty", "failures")

    def __init__(self, empty: str, cells: Cells) -> None:
        """`cells` makes the text from the SchedulerOutput."""
        self.empty = empty
        self.cells = cells
        self.failures = 0

    def nothing(self, scheduler_output: Any) -> str:
        """In the place of `cells` once they failed too often."""
        return self.empty


class Forward:
    """One pass at a time: vLLM's runners are single-threaded.

    What it runs per pass is kept in few functions: beside a model nothing of ours is in the processor's caches, and there
    a call more costs more than the work in it.
    """

    __slots__ = (
        "batch", "began_ns", "captured", "contributors", "descriptor", "ended_ns", "execute_ns", "graphs", "host_ns",
        "mode", "more", "number", "other_graph", "pending", "running", "sample_ns", "sampled", "step", "unpadded_reqs",
        "unpadded_tokens", "waiting_beside",
    )  # fmt: skip

    def __init__(self) -> None:
        """No pass yet."""
        self.contributors: tuple[Contributor, ...] = ()
        self.waiting_beside: tuple[Callable[[int], None], ...] = ()
        self.other_graph: Callable[[Any, Any], None] = ignore_graph
        self.forget()

    def forget(self) -> None:
        """For a forked child."""
        self.step = self.number = 0
        self.pending = self.running = self.sampled = self.captured = False
        self.descriptor: Descriptor = ()
        self.mode: Any = None
        self.batch: Any = None
        self.graphs = self.began_ns = self.ended_ns = self.execute_ns = 0
        self.host_ns: int | None = None
        self.sample_ns: int | None = None
        self.unpadded_tokens = self.unpadded_reqs = 0
        self.more = False

    def dispatched(self, tokens: int, reqs: int) -> None:
        """The descriptor that vLLM chose for the batch of this step is known."""
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
            self.began_ns = monotonic_ns()

    def end(self, token: Any = None, result: Any = None) -> None:
        """The call that launches the model returned (on a CPU: it has run)."""
        if self.running:
            self.ended_ns = monotonic_ns()
            self.running = False
            if self.sampled:
                CLOCK.stop(self.number + 1)

    def finish(self, now_ns: int, scheduler_output: Any) -> None:
        """`execute_model` returns: make the row of the pass that was pending."""
        if self.running:
            self.end()
        self.pending = False
        self.number += 1
        if self.unpadded_tokens == TOLD_BY_THE_BATCH:
            self.unpadded_tokens = scheduler_output.total_num_scheduled_tokens
            self.unpadded_reqs = len(scheduler_output.num_scheduled_tokens)
        began_ns = self.began_ns
        self.host_ns = self.ended_ns - began_ns if began_ns else None
        row = (
            f"{began_ns or now_ns},{self.step},{self.number},{self.descriptor[0]},{self.host_ns},"
            f"{'cuda_event' if self.sampled else 'monotonic'}"
        )
        for one in self.contributors:
            try:
                row = f"{row},{one.cells(scheduler_output)}"
            except Exception as error:
                row = f"{row},{one.empty}"
                self.failed(one, error)
        PASSES.stream.add(row + "\n")
        self.sample_ns = None

    def failed(self, contributor: Contributor, error: Exception) -> None:
        """Its cells are empty in this row; the fifth time it is left out from then on, and the others go on."""
        contributor.failures += 1
        name = f"{contributor.cells.__module__}.{contributor.cells.__qualname__}"
        if contributor.failures == 1:
            THIS.warnings.append(f"cells of the pass row are missing: {name} failed ({type(error).__name__})")
            THIS.dirty = True
        if contributor.failures == FAILURES_BEFORE_OFF:
            contributor.cells = contributor.nothing
            THIS.warnings.append(f"{name} was switched off after {FAILURES_BEFORE_OFF} failures")
            THIS.dirty = True


FORWARD = Forward()


def contribute(table: Table, cells: Cells) -> None:
    """Take a tracker's columns into the row: those of its table (made by `pass_table`) after the common ones.

    `cells(scheduler_output)` gives their text, separated by commas, when a serving pass was launched and `execute_model`
    is about to return; FORWARD has what the recorder knows of the pass. Called once per pass.
    """
    FORWARD.contributors += (Contributor(PASSES.part(table).empty, cells),)


def waits_beside(tracker: str, complete: Callable[[int], None]) -> None:
    """Call `complete(now_ns)` before a write that follows `FORWARD.more = True`: what a tracker has beside the row."""
    FORWARD.waiting_beside += (Guarded(tracker, "rows beside a pass", complete),)


def read_device_times() -> None:
    """Queue the device times that are ready."""
    for forward, device_ns in CLOCK.read():
        FORWARD.more = True
        LATENCIES.add((forward, device_ns))


def write_more(now_ns: int) -> None:
    """Write what waits beside the row as well, which is rare apart from servers with a drafter."""
    for complete in FORWARD.waiting_beside:
        complete(now_ns)
    FORWARD.more = False
    THIS.flush_step(PASSES.streams, now_ns)


def after_fork() -> None:
    """A forked child starts at zero."""
    FORWARD.forget()
    CLOCK.forget()
    PASSES.forget()
