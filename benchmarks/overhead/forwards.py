"""A V1 model runner of vLLM whose forward pass is nothing but CUDAGraphWrapper replays.

The wrappers, the forward context and the runner class are vLLM's own, so that ProfileMate's hooks go where they go in a
server. Dispatch, forward and sampling of the class are replaced by the shortest functions of the same signature, and the graph
driver by the stand-in, whose replay does nothing: what is left is the host's side of a replay.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

PIECES = 33
"""Pieces of a model with 32 layers."""

TOKENS = 8


def determine_batch(
    self: Any,
    num_tokens: int,
    num_reqs: int,
    num_scheduled_tokens_np: Any,
    max_num_scheduled_tokens: int,
    use_cascade_attn: bool = False,
    allow_microbatching: bool = True,
    force_eager: bool = False,
    force_uniform_decode: bool | None = None,
    force_has_lora: bool | None = None,
    force_num_active_loras: int | None = None,
    num_encoder_reqs: int = 0,
) -> tuple[Any, Any, bool, None, None]:
    """Always the one batch that was captured."""
    return self.bench_mode, self.bench_batch, False, None, None


def model_forward(
    self: Any,
    input_ids: Any = None,
    positions: Any = None,
    intermediate_tensors: Any = None,
    inputs_embeds: Any = None,
    **model_kwargs: Any,
) -> Any:
    """The pieces one after another; `bench_ns` is the time of all."""
    tensor = self.bench_tensor
    began = time.perf_counter_ns()
    for piece in self.bench_pieces:
        piece(tensor)
    self.bench_ns = time.perf_counter_ns() - began
    return tensor


def execute_model(self: Any, scheduler_output: Any, intermediate_tensors: Any = None) -> None:
    """Dispatch, then the forward in its context."""
    from vllm.forward_context import set_forward_context

    mode, batch, *_ = self._determine_batch_execution_and_padding(TOKENS, TOKENS, None, 1)
    with set_forward_context(
        None,
        self.vllm_config,
        num_tokens=batch.num_tokens,
        cudagraph_runtime_mode=mode,
        batch_descriptor=batch,
    ):
        self._model_forward()


def sample_tokens(self: Any, grammar_output: Any) -> None:
    """No drafter, nothing to sample."""


def decode_step() -> Any:
    """A SchedulerOutput in which every request generates one token."""
    from vllm.v1.core.sched.output import CachedRequestData, SchedulerOutput

    names = [f"request-{number}" for number in range(TOKENS)]
    cached = CachedRequestData.make_empty()
    cached.req_ids, cached.num_output_tokens = names, [1] * TOKENS
    cached.num_computed_tokens = [100] * TOKENS
    scheduled = SchedulerOutput.make_empty()
    scheduled.scheduled_cached_reqs = cached
    scheduled.num_scheduled_tokens = dict.fromkeys(names, 1)
    scheduled.total_num_scheduled_tokens = TOKENS
    return scheduled


METHODS = {
    "_determine_batch_execution_and_padding": determine_batch,
    "_model_forward": model_forward,
    "execute_model": execute_model,
    "sample_tokens": sample_tokens,
}


def make_runner() -> Any:
    """A runner that has captured its graphs. Call it while no hook is in."""
    import cuda_graph_standin.worker  # noqa: F401 - replaces what only a GPU build has
    import drive
    import torch
    from vllm.compilation.cuda_graph import CUDAGraphWrapper
    from vllm.config import CUDAGraphMode
    from vllm.forward_context import BatchDescriptor
    from vllm.v1.worker.gpu_model_runner import GPUModelRunner

    for name, method in METHODS.items():
        setattr(GPUModelRunner, name, method)
    runner: Any = object.__new__(GPUModelRunner)
    with tempfile.TemporaryDirectory() as folder:
        runner.vllm_config = drive.make_vllm_config(drive.parse([]), Path(folder), 1024)
    runner.bench_mode = CUDAGraphMode.PIECEWISE
    runner.bench_batch = BatchDescriptor(num_tokens=TOKENS)
    runner.bench_tensor = torch.zeros(TOKENS)
    runner.bench_ns = 0
    runner.bench_step = decode_step()
    runner.bench_pieces = [
        CUDAGraphWrapper(lambda tensor: tensor, runner.vllm_config, runner.bench_mode) for _ in range(PIECES)
    ]
    runner.execute_model(runner.bench_step)
    captured = [len(piece.concrete_cudagraph_entries) for piece in runner.bench_pieces]
    if captured != [1] * PIECES:
        raise RuntimeError(f"vLLM's wrappers captured {captured} graphs")
    return runner


ENVIRONMENT = {"STANDIN_GRAPHS": "1", "VLLM_LOGGING_LEVEL": "ERROR"}
