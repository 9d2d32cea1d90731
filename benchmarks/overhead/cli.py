"""The command line of `make bench` and `make bench-gate`."""

from __future__ import annotations

import argparse
import datetime
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from overhead import places, registry, render, results, samples, table, verdict
from overhead.samples import Benchmark
from overhead.turns import say

EXIT_PASSED, EXIT_BEYOND_GATE, EXIT_FAILED = 0, 1, 2
QUIET_ENDINGS = ("nanobind:", " - leaked", " - ... skipped", "See https://nanobind")
"""What a library of vLLM's says at the end of every interpreter."""

EPILOG = """The full run writes benchmarks/results.json and the figures of docs/overhead.md and README.md.

exit code: 0; 1 with --gate and a figure beyond the gate; 2 where a benchmark could not be run

examples:
  python benchmarks/overhead
      everything, half an hour on two cores
  python benchmarks/overhead --quick --only graph_replay,step_writes
      a short look while working on a hook; nothing is written
  python benchmarks/overhead --quick --gate
      what CI runs
"""


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    names = [benchmark.name for benchmark in registry.BENCHMARKS]
    parser = argparse.ArgumentParser(
        prog="benchmarks/overhead",
        description="What ProfileMate costs, measured with and without it by turns.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--quick", action="store_true", help="fewer rounds; results.json stays as it is")
    add("--gate", action="store_true", help="only what has targets; exit code 1 where one is beyond the gate twice")
    add("--only", type=lambda text: _known(text, names), metavar="NAMES", help=f"out of {', '.join(names)}")
    add("--json", type=Path, metavar="FILE", help="where the results go (benchmarks/results.json, none with --quick)")
    add("--render", action="store_true", help="measure nothing: write the documents from benchmarks/results.json")
    options = parser.parse_args(argv)
    if options.only is None:
        options.only = [one.name for one in registry.BENCHMARKS if one.for_gate or not options.gate]
    return options


def _known(text: str, names: list[str]) -> list[str]:
    asked = [name.strip() for name in text.split(",") if name.strip()]
    unknown = [name for name in asked if name not in names]
    if unknown or not asked:
        raise argparse.ArgumentTypeError(f"{', '.join(unknown) or 'nothing'} is none of {', '.join(names)}")
    return asked


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmarks asked for; the exit code says how it went."""
    options = parse(argv)
    places.make_importable()
    try:
        if options.render:
            render.render(results.load(places.RESULTS))
            return EXIT_PASSED
        return run(options)
    except (BenchmarkFailed, ValueError, OSError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return EXIT_FAILED


class BenchmarkFailed(Exception):
    """A benchmark did not end well; the message is the sentence for the user."""


def run(options: argparse.Namespace) -> int:
    """Measure, show, keep and judge."""
    size = "quick" if options.quick else "full"
    found = results.empty()
    try:
        for name in options.only:
            found["benchmarks"][name] = measure(registry.find(name), size)
    except BenchmarkFailed:
        keep(options, found)
        raise
    if options.gate:
        repeat_what_is_beyond(found, size)
    print(table.text(found), flush=True)
    keep(options, found)
    return judge(found) if options.gate else EXIT_PASSED


def keep(options: argparse.Namespace, found: dict[str, Any]) -> None:
    """Write the results, and the documents that show them, where that was asked for."""
    target = options.json or (None if options.quick else places.RESULTS)
    if target is None or not found["benchmarks"]:
        return
    whole = set(found["benchmarks"]) == {benchmark.name for benchmark in registry.BENCHMARKS}
    results.save(target, found if whole else results.merge(results.load(target), found))
    if target == places.RESULTS:
        render.render(results.load(target))


def repeat_what_is_beyond(found: dict[str, Any], size: str) -> None:
    """Measure once more what would close the gate: on a shared machine one bad minute is no regression."""
    for name, sentence in dict(verdict.beyond_gate(found)).items():
        say(f"beyond the gate, measured once more: {sentence}")
        found["benchmarks"][name] = measure(registry.find(name), size)


def judge(found: dict[str, Any]) -> int:
    """Say what closes the gate."""
    sentences = list(verdict.beyond_gate(found))
    for _, sentence in sentences:
        print(f"bench: beyond the gate: {sentence}", file=sys.stderr)
    return EXIT_BEYOND_GATE if sentences else EXIT_PASSED


def measure(benchmark: Benchmark, size: str) -> dict[str, Any]:
    """Run one benchmark in a process of its own and sum its samples up."""
    say(f"{benchmark.name}: {benchmark.title}")
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="profilemate-bench-") as folder:
        measurement = run_child(benchmark, size, Path(folder))
    about = {
        "size": size,
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "command": f"python benchmarks/overhead{' --quick' if size == 'quick' else ''}",
        "seconds": round(time.monotonic() - began, 1),
        "load_average": round(os.getloadavg()[0], 2),
    }
    return results.entry(benchmark.title, measurement, about)


def run_child(benchmark: Benchmark, size: str, folder: Path) -> samples.Measurement:
    """The samples of one benchmark; its output goes to a log, but for its progress."""
    import environment

    result, log = folder / "result.json", folder / "log"
    command = [sys.executable, str(places.PROGRAM / "child.py"), benchmark.name, size, str(result)]
    env = environment.vllm(**benchmark.environment)
    with log.open("w") as out:
        child = subprocess.Popen(command, env=env, cwd=folder, stdout=out, stderr=subprocess.PIPE, text=True)
        assert child.stderr is not None
        for line in child.stderr:
            out.write(line)
            if line.startswith("[bench "):
                print(line, end="", file=sys.stderr, flush=True)
    if child.wait() or not result.exists():
        tail = [line for line in log.read_text().splitlines() if not line.startswith(QUIET_ENDINGS)][-25:]
        raise BenchmarkFailed(f"{benchmark.name} ended with {child.returncode}:\n" + "\n".join(tail))
    return samples.read(result)
