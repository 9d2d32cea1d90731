"""The whole suite, two files at a time; the few tests that fail beside others are run once more, alone, and named.

Two hundred of them start vLLM's servers and engines, on machines with two slow cores that others share: of 4,300 tests about
one met a stall there that it was not written for. What fails alone too fails the run, and so do more than FEW: then it is
not the machine. A test that passed only alone is still a fault, of the test or of what it tests: its name stands in the last
lines.

    python tests/run_suite.py [options of pytest]
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ALL = ("-n", "2", "--dist", "loadfile", "--durations=60", "--cache-clear")
AGAIN = ("--last-failed", "--last-failed-no-failures=none")
LAST_FAILED = Path(".pytest_cache/v/cache/lastfailed")
FEW = 4
TESTS_FAILED = 1
"""pytest's exit code for that; every other but 0 is trouble of another kind."""


def main(options: list[str]) -> int:
    """Exit code of the suite."""
    code = pytest(*ALL, *options)
    failed = failed_tests() if code == TESTS_FAILED else []
    if not 0 < len(failed) <= FEW:
        return code
    say(f"{len(failed)} failed beside the others; once more, alone:", failed)
    code = pytest(*AGAIN, *options)
    failed_alone = failed_tests() if code == TESTS_FAILED else []
    if code in (0, TESTS_FAILED):
        say("Passed only alone, which is to be mended:", [test for test in failed if test not in failed_alone])
        say("Failed both times:", failed_alone)
    return code


def pytest(*arguments: str) -> int:
    """Exit code of one run."""
    return subprocess.run([sys.executable, "-m", "pytest", *arguments], check=False).returncode


def failed_tests() -> list[str]:
    """Those that the run before this left as failed, as pytest names them."""
    return sorted(json.loads(LAST_FAILED.read_text())) if LAST_FAILED.exists() else []


def say(title: str, tests: list[str]) -> None:
    """A title and a test per line; nothing where there are none."""
    if tests:
        print(f"\n{title}", *(f"  {test}" for test in tests), sep="\n", flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
