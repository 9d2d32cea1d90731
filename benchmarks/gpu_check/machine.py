"""Whether this machine can run the check, asked in a process of its own so that nothing holds the GPU afterwards."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

PROBE_SECONDS = 180
PROBE = """
import importlib.util, json, platform, sys
found = {"python": platform.python_version(), "vllm": importlib.util.find_spec("vllm") is not None}
try:
    import torch
    found["torch"] = torch.__version__
    found["cuda"] = torch.version.cuda
    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        found["card"] = properties.name
        found["compute_capability"] = f"{properties.major}.{properties.minor}"
        found["memory_bytes"] = properties.total_memory
except ImportError as error:
    found["torch_error"] = str(error)
json.dump(found, sys.stdout)
"""


class NoGpu(Exception):
    """There is no GPU to check on; the message is the sentence for the user."""


class CannotRun(Exception):
    """There is a GPU, but something else is missing; the message is the sentence for the user."""


def find(python: str = sys.executable, env: dict[str, str] | None = None) -> dict[str, Any]:
    """The card, its driver and the versions. Raises NoGpu or CannotRun."""
    return judge(_probe(python, env)) | {"driver": _driver()}


def judge(found: dict[str, Any]) -> dict[str, Any]:
    """What was found, if it is enough."""
    if "torch" not in found:
        raise NoGpu(
            f"no GPU was checked: PyTorch cannot be imported here ({found.get('torch_error', 'unknown reason')})."
        )
    if "card" not in found:
        raise NoGpu(f"no GPU was checked: PyTorch {found['torch']} sees no CUDA device on this machine.")
    if not found.get("cuda"):
        raise NoGpu(f"no GPU was checked: PyTorch {found['torch']} is not a CUDA build; only CUDA traces can be read.")
    if not found.get("vllm"):
        raise CannotRun(f"there is a GPU ({found['card']}), but vLLM cannot be imported; docs/gpu-check.md says how.")
    return found


def _probe(python: str, env: dict[str, str] | None) -> dict[str, Any]:
    try:
        done = subprocess.run(
            [python, "-c", PROBE], env=env, capture_output=True, text=True, timeout=PROBE_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CannotRun(f"the machine cannot be looked at: {error}.") from error
    start = done.stdout.rfind("{")
    if done.returncode or start < 0:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise CannotRun(f"the machine cannot be looked at: Python ended with {done.returncode}: {last}.")
    return dict(json.loads(done.stdout[start:]))


def _driver() -> str | None:
    """The driver's version by nvidia-smi, which only reads; None where it is not installed."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    lines = done.stdout.split()
    return lines[0] if done.returncode == 0 and lines else None
