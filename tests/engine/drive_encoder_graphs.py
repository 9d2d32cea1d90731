"""Drive encoder passes through vLLM's own EncoderCudaGraphManager on both runners, where an engine for it needs a GPU.

    drive_encoder_graphs.py OUT.json

Real: the manager, `_execute_mm_encoder` of the V1 runner, `EncoderRunner` of the V2 runner, how they batch items. Put in
their place: the CUDA graph driver, a model of a few lines, and what a runner has beside that.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from drive_other_graphs import HIDDEN, Encoder, fake_streams, in_phase, main_pass, step
from vllm.multimodal.inputs import (
    MultiModalBatchedField,
    MultiModalFeatureSpec,
    MultiModalFieldElem,
    MultiModalKwargsItem,
    PlaceholderRange,
)
from vllm.platforms import current_platform
from vllm.v1.worker import cpu_model_runner
from vllm.v1.worker.encoder_cudagraph import EncoderCudaGraphManager
from vllm.v1.worker.gpu.mm.encoder_cache import EncoderCache
from vllm.v1.worker.gpu.mm.encoder_runner import EncoderRunner
from vllm.v1.worker.gpu_model_runner import GPUModelRunner

from profilemate.probe import install
from profilemate.probe.process import THIS

Request = list[tuple[str, int]]
"""The items of one request: modality and number of rows."""

STEPS: list[list[Request]] = [
    [[("image", 3)], [("image", 4)]],  # both in the graph of 8
    [[("image", 17)]],  # fits none
    [[("image", 2), ("image", 18)], [("audio", 5)]],  # one replays, one does not, and one whose modality has no graphs
    [[("audio", 6)]],  # the manager is not asked
    [[("prompt_embeds", 4)]],  # passes through, so that nothing is encoded
    [],
]


class Model(Encoder):
    """The encoder without graphs as well."""

    def embed_multimodal(self, items: Any) -> list[torch.Tensor]:
        return [item + 1 for item in items]


def feature(modality: str, rows: int, number: int) -> Any:
    """One item of a request."""
    name = "embedding" if modality == "prompt_embeds" else "items"
    element = MultiModalFieldElem(data=torch.ones(rows, HIDDEN), field=MultiModalBatchedField())
    place = PlaceholderRange(offset=0, length=rows)
    return MultiModalFeatureSpec(MultiModalKwargsItem({name: element}), modality, f"hash-{number}", place)


def manager_of(model: Model) -> Any:
    """Budgets of 4, 8 and 16 rows, two items at a time, captured."""
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
    manager = EncoderCudaGraphManager(config, torch.device("cpu"), torch.float32, model)
    with in_phase("capture"):
        manager.capture(current_platform.graph_pool_handle())
    return manager


def features_of(requests: list[Request], first: int) -> dict[str, list[Any]]:
    """The items of a step by request; identifiers go on from `first`."""
    made: dict[str, list[Any]] = {}
    for index, items in enumerate(requests):
        made[f"r{index}"] = [feature(*item, first + 100 * index + place) for place, item in enumerate(items)]
    return made


class V1:
    """What `GPUModelRunner._execute_mm_encoder` needs of a runner."""

    def __init__(self, manager: Any) -> None:
        self.runner = runner = GPUModelRunner.__new__(GPUModelRunner)
        runner.model, runner.encoder_cudagraph_manager, runner.encoder_cache = manager.model, manager, {}
        runner.observability_config = runner.lora_config = None
        runner.device = torch.device("cpu")
        runner.is_multimodal_pruning_enabled = runner.requires_sequential_video_encoding = False

    def encode(self, features: dict[str, list[Any]]) -> None:
        """One call, whether there is an item or not."""
        self.runner.requests = {name: SimpleNamespace(mm_features=items) for name, items in features.items()}
        scheduled = {name: list(range(len(items))) for name, items in features.items()}
        output = SimpleNamespace(
            scheduled_encoder_inputs=scheduled, ec_manager_metadata=None, free_encoder_mm_hashes=[]
        )
        self.runner._execute_mm_encoder(output)


class V2:
    """EncoderRunner as the V2 runner's model state calls it."""

    def __init__(self, manager: Any) -> None:
        self.cache = EncoderCache()
        self.runner = EncoderRunner(
            manager.model, 64, HIDDEN, self.cache, torch.float32, torch.device("cpu"), cudagraph_manager=manager
        )

    def encode(self, features: dict[str, list[Any]]) -> None:
        """Prepare, and run if anything is left to encode."""
        self.cache.mm_features = features
        _, items = self.runner.prepare_mm_inputs({name: list(range(len(each))) for name, each in features.items()})
        if items:
            self.runner.execute_mm_encoder(items)


def num_rows_on_disk() -> int:
    """Encoder passes whose rows have reached the kernel."""
    path = Path(THIS.folder, "encoder_passes.csv")
    return len(path.read_text().splitlines()) - 1 if path.exists() else 0


def main() -> None:
    """Every step with both runners, then one of the profile, which is not serving."""
    THIS.take_role("Worker", launches=True)  # as a worker does when it has its device
    cpu_model_runner._set_torch_accelerator_to_noop()
    fake_streams()
    assert current_platform.support_static_graph_mode()
    install.install_late_hooks()
    counted: dict[str, Any] = {}
    written: list[int] = []
    for kind in (V1, V2):
        manager = manager_of(Model())
        runner = kind(manager)
        seen = []
        for number, requests in enumerate(STEPS):
            with step():
                before = manager.graph_hits, manager.graph_misses
                runner.encode(features_of(requests, 1000 * number))
                seen.append([manager.graph_hits - before[0], manager.graph_misses - before[1]])
                written.append(num_rows_on_disk())
                if number != 1:  # a step may have an encoder pass and no forward pass
                    with main_pass("NONE", 2):
                        pass
        with in_phase("profile"):
            runner.encode(features_of(STEPS[0], 50_000))
        counted[kind.__name__] = seen
    THIS.flush()
    Path(sys.argv[1]).write_text(json.dumps({**counted, "written": written}))


if __name__ == "__main__":
    main()
