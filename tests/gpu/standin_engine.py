"""The GPU check's engine process on the CPU stand-in for CUDA graphs: its log takes the place of the GPU in the trace.

The window is the real one, a torch profiler session over the host; what the stand-in logged in it is added to the trace as
the graph launches that a GPU's trace would hold.
"""

from __future__ import annotations

import gzip
import json
import os
import sys
import time
from pathlib import Path

from gpu_check import engine
from gpu_check.window import TorchWindow

LAUNCH_NS = 1000


class StandinWindow(TorchWindow):
    """The torch profiler's trace with one cudaGraphLaunch for every replay in the stand-in's log."""

    def start(self) -> None:
        self.log = Path(os.environ["STANDIN_GRAPHS_LOG"])
        self.lines_before = len(self.log.read_text().splitlines())
        super().start()

    def stop(self, path: Path) -> None:
        lines = self.log.read_text().splitlines()[self.lines_before :]
        super().stop(path)
        with gzip.open(path, "rt") as file:
            trace = json.load(file)
        wall_minus_monotonic = time.time_ns() - time.monotonic_ns() - trace["baseTimeNanoseconds"]
        for number, line in enumerate(lines):
            pid, event, _, monotonic_ns = line.split()
            if event == "replay":
                trace["traceEvents"].append(
                    {
                        "ph": "X", "cat": "cuda_runtime", "name": "cudaGraphLaunch", "pid": int(pid), "tid": int(pid),
                        "ts": (int(monotonic_ns) + wall_minus_monotonic) / 1000, "dur": LAUNCH_NS / 1000,
                        "args": {"cbid": 311, "correlation": number},
                    }
                )  # fmt: skip
        with gzip.open(path, "wt") as file:
            json.dump(trace, file)


if __name__ == "__main__":
    engine.main(sys.argv[1:], StandinWindow())
