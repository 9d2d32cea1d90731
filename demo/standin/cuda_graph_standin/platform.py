"""vLLM's CPU platform, with the settings that concern graphs left as the user gave them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import torch
from vllm.platforms.cpu import CpuPlatform

if TYPE_CHECKING:
    from vllm.config import VllmConfig

CPU_WORKER = "vllm.v1.worker.cpu_worker.CPUWorker"
GRAPH_WORKER = "cuda_graph_standin.worker.GraphCpuWorker"
KEPT_COMPILATION_FIELDS = ("mode", "backend", "cudagraph_mode", "cudagraph_capture_sizes")


class GraphCpuPlatform(CpuPlatform):
    """A CPU that says it has static graphs."""

    @classmethod
    def support_static_graph_mode(cls) -> bool:
        """Graphs can be captured."""
        return True

    @classmethod
    def get_static_graph_wrapper_cls(cls) -> str:
        """The wrapper that the CUDA platform names."""
        return "vllm.compilation.cuda_graph.CUDAGraphWrapper"

    def graph_pool_handle(self) -> Any:
        """A new pool from the driver, as on the CUDA platform."""
        return torch.cuda.graph_pool_handle()

    @classmethod
    def check_and_update_config(cls, vllm_config: VllmConfig) -> None:
        """Let the CPU platform change what it wants, then take back its changes to graphs and to scheduling."""
        compilation, scheduler = vllm_config.compilation_config, vllm_config.scheduler_config
        kept = {name: getattr(compilation, name) for name in KEPT_COMPILATION_FIELDS}
        async_scheduling = scheduler.async_scheduling
        start_method = os.environ.get("VLLM_WORKER_MULTIPROC_METHOD", "spawn")

        super().check_and_update_config(vllm_config)

        for name, value in kept.items():
            setattr(compilation, name, value)
        scheduler.async_scheduling = async_scheduling
        os.environ["VLLM_WORKER_MULTIPROC_METHOD"] = start_method
        compilation.pass_config.fuse_norm_quant = False  # compiler passes that a CPU install does not have
        compilation.pass_config.fuse_act_quant = False
        if vllm_config.parallel_config.worker_cls == CPU_WORKER:
            vllm_config.parallel_config.worker_cls = GRAPH_WORKER
