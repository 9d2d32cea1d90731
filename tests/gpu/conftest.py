"""The GPU check's package and this folder's helpers, importable."""

from __future__ import annotations

import sys
from pathlib import Path

import environment

sys.path += [str(environment.ROOT / "benchmarks"), str(Path(__file__).parent)]
