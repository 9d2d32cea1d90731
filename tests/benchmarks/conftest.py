"""The benchmarks' package, and what it imports, importable."""

from __future__ import annotations

import sys

import environment

sys.path += [str(environment.ROOT / "benchmarks")]
