"""Drive one of vLLM's own graph holders directly, where an engine for it needs a GPU or a large model.

    drive_other_graphs.py encoder|ubatch|gemma4

Real: the vLLM class and what it calls. Put in their place: the CUDA graph driver (the stand-in), CUDA streams, a model of
a few lines. The steps of a runner are told to the tracker by the functions that its hooks on a runner call.
"""

from __future__ import annotations

import contextlib
import sys
from types import SimpleNamespace
from typing import Any

import cuda_graph_standin.worker  # noqa: F401 - puts the stand-in's parts in place of what only GPU builds have
import torch
from vllm.config import CompilationConfig, CUDAGraphMode, VllmConfig
from vllm.platforms import current_platform
from vllm.v1.worker import cpu_model_runner

from profilemate.probe import install, phase
from profilemate.probe.process import THIS
from profilemate.trackers.forward_passes import runners
from profilemate.trackers.forward_passes.recorder import FORWARD

HIDDEN = 8


def fake_streams() -> None:
    """A CPU build has no CUDA streams; nothing here depends on their order."""
    stream = SimpleNamespace(wait_event=lambda event: None)
    torch.cuda.Stream = lambda *args, **options: stream
    torch.cuda.current_stream = lambda *args: stream
    torch.cuda.set_stream = lambda other: None
    torch.cuda.stream = lambda other: contextlib.nullcontext()
    torch.cuda.current_blas_handle = lambda: 0
    torch.Event = lambda *args, **options: SimpleNamespace(record=lambda stream: None)
    torch.accelerator.set_device_index = lambda index: None


@contextlib.contextmanager
def in_phase(name: str) -> Any:
    """A part of vLLM's start."""
    depth = phase.enter(name)
    try:
        yield
    finally:
        phase.leave(depth)


@contextlib.contextmanager
def step() -> Any:
    """One execute_model call, with two requests that decode."""
    cached = SimpleNamespace(req_ids=["a", "b"], num_output_tokens=[1, 1])
    scheduled = SimpleNamespace(
        num_scheduled_tokens={"a": 1, "b": 1}, total_num_scheduled_tokens=2, scheduled_new_reqs=[],
        scheduled_cached_reqs=cached,
    )  # fmt: skip
    began_ns = runners.execute_begins(scheduled)
    yield
    runners.execute_ends(began_ns, None, scheduled)


@contextlib.contextmanager
def main_pass(mode: str, tokens: int) -> Any:
    """The main model's pass in a step."""
    FORWARD.descriptor = (mode, tokens, None, False, False, 0, None, None, None)
    FORWARD.dispatched(tokens, 2)
    FORWARD.begin()
    yield
    FORWARD.end()


class Encoder:
    """A vision encoder whose items are a number of rows each."""

    def get_encoder_cudagraph_config(self) -> Any:
        from vllm.v1.worker.encoder_cudagraph_defs import EncoderCudaGraphConfig

        return EncoderCudaGraphConfig(modalities=["image"], buffer_keys=["rows"], out_hidden_size=HIDDEN)

    def prepare_encoder_cudagraph_capture_inputs(self, token_budget: int, *rest: Any) -> Any:
        from vllm.v1.worker.encoder_cudagraph_defs import EncoderCudaGraphCaptureInputs

        return EncoderCudaGraphCaptureInputs(values={"rows": torch.zeros(token_budget, HIDDEN)})

    def prepare_encoder_cudagraph_replay_buffers(self, mm_kwargs: Any, *rest: Any) -> Any:
        from vllm.v1.worker.encoder_cudagraph_defs import EncoderCudaGraphReplayBuffers

        return EncoderCudaGraphReplayBuffers(values={"rows": torch.cat(mm_kwargs["items"])})

    def encoder_cudagraph_forward(self, values: Any, path: str) -> torch.Tensor:
        return values["rows"] + 1

    def encoder_eager_forward(self, mm_kwargs: Any, path: str) -> torch.Tensor:
        return torch.cat(mm_kwargs["items"]) + 1

    def get_encoder_cudagraph_item_specs(self, mm_kwargs: Any) -> list[Any]:
        from vllm.v1.worker.encoder_cudagraph_defs import EncoderItemSpec

        return [EncoderItemSpec(len(item), len(item)) for item in mm_kwargs["items"]]

    def select_encoder_cudagraph_items(self, mm_kwargs: Any, indices: list[int]) -> Any:
        return {"items": [mm_kwargs["items"][index] for index in indices]}

    def postprocess_encoder_output(
        self, outputs: Any, indices: list[int], tokens: list[int], results: Any, **options: Any
    ) -> None:
        for index in indices:
            results[index] = outputs["default"][: tokens[index]]


def encoder() -> None:
    """Capture budgets 16, 8 and 4; replay 8, 4 and 16; then one item that fits no budget, and a budget without a graph."""
    from vllm.v1.worker.encoder_cudagraph import EncoderCudaGraphManager

    config = SimpleNamespace(
        compilation_config=SimpleNamespace(
            encoder_cudagraph_token_budgets=[4, 8, 16],
            encoder_cudagraph_max_vision_items_per_batch=2,
            encoder_cudagraph_max_frames_per_batch=None,
        ),
        model_config=SimpleNamespace(
            multimodal_config=SimpleNamespace(get_limit_per_prompt=lambda kind: 0, mm_encoder_tp_mode="weights")
        ),
        parallel_config=SimpleNamespace(tensor_parallel_size=1),
    )
    manager = EncoderCudaGraphManager(config, torch.device("cpu"), torch.float32, Encoder())
    with in_phase("capture"):
        manager.capture(current_platform.graph_pool_handle())
    for sizes in ([3, 4], [2], [5, 9], [17]):
        with step():
            assert len(manager.execute({"items": [torch.ones(size, HIDDEN) for size in sizes]})) == len(sizes)
    with step():
        assert manager._run_budget_graph({"items": [torch.ones(5, HIDDEN)]}, token_budget=5) is None


