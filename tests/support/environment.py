"""Environments and paths for tests that start real interpreters."""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
STANDIN = ROOT / "demo" / "standin"
SHARED = ROOT.parent / "shared"

HANGS_SECONDS = 900
"""What takes so long hangs. The same machine was four times slower on another day, beside another test that runs engines."""


def clean() -> dict[str, str]:
    """The environment of this test run without what would switch ProfileMate or vLLM's options."""
    dropped = ("PROFILEMATE_", "VLLM_", "STANDIN_", "PYTHONPATH", "PYTHONSTARTUP")
    return {name: value for name, value in os.environ.items() if not name.startswith(dropped)}


def vllm(**more: str) -> dict[str, str]:
    """For a real vLLM CPU engine that talks to loopback only.

    The CPU build pins every worker to the first cores; those of two servers that are tested side by side would share one.
    """
    return clean() | {
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
        "VLLM_HOST_IP": "127.0.0.1",
        "GLOO_SOCKET_IFNAME": "lo",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "OMP_NUM_THREADS": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        **more,
    }


def profiled(directory: Path, *paths: Path, **more: str) -> dict[str, str]:
    """The same with ProfileMate through PYTHONPATH, writing below `directory`."""
    path = os.pathsep.join(map(str, (ROOT, *paths)))
    return vllm(PYTHONPATH=path, PROFILEMATE_DIR=str(directory), **more)
