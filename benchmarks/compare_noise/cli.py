"""False findings between two sessions of the same made-up server, and how often a tenth slower is found: a table."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import NamedTuple

from made_up_sessions import MadeUp, comparison, found

FIRST_SEED = 50_000
"""None of the seeds that the tests use, and none that the statistics were chosen by."""

SLOWER = 1.1
SHORTER = 0.8
"""The second session of a pair is a fifth shorter."""

NUMBERS = ("step_time_mean", "tpot_mean", "ttft_mean")


class Case(NamedTuple):
    """Minutes of the first session, and how long its load hangs together in seconds."""

    minutes: float
    memory_seconds: float


CASES = (Case(2, 2), Case(5, 2), Case(5, 6), Case(5, 10), Case(10, 2))


def pair(case: Case, seed: int, slower: float) -> set[str]:
    """Names of the numbers that are found to differ in one pair."""
    seconds = 60 * case.minutes
    before = MadeUp(seed, seconds, memory=case.memory_seconds)
    after = MadeUp(seed + 1, SHORTER * seconds, slower=slower, memory=case.memory_seconds)
    return found(comparison(before, after))


def row(case: Case, pairs: int) -> str:
    """A line of the table."""
    seeds = range(FIRST_SEED, FIRST_SEED + 2 * pairs, 2)
    false = sum(bool(pair(case, seed, 1.0)) for seed in seeds)
    differ = [pair(case, seed + 2 * pairs, SLOWER) for seed in seeds]
    shares = [f"{100 * sum(name in names for names in differ) / pairs:.0f} %" for name in NUMBERS]
    return f"| {case.minutes:g} minutes | {case.memory_seconds:g} s | {false} of {pairs} | {' | '.join(shares)} |"


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table row by row; progress goes to stderr."""
    parser = argparse.ArgumentParser(
        prog="benchmarks/compare_noise",
        description=__doc__,
        epilog="example: python benchmarks/compare_noise --pairs 60",
    )
    parser.add_argument("--pairs", type=int, default=60, help="pairs of sessions of each kind (%(default)s)")
    options = parser.parse_args(argv)
    if options.pairs < 1:
        parser.error("--pairs must be at least 1")
    print(
        f"| sessions of | the load's memory | any false finding | {' | '.join(f'`{name}` found' for name in NUMBERS)} |"
    )
    print("| --- | --- | --- | --- | --- | --- |")
    for number, case in enumerate(CASES, 1):
        print(f"{number} of {len(CASES)}", file=sys.stderr, flush=True)
        print(row(case, options.pairs), flush=True)
    return 0
