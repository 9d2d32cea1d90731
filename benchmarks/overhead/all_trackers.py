"""Every tracker on, those too that are off by default: the scheduler alone, and a real server."""

from __future__ import annotations

import os
import tempfile
from functools import partial
from pathlib import Path

from overhead import end_to_end
from overhead.own_cost import tracker_figures
from overhead.samples import Benchmark, Figure, Measurement, Target
from overhead.scheduler_step import PREFILL, SIZES, added, check_rows, drive_variants, microseconds, share_of_a_step

SWITCH = {"PROFILEMATE_TRACKERS": "all"}
HELD_AT_PERCENT = 60.0
HELD_AT_RATIO = 0.85
"""Where CI holds them: every eviction, look-up and block of a prompt is a row, and six trackers look at every step."""

VARIANTS = ("bare", "ProfileMate", "bare again")


def measure_scheduler(size: str) -> Measurement:
    """The trace of `scheduler_step` with the most to record."""
    import streams

    with tempfile.TemporaryDirectory() as folder:
        os.environ["PROFILEMATE_DIR"] = folder
        chosen = SIZES[size]._replace(rounds=max(2, SIZES[size].rounds // 2))
        runs = drive_variants("all trackers", chosen, PREFILL, VARIANTS)
        check_rows(folder, runs["ProfileMate"])
        own = tracker_figures(streams.only_session(Path(folder))) if size != "tiny" else []
    bare, ours = runs["bare"], runs["ProfileMate"]
    cpu, base = microseconds(ours), microseconds(bare)
    figures = [
        Figure("per engine step", "us of CPU", "percent", cpu, base, Target(10.0, held_at=HELD_AT_PERCENT)),
        Figure("per engine step, absolute", "us of CPU", "difference", cpu, base),
        Figure("share of a 5 ms step", "%", "value", share_of_a_step(ours, bare)),
        Figure("bare again (noise)", "us of CPU", "value", added(runs["bare again"], bare)),
        *own,
    ]
    return Measurement(figures, {"trace": f"{bare[0].steps} steps"})


SCHEDULER = Benchmark(
    "scheduler_all", "vLLM's scheduler alone, with every tracker on", measure_scheduler,
    {"VLLM_LOGGING_LEVEL": "ERROR", **SWITCH},
)  # fmt: skip
SERVER = Benchmark(
    "end_to_end_all", "A real server under load over HTTP, with every tracker on",
    partial(end_to_end.measure, target=Target(0.99, "ratio", HELD_AT_RATIO), switches=SWITCH),
)  # fmt: skip
