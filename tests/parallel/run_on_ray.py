"""A Ray cluster in a network namespace that has loopback only, and a command that uses it.

    run_on_ray.py LOG COMMAND...

Ray binds every address of the machine, whatever it is told, so it is never started outside such a namespace; all of its
processes end with it. The cluster begins in a bare environment, as real clusters do: what a worker gets of the driver's, vLLM
hands on. Run by the overlay's Python (install_ray.py).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

INSIDE = "--inside"
PORT = 6399
NAMESPACE = ("unshare", "--net", "--pid", "--fork", "--mount-proc", "--kill-child")
CLUSTER = {"RAY_AUTH_MODE": "disabled", "VLLM_HOST_IP": "127.0.0.1"}
"""Without the first, Ray wants a token; without the second, vLLM's older executor sees a node under two addresses."""


def outside() -> int:
    """Enter the namespace."""
    folder = tempfile.mkdtemp(prefix="ray", dir="/tmp")  # sockets of Ray lie in it, and their paths must be short
    try:
        command = [*NAMESPACE, sys.executable, __file__, INSIDE, folder, *sys.argv[1:]]
        return subprocess.run(command, check=False).returncode
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def inside(folder: str, log: str, *command: str) -> int:
    """Start the cluster and run the command."""
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    bare = {"PATH": os.environ["PATH"], "HOME": folder, "LANG": "C.UTF-8", **CLUSTER}
    start = [
        str(Path(sys.executable).parent / "ray"), "start", "--head", "--node-ip-address", "127.0.0.1", "--port", str(PORT),
        "--num-cpus", "2", "--num-gpus", "2", "--include-dashboard", "false", "--disable-usage-stats", "--temp-dir", folder,
    ]  # fmt: skip
    with open(log, "wb") as out:
        subprocess.run(start, env=bare, cwd=folder, stdout=out, stderr=out, check=True)
        env = {**os.environ, **CLUSTER, "RAY_ADDRESS": f"127.0.0.1:{PORT}"}
        return subprocess.run(command, env=env, stdout=out, stderr=out, check=False).returncode


if __name__ == "__main__":
    sys.exit(inside(*sys.argv[2:]) if sys.argv[1] == INSIDE else outside())
