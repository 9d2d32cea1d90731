"""The process that holds the engine: `python -m gpu_check.engine SPEC.json OUT.json`.

The engine lives in this process (VLLM_ENABLE_V1_MULTIPROCESSING=0), so that vLLM's counters and its scheduler can be read
beside it. Whether ProfileMate is in it is the caller's choice, by PYTHONPATH; nothing here imports it first.
"""

from __future__ import annotations

import gc
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gpu_check import moe
from gpu_check.load import batch_arrivals, drive, kv_arrivals, window_arrivals
from gpu_check.places import helper
from gpu_check.window import TorchWindow, Window, bounds

Spec = dict[str, Any]


def make_engine(spec: Spec) -> Any:
    """The offline LLM of the specification."""
    from vllm import LLM

    return LLM(spec["model"], compilation_config=spec["compilation"], **spec["llm"])


def versions() -> dict[str, Any]:
    """What ran."""
    import torch
    import vllm

    return {
        "vllm": vllm.__version__,
        "torch": torch.__version__,
        "profiled": "profilemate.probe.install" in sys.modules,
    }


def runner_of(llm: Any) -> list[str]:
    """The model runner's class and its bases by module, which say whether it is V1's or V2's."""
    executor = llm.llm_engine.engine_core.engine_core.model_executor
    worker = getattr(executor, "driver_worker", None)
    runner = type(getattr(getattr(worker, "worker", worker), "model_runner", None))
    return [f"{base.__module__}.{base.__qualname__}" for base in runner.__mro__]


def captured_graphs() -> int:
    """VLLM's own count of the graphs that it kept."""
    from vllm.compilation.counter import compilation_counter

    return int(compilation_counter.num_cudagraph_captured)


def device_memory() -> dict[str, int]:
    """Peaks of PyTorch's allocator and what the device has in use now; empty without a device."""
    import torch

    if not torch.cuda.is_available():
        return {}
    free, total = torch.cuda.mem_get_info()
    return {
        "peak_allocated_bytes": torch.cuda.max_memory_allocated(),
        "peak_reserved_bytes": torch.cuda.max_memory_reserved(),
        "device_used_bytes": total - free,
    }


def run_oracles(llm: Any, spec: Spec, window: Window, trace: Path) -> dict[str, Any]:
    """A traced window of serving, then enough requests to evict; the oracles watch all of it."""
    captured = captured_graphs()
    scheduler = llm.llm_engine.engine_core.engine_core.scheduler
    oracle = helper("oracle").attach(scheduler)
    stats: list[list[Any]] = []
    steps: list[int] = []
    helper("run_engine").watch_scheduler(llm, stats, steps)
    vocabulary = spec["vocabulary"]
    drive(llm, batch_arrivals(2, 8, vocabulary, seed=0))  # lazy initialisation is not part of the window
    in_window, (began, ended) = bounds(window, trace, lambda: drive(llm, window_arrivals(vocabulary)))
    kv = kv_arrivals(spec["kv_requests"], spec["llm"]["max_model_len"], spec["llm"]["block_size"], vocabulary)
    afterwards = drive(llm, kv)
    return {
        "captured": captured,
        "captured_at_end": captured_graphs(),
        "window": {"began_ns": began, "ended_ns": ended, "calls": in_window.calls},
        "answers": {**in_window.answers, **afterwards.answers},
        "stats": stats,
        "steps": len(steps),
        "kv": oracle.result(),
    }


def tokens_per_second(llm: Any, spec: Spec, seed: int) -> float:
    """One round of the batch, its generated tokens over its wall time."""
    arrivals = batch_arrivals(spec["batch"], spec["output_tokens"], spec["vocabulary"], seed)
    began = time.perf_counter()
    answers = drive(llm, arrivals).answers
    return sum(map(len, answers.values())) / (time.perf_counter() - began)


def run_throughput(llm: Any, spec: Spec) -> dict[str, Any]:
    """Rounds as the engine is; with ProfileMate also rounds in turn with its hooks taken out and put in again."""
    for seed in range(2):
        tokens_per_second(llm, spec, seed)
    gc.collect()
    gc.freeze()  # as EngineCore does where it has a process of its own
    rates = [tokens_per_second(llm, spec, 10 + number) for number in range(spec["rounds"])]
    memory = device_memory()
    turns = take_turns(llm, spec) if versions()["profiled"] else []
    return {"rates": rates, "memory": memory, "turns": turns}


def take_turns(llm: Any, spec: Spec) -> list[dict[str, Any]]:
    """One round with and one without our hooks, again and again; which comes first alternates."""
    from profilemate.probe import install

    switches: dict[str, Callable[[], None]] = {"in": install.begin, "out": install.remove_all}
    turns = []
    for number in range(spec["turns"]):
        turn: dict[str, Any] = {}
        for place, name in enumerate(("in", "out") if number % 2 else ("out", "in")):
            switches[name]()
            began = time.monotonic_ns()
            rate = tokens_per_second(llm, spec, 100 + 2 * number + place)  # prompts that no cache holds
            turn[name] = {"rate": rate, "began_ns": began, "ended_ns": time.monotonic_ns()}
        turns.append(turn)
    install.begin()
    return turns


def main(argv: list[str], window: Window | None = None) -> None:
    """Run what the specification says and write what came of it."""
    spec_file, out = map(Path, argv)
    spec: Spec = json.loads(spec_file.read_text(encoding="utf-8"))
    if spec["part"] == "moe":
        moe.prepare()
    llm = make_engine(spec)
    result = {**versions(), "runner": runner_of(llm)}
    if spec["part"] == "oracles":
        result |= run_oracles(llm, spec, window or TorchWindow(), Path(spec["trace"]))
    elif spec["part"] == "moe":
        result |= moe.run(llm, spec)
    else:
        result |= run_throughput(llm, spec)
    out.write_text(json.dumps(result), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
