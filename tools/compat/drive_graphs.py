"""Drive vLLM's own holders of CUDA graphs, of whatever version is on the path, over the stand-in for the graph driver.

Each function captures once and replays REPLAYS times within one forward pass, and returns how many graphs the driver replayed.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

REPLAYS = 3
TOKENS = 8
ABSENT = "absent"


class Driver:
    """The stand-in, with a count of replays of its own."""

    def __init__(self) -> None:
        """Put it in the place of torch's driver, and what only a GPU build has beside it."""
        import torch
        from cuda_graph_standin import driver
        from vllm.platforms import current_platform

        driver.install()
        self.replays = 0
        counted = driver.CUDAGraph.replay

        def replay(graph: Any) -> None:
            self.replays += 1
            counted(graph)

        driver.CUDAGraph.replay = replay  # type: ignore[method-assign]
        for name in ("get_global_graph_pool", "graph_pool_handle"):
            setattr(type(current_platform), name, lambda *args: (0, 1))
        if hasattr(torch, "accelerator"):
            torch.accelerator.empty_cache = lambda: None


def _quiet(module: Any) -> None:
    """Names that a module took from GPU-only places."""
    for name, stand_in in (
        ("weak_ref_tensors", lambda tensors: tensors), ("weak_ref_tensor", lambda tensor: tensor),
        ("current_stream", lambda: None),
    ):  # fmt: skip
        if hasattr(module, name):
            setattr(module, name, stand_in)


def descriptor() -> Any:
    """A decode batch of eight tokens, in this version's terms."""
    from vllm.forward_context import BatchDescriptor

    fields = inspect.signature(BatchDescriptor).parameters
    uniform = {name: True for name in ("uniform", "uniform_decode") if name in fields}
    return BatchDescriptor(num_tokens=TOKENS, **uniform)


def in_context(config: Any, mode: Any, call: Callable[[], Any]) -> Any:
    """Call with vLLM's forward context of that mode."""
    from vllm.forward_context import set_forward_context

    with set_forward_context(
        None, config, num_tokens=TOKENS, cudagraph_runtime_mode=mode, batch_descriptor=descriptor()
    ):
        return call()


def wrapper_calls(holder: Any, config: Any, in_pass: Callable[[Callable[[], Any]], Any]) -> None:
    """NONE passes through, the first call captures, the others replay."""
    import torch
    from vllm.config import CUDAGraphMode

    tensor = torch.zeros(TOKENS)
    in_context(config, CUDAGraphMode.NONE, lambda: holder(tensor))
    in_context(config, CUDAGraphMode.FULL, lambda: holder(tensor))
    in_pass(lambda: [in_context(config, CUDAGraphMode.FULL, lambda: holder(tensor)) for _ in range(REPLAYS)])


def cuda_graph_wrapper(config: Any, in_pass: Callable[[Callable[[], Any]], Any]) -> str:
    """CUDAGraphWrapper in FULL mode."""
    from vllm.compilation import cuda_graph
    from vllm.config import CUDAGraphMode

    _quiet(cuda_graph)
    wrapper = cuda_graph.CUDAGraphWrapper(lambda tensor: tensor, config, CUDAGraphMode.FULL)
    wrapper_calls(wrapper, config, in_pass)
    return ""


def breakable_wrapper(config: Any, in_pass: Callable[[Callable[[], Any]], Any]) -> str:
    """BreakableCUDAGraphWrapper."""
    try:
        from vllm.compilation import breakable_cudagraph
    except ImportError:
        return ABSENT
    _quiet(breakable_cudagraph)
    wrapper_calls(breakable_cudagraph.BreakableCUDAGraphWrapper(lambda tensor: tensor, config), config, in_pass)
    return ""


def run_fullgraph(config: Any, in_pass: Callable[[Callable[[], Any]], Any]) -> str:
    """CudaGraphManager.run_fullgraph of the V2 runner, over a graph that is there."""
    try:
        from vllm.v1.worker.gpu import cudagraph_utils
    except ImportError:
        return ABSENT
    manager_class = getattr(cudagraph_utils, "CudaGraphManager", None)
    if manager_class is None or not hasattr(manager_class, "run_fullgraph"):
        return ABSENT
    import torch
    from vllm.config import CUDAGraphMode

    graph = torch.cuda.CUDAGraph()
    graph.capture_begin()
    graph.capture_end()
    fields = inspect.signature(cudagraph_utils.BatchExecutionDescriptor).parameters
    desc = cudagraph_utils.BatchExecutionDescriptor(
        cg_mode=CUDAGraphMode.FULL, num_tokens=TOKENS, **{"num_reqs": TOKENS} if "num_reqs" in fields else {}
    )
    manager = manager_class.__new__(manager_class)
    manager.graphs = {desc: graph}
    in_pass(lambda: [manager.run_fullgraph(desc) for _ in range(REPLAYS)])
    return ""


HOLDERS = {
    "cuda_graph_wrapper": cuda_graph_wrapper,
    "breakable_wrapper": breakable_wrapper,
    "run_fullgraph": run_fullgraph,
}
