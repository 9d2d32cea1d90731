"""Where things are, and the tests' helpers made importable."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = Path(__file__).resolve().parent
RESULTS = PROGRAM / "results.json"
DOCUMENT = ROOT / "docs" / "reliability.md"
STEPPED_CLOCK = PROGRAM / "stepped_clock"
SHORT_SLEEPS = PROGRAM / "short_sleeps"
IMPORTABLE = (ROOT, *(ROOT / "tests" / name for name in ("support", "driver", "surroundings")), ROOT / "demo")


def make_importable() -> None:
    """Put the checkout and its tests' helpers on this process's path, not on that of its children."""
    for folder in reversed(IMPORTABLE):
        if str(folder) not in sys.path:
            sys.path.insert(1, str(folder))
