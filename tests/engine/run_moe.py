"""Run a real tiny Qwen3-MoE and write down what its gates said, pass by pass: the oracle of the MoE routing tests.

    run_moe.py OUT.json --model FOLDER [--compilation JSON] [--llm JSON] [--rounds N] [--pause SECONDS] [--dummy N] [--spy]

A forward hook of torch's own on each gate gives the logits, and numpy picks the best ones: vLLM's routers have no part in
it. The gates get weights of their own, since dummy weights are the same in every layer. `--spy` also notes every
`index_add_` and whether a CUDA graph was being captured; the model is loaded under it.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import run_engine  # the sibling: a script's own folder is on its path

Passes = list[dict[str, Any]]


def parse() -> argparse.Namespace:
    """Command-line arguments."""
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--model", required=True)
    parser.add_argument("--compilation", type=json.loads, default={})
    parser.add_argument("--llm", type=json.loads, default={})
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--pause", type=float, default=1.1)
    parser.add_argument("--dummy", type=int, default=0)
    parser.add_argument("--spy", action="store_true")
    return parser.parse_args()


def spy_on_index_add(seen: list[list[Any]]) -> None:
    """Note where each `index_add_` adds to, and whether it is captured."""
    import torch

    original = torch.Tensor.index_add_

    def noting(tensor: Any, *arguments: Any, **options: Any) -> Any:
        seen.append([tensor.data_ptr(), bool(torch.cuda.is_current_stream_capturing())])
        return original(tensor, *arguments, **options)

    torch.Tensor.index_add_ = noting  # type: ignore[method-assign]


def worker_of(llm: Any) -> Any:
    """The worker, which lives in this process."""
    worker = llm.llm_engine.engine_core.engine_core.model_executor.driver_worker
    return getattr(worker, "worker", worker)


def layer_of(name: str) -> int:
    """Out of a module's or parameter's name, as `model.layers.2.mlp.gate`."""
    return int(name.split(".")[2])


def tell_gates_apart() -> None:
    """Give each gate weights of its own as the model is loaded."""
    import torch
    from vllm.model_executor.model_loader.dummy_loader import DummyModelLoader

    original = DummyModelLoader.load_weights

    def load_weights(loader: Any, model: Any, *arguments: Any) -> None:
        original(loader, model, *arguments)
        for name, weight in model.named_parameters():
            if name.endswith(".mlp.gate.weight"):
                weight.data.normal_(generator=torch.Generator().manual_seed(layer_of(name)))

    DummyModelLoader.load_weights = load_weights


def watch_gates(llm: Any, passes: Passes, top_k: int) -> None:
    """Note the experts that the logits of each gate name."""
    import numpy

    for name, module in worker_of(llm).model_runner.get_model().named_modules():
        if not name.endswith(".mlp.gate"):
            continue
        layer = layer_of(name)

        def note(gate: Any, inputs: Any, output: Any, layer: int = layer) -> None:
            logits = (output[0] if isinstance(output, tuple) else output).float().cpu().numpy()
            best = numpy.argsort(-logits, axis=1, kind="stable")[:, :top_k]
            passes.append({"time_ns": time.monotonic_ns(), "layer": layer, "ids": best.tolist()})

        module.register_forward_hook(note)


def main() -> None:
    """Serve, run dummy batches in between, write the oracle."""
    arguments = parse()
    seen: list[list[Any]] = []
    if arguments.spy:
        spy_on_index_add(seen)
    from vllm import LLM

    tell_gates_apart()
    options: dict[str, Any] = {
        "load_format": "dummy",
        "dtype": "float32",  # bfloat16 logits tie
        "max_model_len": 512,
        "gpu_memory_utilization": 0.3,
        "max_num_seqs": 8,
        "max_num_batched_tokens": 64,
        "compilation_config": arguments.compilation,
    }
    llm = LLM(arguments.model, **{**options, **arguments.llm})
    at_start = len(seen)
    passes: Passes = []
    dummies: Passes = []
    if not arguments.compilation.get("backend"):
        watch_gates(llm, passes, llm.llm_engine.model_config.hf_config.num_experts_per_tok)
    for number in range(arguments.rounds):
        run_engine.generate(llm, number + 1, 5)
        before = len(passes)
        for _ in range(arguments.dummy):
            worker_of(llm).execute_dummy_batch()
        dummies += passes[before:]
        del passes[before:]
        time.sleep(arguments.pause)
    run_engine.generate(llm, 1, 5)
    arguments.out.write_text(
        json.dumps({"passes": passes, "dummies": dummies, "index_adds": seen, "index_adds_at_start": at_start})
    )


if __name__ == "__main__":
    main()
