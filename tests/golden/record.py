"""Record the real sessions that the golden ones are cut from: a server, two data-parallel engines, MoE and encoder, hybrid.

    python tests/golden/record.py FOLDER [NAME ...]

Each takes a minute or two on two cores and lands in FOLDER/<name>/session_...; `make_sessions.py cut NAME SESSION` then
makes the small one. Nothing here runs in a test.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "demo"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

import environment
import moe_model
import run_demo
import tiny_model

ROOT = environment.ROOT
REQUESTS = 12
run_demo.READY_TIMEOUT_S = run_demo.STOP_TIMEOUT_S = 900.0
DRIVE = ROOT / "tests" / "driver" / "drive.py"
ENGINE = ROOT / "tests" / "engine"
GRAPHS = {
    "mode": 3,
    "backend": "eager",
    "cudagraph_mode": "FULL_AND_PIECEWISE",
    "cudagraph_capture_sizes": [1, 2, 4, 8],
}


def serve(folder: Path, requests: int, **options: str) -> None:
    """A real server under a short load, with the stand-in for CUDA graphs."""
    model, port = tiny_model.write_tiny_llama(folder / "tiny-llama"), run_demo.free_port()
    words = {
        "model": str(model), "served-model-name": "tiny-llama", "load-format": "dummy", "host": "127.0.0.1",
        "port": str(port), "max-model-len": "2048", "block-size": "32", "num-gpu-blocks-override": "72",
        "max-num-seqs": "8", "max-num-batched-tokens": "256", "gpu-memory-utilization": "0.3", **options,
    }  # fmt: skip
    server = [sys.executable, "-m", "vllm.entrypoints.openai.api_server"]
    server += [word for name, value in words.items() for word in ((f"--{name}", value) if value else (f"--{name}",))]
    command = run_demo.profiled_command(folder, server)
    run_demo.run_server(command, f"http://127.0.0.1:{port}", requests, folder / "server.log")


def server(folder: Path) -> None:
    """Front end, engine core and worker in processes of their own, graphs captured and replayed, a small KV cache."""
    serve(
        folder,
        REQUESTS,
        **{"compilation-config": json.dumps(GRAPHS), "num-gpu-blocks-override": "48", "max-model-len": "1024"},
    )


def engines(folder: Path) -> None:
    """Two data-parallel engines behind one front end, without graphs."""
    serve(folder, REQUESTS, **{"data-parallel-size": "2", "enforce-eager": ""})


def hybrid(folder: Path) -> None:
    """vLLM's Scheduler over two KV groups (full attention and sliding window), without a model."""
    command = [sys.executable, str(DRIVE), "--hybrid", "--requests", "16", "--blocks", "160"]
    subprocess.run(command, env=environment.profiled(folder), cwd=folder, check=True)


def everything(folder: Path) -> None:
    """Every tracker on: a MoE model, then one with an audio encoder, in one session."""
    base = tiny_model.write_tiny_llama(folder / "tiny-llama")
    moe = moe_model.write_tiny_moe(base, folder / "tiny-moe")
    eager = json.dumps({"enforce_eager": True})
    first = [sys.executable, str(ENGINE / "run_moe.py"), str(folder / "moe.json"), "--model", str(moe), "--llm", eager]
    second = [sys.executable, str(ENGINE / "drive_encoder.py"), str(base), str(folder / "audio.json"), "qwen2_audio"]
    script = "import subprocess, sys, json\nfor command in json.loads(sys.argv[1]): subprocess.run(command, check=True)"
    both = [sys.executable, "-c", script, json.dumps([first, second])]
    environ = environment.profiled(
        folder, environment.STANDIN, PROFILEMATE_TRACKERS="all", PROFILEMATE_MOE_COSELECTION="1",
        VLLM_ENABLE_V1_MULTIPROCESSING="0",
    )  # fmt: skip
    command = [sys.executable, "-m", "profilemate", "run", "--dir", str(folder), "--", *both]
    subprocess.run(command, env=environ, cwd=folder, check=True)


def capped(folder: Path) -> None:
    """An engine in one process that runs past a small cap, so that segments are removed."""
    model = tiny_model.write_tiny_llama(folder / "tiny-llama")
    command = [sys.executable, str(ENGINE / "run_engine.py"), str(folder / "oracle.json"), "--model", str(model)]
    command += ["--compilation", json.dumps(GRAPHS), "--rounds", "60"]
    environ = environment.profiled(
        folder,
        environment.STANDIN,
        STANDIN_GRAPHS="1",
        VLLM_ENABLE_V1_MULTIPROCESSING="0",
        PROFILEMATE_SESSION_CAP="100000",
    )
    subprocess.run(command, env=environ, cwd=folder, check=True)


def no_graphs(folder: Path) -> None:
    """`enforce_eager` in one process, with n=2 and aborted requests, without a front end of its own."""
    model = tiny_model.write_tiny_llama(folder / "tiny-llama")
    command = [sys.executable, str(ENGINE / "run_requests.py"), str(folder / "seen.json"), "--model", str(model)]
    environ = environment.profiled(folder, VLLM_ENABLE_V1_MULTIPROCESSING="0")
    subprocess.run(command, env=environ, cwd=folder, check=True)


RECORDINGS = {made.__name__: made for made in (server, engines, hybrid, everything, capped, no_graphs)}


def main() -> None:
    """Record those that were asked for, all by default."""
    folder, wanted = Path(sys.argv[1]).resolve(), sys.argv[2:] or list(RECORDINGS)
    for name in wanted:
        (folder / name).mkdir(parents=True, exist_ok=True)
        RECORDINGS[name](folder / name)


if __name__ == "__main__":
    main()
