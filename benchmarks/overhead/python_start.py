"""Start of a Python process that does not use vLLM: what every process under ProfileMate's PYTHONPATH pays."""

from __future__ import annotations

import os
import sys
import time
from typing import NamedTuple

from overhead.places import ROOT
from overhead.reference import PYTHON_START_MS, Yardstick
from overhead.samples import Benchmark, Figure, Measurement, Target
from overhead.turns import rounds, turn_about

ROUNDS = {"full": 400, "quick": 60, "tiny": 3}
JUST_PYTHON = "python -c pass"
PROGRAMS = {
    JUST_PYTHON: "pass",
    "with some imports": "import argparse, json, logging, subprocess, urllib.request",
}
TARGET = Target(3.0)


class Start(NamedTuple):
    """One process from its start to its end, in milliseconds."""

    wall_ms: float
    cpu_ms: float


def start(program: str, env: dict[str, str]) -> Start:
    """Run a program in a new interpreter."""
    began = time.perf_counter_ns()
    pid = os.posix_spawn(sys.executable, [sys.executable, "-c", program], env)
    _, status, usage = os.wait4(pid, 0)
    wall_ms = (time.perf_counter_ns() - began) / 1e6
    if status:
        raise RuntimeError(f"python -c {program!r} ended with status {status}")
    return Start(wall_ms, 1e3 * (usage.ru_utime + usage.ru_stime))


def environments() -> dict[bool, dict[str, str]]:
    """By whether ProfileMate is on the path, which is the only difference."""
    import environment

    bare = environment.clean()
    return {False: bare, True: {**bare, "PYTHONPATH": str(ROOT)}}


def measure(size: str) -> Measurement:
    """Starts in pairs, in changing order."""
    envs = environments()
    starts: dict[tuple[str, bool], list[Start]] = {(name, on): [] for name in PROGRAMS for on in (False, True)}
    for program in PROGRAMS.values():
        for on in (False, True):
            start(program, envs[on])  # reads and compiles what later starts find ready
    for number in rounds("python_start", ROUNDS[size]):
        for name, program in PROGRAMS.items():
            for on in turn_about(number):
                starts[name, on].append(start(program, envs[on]))
    figures = []
    for name in PROGRAMS:
        profiled, bare = starts[name, True], starts[name, False]
        wall = Figure(name, "ms", "difference", [s.wall_ms for s in profiled], [s.wall_ms for s in bare])
        cpu = Figure(f"{name}, CPU time", "ms", "difference", [s.cpu_ms for s in profiled], [s.cpu_ms for s in bare])
        if name == JUST_PYTHON:
            wall = wall._replace(target=TARGET, yardstick=Yardstick("a bare start", wall.bare, PYTHON_START_MS))
        figures += [wall, cpu]
    return Measurement(figures, {})


BENCHMARK = Benchmark("python_start", "Start of a Python process that does not use vLLM", measure)
