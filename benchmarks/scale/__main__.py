"""`python benchmarks/scale`, from whatever folder."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[0] = str(ROOT / "benchmarks")
sys.path[1:1] = [str(ROOT), str(ROOT / "tests" / "support")]

from scale.cli import main  # noqa: E402 - needs the path

if __name__ == "__main__":
    sys.exit(main())
