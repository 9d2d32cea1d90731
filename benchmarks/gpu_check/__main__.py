"""`python benchmarks/gpu_check`, from whatever folder."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from gpu_check.cli import main

if __name__ == "__main__":
    sys.exit(main())
