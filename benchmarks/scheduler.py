"""CPU time per engine step of vLLM's own scheduler, without a model: bare, with ProfileMate, with vLLM's own collector.

    python benchmarks/scheduler.py [--rounds 10] [--requests 600] [--json FILE]

All variants run in one process, in turn, many rounds; "bare again" is a second bare run of each round and tells how much of
a difference is noise. The minimum is the steadier figure on a shared machine.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "driver")]


def microseconds_per_step(arguments: list[str]) -> float:
    """CPU microseconds of one schedule and update pair."""
    import drive

    summary, _ = drive.run(drive.parse(arguments))
    return 1e6 * float(summary["loop_cpu_s"]) / int(summary["steps"])


def profiled(arguments: list[str]) -> float:
    """The same with every hook in, recording to disk."""
    from profilemate.probe import install

    install.begin()
    try:
        return microseconds_per_step(arguments)
    finally:
        install.remove_all()


def variants(arguments: list[str]) -> dict[str, Callable[[], float]]:
    """What is compared, by name."""
    return {
        "bare": lambda: microseconds_per_step(arguments),
        "ProfileMate": lambda: profiled(arguments),
        "bare again": lambda: microseconds_per_step(arguments),
        "vLLM's collector at 1.0": lambda: microseconds_per_step([*arguments, "--kv-cache-metrics"]),
    }


def measure(rounds: int, arguments: list[str]) -> dict[str, list[float]]:
    """Microseconds per step of every variant and round; the order turns from round to round."""
    chosen = variants(arguments)
    names = list(chosen)
    times: dict[str, list[float]] = {name: [] for name in names}
    chosen["bare"]()  # imports and caches
    for number in range(rounds):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            times[name].append(chosen[name]())
        print(f"\rround {number + 1} of {rounds}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return times


def summarise(times: dict[str, list[float]]) -> dict[str, dict[str, float]]:
    """Minimum, median, quartiles, and the median of the differences from bare in the same round."""
    result = {}
    for name, values in times.items():
        low, _, high = statistics.quantiles(values, n=4)
        differences = [value - bare for value, bare in zip(values, times["bare"], strict=True)]
        result[name] = {
            "min_us": min(values),
            "median_us": statistics.median(values),
            "quartile_low_us": low,
            "quartile_high_us": high,
            "median_difference_us": statistics.median(differences),
            "min_over_bare_percent": 100 * (min(values) / min(times["bare"]) - 1),
        }
    return result


def table(result: dict[str, dict[str, float]]) -> str:
    """The result for people."""
    lines = [
        f"{'us of CPU per engine step':<26}{'min':>9}{'median':>9}{'quartiles':>17}{'paired':>9}{'min vs bare':>13}"
    ]
    for name, row in result.items():
        quartiles = f"{row['quartile_low_us']:.1f}-{row['quartile_high_us']:.1f}"
        lines.append(
            f"{name:<26}{row['min_us']:>9.1f}{row['median_us']:>9.1f}{quartiles:>17}"
            f"{row['median_difference_us']:>+9.1f}{row['min_over_bare_percent']:>+12.1f}%"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--requests", type=int, default=600)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["PROFILEMATE_DIR"] = folder
        times = measure(options.rounds, ["--requests", str(options.requests)])
    result: dict[str, Any] = summarise(times)
    print(table(result))
    if options.json:
        options.json.write_text(json.dumps({"per_step": result, "rounds": options.rounds}, indent=1) + "\n")


if __name__ == "__main__":
    main()
