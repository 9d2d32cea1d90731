"""Where things are, and the tests' helpers made importable."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = Path(__file__).resolve().parent
RESULTS = ROOT / "benchmarks" / "results.json"
OVERHEAD_PAGE = ROOT / "docs" / "overhead.md"
README = ROOT / "README.md"
STANDIN = ROOT / "demo" / "standin"
IMPORTABLE = (ROOT, ROOT / "tests" / "support", ROOT / "tests" / "driver", ROOT / "demo", STANDIN)


def make_importable() -> None:
    """Put the checkout, its tests' helpers and the stand-in on this process's path, not on that of its children."""
    for folder in reversed(IMPORTABLE):
        if str(folder) not in sys.path:
            sys.path.insert(1, str(folder))
