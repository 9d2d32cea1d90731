"""CUDA graphs without a GPU, for tests and the demo: a vLLM platform plugin for vLLM's CPU build.

It replaces the graph driver (`torch.cuda.CUDAGraph` and its companions) with one that computes nothing and logs every
event, and stops vLLM's CPU platform from turning graphs off. Dispatch, padding, capture loops, graph wrappers, scheduler
and executor stay vLLM's own. The tokens that come out are meaningless.

Put this folder's parent on PYTHONPATH. Nothing happens unless STANDIN_GRAPHS=1. Environment:

STANDIN_GRAPHS=1            turn the stand-in on
STANDIN_GRAPHS_LOG=FILE     append one line per event: "<pid> <event> <graph id> <monotonic ns>"
STANDIN_MEMORY_ESTIMATE=1   also run vLLM's throw-away captures before the real ones, as on a GPU

vLLM's own settings decide the rest: the compilation config (mode, graph mode, sizes), VLLM_USE_V2_MODEL_RUNNER,
VLLM_USE_BREAKABLE_CUDAGRAPH, async scheduling, parallel sizes, VLLM_WORKER_MULTIPROC_METHOD.
"""

from __future__ import annotations

import os

PLATFORM_CLASS = "cuda_graph_standin.platform.GraphCpuPlatform"


def platform_class() -> str | None:
    """Entry point of the group vllm.platform_plugins: the name of the platform class, or None to stay out of the way."""
    if os.environ.get("STANDIN_GRAPHS") != "1":
        return None
    from cuda_graph_standin import driver

    driver.install()
    if os.environ.get("VLLM_USE_V2_MODEL_RUNNER") == "1":
        from cuda_graph_standin import interpreter

        interpreter.announce()
    return PLATFORM_CLASS