def ubatch() -> None:
    """Micro-batches: capture, replay in and outside the main pass, aborted, lazily captured, and pieces run eagerly."""
    from vllm.compilation.cuda_graph import CUDAGraphWrapper
    from vllm.compilation.monitor import set_cudagraph_capturing_enabled
    from vllm.forward_context import BatchDescriptor, DPMetadata, create_forward_context, override_forward_context
    from vllm.v1.worker import gpu_ubatch_wrapper
    from vllm.v1.worker.ubatch_utils import UBatchSlice

    config = VllmConfig(compilation_config=CompilationConfig(cudagraph_capture_sizes=[8, 16]))
    config.parallel_config.data_parallel_size = 2
    config.parallel_config.enable_dbo = True

    def model(input_ids: Any, **rest: Any) -> torch.Tensor:
        return input_ids + 1

    piece = CUDAGraphWrapper(model, config, CUDAGraphMode.PIECEWISE)
    gpu_ubatch_wrapper.create_sm_control_context = lambda parallel_config: contextlib.nullcontext()
    wrapper = gpu_ubatch_wrapper.UBatchWrapper(piece, config, CUDAGraphMode.FULL, torch.device("cpu"))
    set_cudagraph_capturing_enabled(True)

    def call(mode: CUDAGraphMode, tokens: int, split: bool = True) -> None:
        half = tokens // 2
        slices = [UBatchSlice(slice(0, 1), slice(0, half)), UBatchSlice(slice(1, 2), slice(half, tokens))]
        context = create_forward_context(
            None,
            config,
            dp_metadata=DPMetadata(torch.tensor([half, half])),
            cudagraph_runtime_mode=mode,
            batch_descriptor=BatchDescriptor(num_tokens=tokens),
            ubatch_slices=slices if split else None,
        )
        ids = torch.arange(tokens)
        with override_forward_context(context):
            result = wrapper(input_ids=ids, positions=ids, intermediate_tensors=None, inputs_embeds=None)
        assert len(result) == tokens

    full, pieces = CUDAGraphMode.FULL, CUDAGraphMode.PIECEWISE
    with in_phase("capture"):
        call(full, 8)  # one micro-batched graph
        call(full, 4, split=False)  # one plain graph, by the wrapper inside
        call(pieces, 16, split=False)  # one piece
    with in_phase("dummy"):
        call(full, 8)
    with step(), main_pass("FULL", 8):
        call(full, 8)  # replays
    with step(), main_pass("FULL", 4):
        call(full, 4, split=False)  # replays the plain graph
    with step(), main_pass("FULL", 8):
        call(full, 8, split=False)  # aborted micro-batching: vLLM runs without a graph
    with step(), main_pass("PIECEWISE", 16):
        call(pieces, 16)  # micro-batches run without graphs, though the piece has one
    with step(), main_pass("PIECEWISE", 16):
        call(pieces, 16, split=False)  # replays the piece
    with step(), main_pass("FULL", 12):
        call(full, 12)  # captures while serving
    with step():
        call(full, 8)  # replays, nobody's main pass
    with step(), main_pass("NONE", 6):
        call(CUDAGraphMode.NONE, 6)


def gemma4() -> None:
    """Capture seven sampling graphs while loading; sample 3, 64, 1 and 65 rows."""
    from vllm.v1.spec_decode.gemma4 import Gemma4Proposer

    def top_tokens(rows: torch.Tensor, weight: Any = None) -> torch.Tensor:
        return rows.argmax(-1)

    proposer = Gemma4Proposer.__new__(Gemma4Proposer)
    proposer.dtype, proposer.device = torch.float32, torch.device("cpu")
    proposer._centroids_sizes = []
    proposer._centroids_graphs, proposer._centroids_inputs, proposer._centroids_outputs = {}, {}, {}
    proposer.model = SimpleNamespace(
        masked_embedding=SimpleNamespace(hidden_size=HIDDEN, get_top_tokens=top_tokens),
        _get_full_lm_head_weight=lambda: None,
        get_top_tokens=top_tokens,
    )
    stray = torch.cuda.CUDAGraph()  # somebody's graph that no site claims
    with torch.cuda.graph(stray):
        pass
    proposer._setup_centroids_cuda_graphs()
    with step():
        for rows in (3, 64, 1, 65):
            assert len(proposer._greedy_sample(torch.zeros(rows, HIDDEN))) == rows


def main() -> None:
    """Run one of them in a session."""
    cpu_model_runner._set_torch_accelerator_to_noop()
    fake_streams()
    assert current_platform.support_static_graph_mode()
    install.install_late_hooks()
    {"encoder": encoder, "ubatch": ubatch, "gemma4": gemma4}[sys.argv[1]]()
    THIS.flush()


if __name__ == "__main__":
    main()
