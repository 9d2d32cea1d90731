"""`python benchmarks/soak`, from whatever folder."""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])

from soak.cli import main  # noqa: E402 - needs the path

if __name__ == "__main__":
    sys.exit(main())
