"""Bytecode instructions of an engine step in vLLM's own scheduler: the same on every machine with this Python and vLLM.

CPU time on a shared machine moves by a factor of two from one day to the next, so a gate on it is wide. The interpreter's
instructions do not: they are counted one by one, in vLLM's code and in ProfileMate's, over the first trace of
`scheduler_step`. What C does (formatting, write(2), operations on lists) is not among them; `scheduler_step` has its time.
"""

from __future__ import annotations

import itertools
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from types import CodeType, FrameType
from typing import Any, NamedTuple

from overhead.places import ROOT
from overhead.samples import Benchmark, Figure, Measurement, Target
from overhead.scheduler_step import PREFILL
from overhead.turns import patched, recording, say

REQUESTS = {"full": 150, "quick": 150, "tiny": 20}
"""As many for the gate as in full: the same trace gives the same figures."""
OURS, VLLM = f"{ROOT / 'profilemate'}{os.sep}", f"{os.sep}vllm{os.sep}"
WRAPPERS = "<profilemate "
"""How the file names of the functions begin that stand in the place of vLLM's."""

CLOCKS = ("monotonic_ns", "perf_counter_ns")
BEGIN_NS, A_LOOK_NS = 10**15, 1_000
RUNS = (
    ("bare", ""), ("collector", "", "--kv-cache-metrics"), ("kv_cache", "kv_cache"), ("default", "default"), ("all", "all"),
)  # fmt: skip
"""In this order: who shares the row of a step is known from the first time on."""

HELD_AT_PERCENT = 9.7
HELD_AT_ALL_PERCENT = 16.0
HELD_AT_TIMES = 1.0
"""What is reached, rounded up: a figure without noise needs no room, so CI sees a hundred instructions more."""


class Counted(NamedTuple):
    """Instructions of one run, by the function that they are in."""

    instructions: Counter[CodeType]
    steps: int

    def per_step(self, is_theirs: Callable[[str], bool]) -> float:
        """Of the functions in files whose name `is_theirs`."""
        found = sum(count for code, count in self.instructions.items() if is_theirs(code.co_filename))
        return found / self.steps


def is_vllms(file: str) -> bool:
    """A file of vLLM's."""
    return VLLM in file and not file.startswith(OURS)


def is_ours(file: str, folder: str = "") -> bool:
    """A file of ProfileMate's, or of one folder in it."""
    return file.startswith(OURS + folder) or (not folder and is_wrapper(file))


def is_wrapper(file: str) -> bool:
    """A function that stands in the place of one of vLLM's."""
    return file.startswith(WRAPPERS)


def counting(
    run: Callable[..., None], found: Counter[CodeType], is_counted: Callable[[str], bool]
) -> Callable[..., None]:
    """The driver's loop with every instruction counted of the files that `is_counted` tells."""

    def on_instruction(frame: FrameType, event: str, _: Any) -> Any:
        if event == "opcode":
            found[frame.f_code] += 1
        return on_instruction

    def on_call(frame: FrameType, _: str, __: Any) -> Any:
        if not is_counted(frame.f_code.co_filename):
            return None
        found[frame.f_code] += 1  # RESUME, which is this event
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        return on_instruction

    def counted(driver: Any) -> None:
        before = sys.gettrace()
        sys.settrace(on_call)
        try:
            run(driver)
        finally:
            sys.settrace(before)

    return counted


@contextmanager
def clocks_of_looks() -> Iterator[None]:
    """The clocks in nanoseconds, which are ProfileMate's, go on by a microsecond at each look; in C, as the real ones.

    What it does once a second, or after a write that took long, would otherwise be there more often on a slow machine.
    """
    looks = {name: itertools.count(BEGIN_NS, A_LOOK_NS).__next__ for name in CLOCKS}
    real = {name: getattr(time, name) for name in CLOCKS}
    exchange_clocks(real, looks)
    try:
        yield
    finally:
        exchange_clocks(looks, real)


def exchange_clocks(present: Mapping[str, Callable[[], int]], others: Mapping[str, Callable[[], int]]) -> None:
    """Put others in the place of the clocks: in `time`, for everybody, and where ProfileMate has imported them from there."""
    ours = [module for name, module in list(sys.modules.items()) if name.partition(".")[0] == "profilemate"]
    for module in (time, *ours):
        for name, clock in present.items():
            if vars(module).get(name) is clock:
                setattr(module, name, others[name])


def count(requests: int, trackers: str = "", *options: str) -> Counted:
    """Drive the trace once, and count ProfileMate's instructions if any trackers are on, else vLLM's."""
    import drive

    found: Counter[CodeType] = Counter()
    run = counting(drive.Driver.run, found, is_ours if trackers else is_vllms)
    with ExitStack() as stack:
        if trackers:
            stack.enter_context(recording(trackers))
        stack.enter_context(patched(drive.Driver, "run", run))
        summary, _ = drive.run(drive.parse(("--requests", str(requests), *PREFILL, *options)))
    return Counted(found, int(summary["steps"]))


def measure(size: str) -> Measurement:
    """Bare, with vLLM's collector, and with ProfileMate's trackers; each once, since nothing in it is chance."""
    requests = REQUESTS[size]
    runs = {}
    with tempfile.TemporaryDirectory() as folder, clocks_of_looks():
        os.environ["PROFILEMATE_DIR"] = folder
        for name, trackers, *options in RUNS:
            say(f"step_instructions: {name}")
            runs[name] = count(requests, trackers, *options)
    return Measurement(figures_of(runs), {"trace": f"{runs['bare'].steps} steps"})


def figures_of(runs: dict[str, Counted]) -> list[Figure]:
    """Shares of what vLLM's own code runs, and what of ours runs it."""
    bare = runs["bare"].per_step(is_vllms)
    ours = {name: run.per_step(is_ours) for name, run in runs.items()}
    collector = runs["collector"].per_step(is_vllms) - bare
    unit = "instructions"
    parts = {
        "in the wrappers of vLLM's functions": is_wrapper,
        "in probe": partial(is_ours, folder=f"probe{os.sep}"),
        **{
            f"in the tracker {name}": partial(is_ours, folder=os.path.join("trackers", name, ""))
            for name in ("engine_steps", "requests", "kv_cache")
        },
    }
    return [
        Figure(
            "default trackers, against vLLM's own", unit, "percent", [bare + ours["default"]], [bare],
            Target(5.0, held_at=HELD_AT_PERCENT),
        ),
        Figure(
            "every tracker, against vLLM's own", unit, "percent", [bare + ours["all"]], [bare],
            Target(10.0, held_at=HELD_AT_ALL_PERCENT),
        ),
        Figure(
            "KV cache tracker alone, against vLLM's collector at 1.0", unit, "times", [ours["kv_cache"]], [collector],
            Target(1.0, held_at=HELD_AT_TIMES), ("KV cache tracker", "collector"),
        ),
        *(
            Figure(f"default trackers, {name}", unit, "value", [runs["default"].per_step(is_theirs)])
            for name, is_theirs in parts.items()
        ),
    ]  # fmt: skip


BENCHMARK = Benchmark(
    "step_instructions", "Bytecode instructions of an engine step, vLLM's scheduler alone", measure,
    {"VLLM_LOGGING_LEVEL": "ERROR", "PYTHONHASHSEED": "0"},
)  # fmt: skip
