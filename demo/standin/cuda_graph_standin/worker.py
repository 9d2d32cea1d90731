"""vLLM's CPU worker and its V1 runner, made to load, warm up and capture with the code of the GPU worker."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from vllm.v1.worker import cpu_worker  # isort: skip - first: this import puts vLLM's CPU patches into torch

import torch
from vllm.compilation import breakable_cudagraph
from vllm.compilation.counter import compilation_counter
from vllm.config import CUDAGraphMode, set_current_vllm_config
from vllm.distributed import parallel_state
from vllm.utils import torch_utils
from vllm.utils.torch_utils import current_stream
from vllm.v1.attention.backend import AttentionCGSupport
from vllm.v1.attention.backends.cpu_attn import CPUAttentionMetadataBuilder
from vllm.v1.worker import gpu_worker
from vllm.v1.worker.cpu_model_runner import CPUModelRunner
from vllm.v1.worker.gpu_model_runner import GPUModelRunner
from vllm.v1.worker.workspace import init_workspace_manager


def _no_kernel_warmup(worker: gpu_worker.Worker, **options: Any) -> None:
    """In place of kernel_warmup, which tunes GPU kernels and imports what a CPU install lacks."""


def _same_tensor(tensor: Any) -> Any:
    """In place of weak_ref_tensor, whose operator exists only in GPU builds."""
    return tensor


@contextmanager
def _graph_capture(
    group: parallel_state.GroupCoordinator, graph_capture_context: parallel_state.GraphCaptureContext | None = None
) -> Iterator[parallel_state.GraphCaptureContext]:
    """In place of GroupCoordinator.graph_capture, which asks for the communicator of a GPU once a group has two ranks."""
    yield graph_capture_context or parallel_state.GraphCaptureContext(current_stream())


class GraphV1Runner(CPUModelRunner):
    """The CPU's V1 runner with the GPU runner's load_model, which is what puts graph wrappers around the model."""

    def load_model(self, load_dummy_weights: bool = False, **options: Any) -> None:
        """Load as the GPU runner does."""
        GPUModelRunner.load_model(self, load_dummy_weights, **options)

    def get_model(self) -> torch.nn.Module:
        """The model without its graph wrappers, as from the GPU runner."""
        return GPUModelRunner.get_model(self)


class GraphCpuWorker(cpu_worker.CPUWorker):
    """A CPU worker that warms up and captures as the GPU worker does."""

    def init_device(self) -> None:
        """Make the runner, and the workspace that the GPU worker would have made."""
        super().init_device()  # type: ignore[no-untyped-call]
        init_workspace_manager(torch.device("cpu"), 1)

    def determine_available_memory(self) -> int:
        """The CPU's memory for the KV cache; with STANDIN_MEMORY_ESTIMATE=1, after the GPU's throw-away captures."""
        available = super().determine_available_memory()
        if os.environ.get("STANDIN_MEMORY_ESTIMATE") == "1" and self._captures_graphs():
            with set_current_vllm_config(self.vllm_config):
                self.model_runner.profile_cudagraph_memory()
        return available

    def compile_or_warm_up_model(self) -> Any:
        """Warm up, then capture: the GPU worker's code."""
        return gpu_worker.Worker.compile_or_warm_up_model(self)

    def standin_counters(self) -> dict[str, int]:
        """VLLM's compilation counters in this process: `llm.collective_rpc("standin_counters")` asks every worker."""
        return dict(vars(compilation_counter))

    def _captures_graphs(self) -> bool:
        return self.vllm_config.compilation_config.cudagraph_mode != CUDAGraphMode.NONE


# What only a GPU build or a GPU has: where it is, its name there, and what takes its place.
REPLACEMENTS: list[tuple[Any, str, Any]] = [
    (gpu_worker, "kernel_warmup", _no_kernel_warmup),
    (torch_utils, "weak_ref_tensor", _same_tensor),
    (breakable_cudagraph, "weak_ref_tensor", _same_tensor),
    (parallel_state.GroupCoordinator, "graph_capture", _graph_capture),
    (CPUAttentionMetadataBuilder, "_cudagraph_support", AttentionCGSupport.ALWAYS),
    (cpu_worker, "CPUModelRunner", GraphV1Runner),
]
for owner, name, replacement in REPLACEMENTS:
    setattr(owner, name, replacement)
if os.environ.get("VLLM_USE_V2_MODEL_RUNNER") == "1":
    from cuda_graph_standin import interpreter

    interpreter.mend()
