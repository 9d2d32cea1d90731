"""Ask vLLM's own classes which graphs they make of many configurations, and which one each batch gets. No model, no engine.

    drive_ladders.py OUT.json SEED COUNT FLAG...

Sizes go through `VllmConfig._set_cudagraph_sizes`; then V1: `adjust_cudagraph_sizes_for_spec_decode` and CudagraphDispatcher,
V2: `CudaGraphManager._init_candidates` and `dispatch`. Each answer has the configuration, the sizes that vLLM kept, its
descriptors and its choice for every number of tokens, as a uniform decode and as another batch. FLAG... is read by vLLM's
own command line.
"""

from __future__ import annotations

import json
import random
import sys
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from vllm.config import CompilationConfig, CUDAGraphMode, VllmConfig
from vllm.engine.arg_utils import EngineArgs
from vllm.utils.argparse_utils import FlexibleArgumentParser
from vllm.v1.cudagraph_dispatcher import CudagraphDispatcher
from vllm.v1.worker.gpu.cudagraph_utils import CudaGraphManager

MODES = ("FULL", "PIECEWISE", "FULL_AND_PIECEWISE", "FULL_DECODE_ONLY")


def draw(chance: random.Random) -> dict[str, Any]:
    """A configuration that vLLM accepts: some size fits into a step."""
    max_num_seqs = chance.randint(1, 40)
    max_batched = chance.randint(max_num_seqs, 120)
    sizes = [chance.randint(1, 130) for _ in range(chance.randint(0, 8))]
    return {
        "runner": chance.choice(["V1", "V2"]),
        "mode": chance.choice(MODES),
        "query_len": chance.choice([1, 1, 2, 3, 5]),
        "max_num_seqs": max_num_seqs,
        "max_num_batched_tokens": max_batched,
        "sizes": [*sizes, chance.randint(1, max_batched)],
    }


def config_of(one: dict[str, Any]) -> Any:
    """A stub of VllmConfig with a real CompilationConfig, after vLLM's own treatment of the sizes."""
    compilation = CompilationConfig(
        mode=3, cudagraph_mode=CUDAGraphMode[one["mode"]], cudagraph_capture_sizes=list(one["sizes"])
    )
    compilation.set_splitting_ops_for_v1(all2all_backend="naive")
    config = SimpleNamespace(
        model_config=SimpleNamespace(enforce_eager=False),
        compilation_config=compilation,
        scheduler_config=SimpleNamespace(
            max_num_seqs=one["max_num_seqs"], max_num_batched_tokens=one["max_num_batched_tokens"]
        ),
        num_speculative_tokens=one["query_len"] - 1,
        uniform_decode_query_len=one["query_len"],
        speculative_config=None,
        lora_config=None,
        performance_mode="balanced",
        cache_config=SimpleNamespace(use_kda_recoverssm=False),
    )
    VllmConfig._set_cudagraph_sizes(config)
    return config


def v1(one: dict[str, Any], config: Any) -> dict[str, Any]:
    """The V1 runner's dispatcher."""
    mode = config.compilation_config.cudagraph_mode
    if mode.decode_mode() == CUDAGraphMode.FULL and one["query_len"] > 1:
        config.compilation_config.adjust_cudagraph_sizes_for_spec_decode(one["query_len"])
    dispatcher = CudagraphDispatcher(config)
    dispatcher.initialize_cudagraph_keys(mode, one["query_len"])
    keys = [
        [mode.name, key.num_tokens, key.uniform] for mode, keys in dispatcher.cudagraph_keys.items() for key in keys
    ]

    def choose(tokens: int, uniform: bool) -> list[Any]:
        mode, batch = dispatcher.dispatch(tokens, uniform_decode=uniform)
        return [mode.name, batch.num_tokens]

    return {"graphs": keys, "choices": choices(one, choose)}


def v2(one: dict[str, Any], config: Any) -> dict[str, Any]:
    """The V2 runner's manager, made without a device."""
    manager: Any = CudaGraphManager.__new__(CudaGraphManager)
    manager.vllm_config, manager.compilation_config = config, config.compilation_config
    manager.max_num_reqs, manager.decode_query_len = one["max_num_seqs"], one["query_len"]
    manager.cudagraph_mode = config.compilation_config.cudagraph_mode
    manager.varlen_decode, manager.ubatch_runner = False, None
    manager.lora_capture_cases, manager._lora_dispatch_map, manager._max_lora_case = [0], {}, 0
    manager._candidates, manager._capture_descs, manager.graphs = {}, defaultdict(list), {}
    manager._init_candidates()
    manager._graphs_captured = True
    descs = [desc for descs in manager._capture_descs.values() for desc in descs]
    keys = [[desc.cg_mode.name, desc.num_tokens, desc.uniform_token_count is not None] for desc in descs]

    def choose(tokens: int, uniform: bool) -> list[Any]:
        requests = tokens // one["query_len"] if uniform else 1
        desc = manager.dispatch(requests, tokens, one["query_len"] if uniform else None, 0)
        return [desc.cg_mode.name, desc.num_tokens]

    return {"graphs": keys, "choices": choices(one, choose)}


def choices(one: dict[str, Any], choose: Any) -> list[list[Any]]:
    """Rows of tokens, uniform, mode, padded tokens."""
    found = []
    for tokens in range(1, one["max_num_batched_tokens"] + 1):
        found.append([tokens, False, *choose(tokens, False)])
        requests, rest = divmod(tokens, one["query_len"])
        if not rest and requests <= one["max_num_seqs"]:
            found.append([tokens, True, *choose(tokens, True)])
    return found


def main() -> None:
    """Draw configurations and write vLLM's answers."""
    out, seed, count, *flags = sys.argv[1:]
    chance = random.Random(int(seed))
    answers = []
    while len(answers) < int(count):
        one = draw(chance)
        try:
            config = config_of(one)
            answer = {"V1": v1, "V2": v2}[one["runner"]](one, config)
        except ValueError:  # vLLM refuses it: no size is left after rounding
            continue
        answers.append({**one, **answer})
    parser = EngineArgs.add_cli_args(FlexibleArgumentParser())
    sizes = parser.parse_args(flags).cudagraph_capture_sizes
    Path(out).write_text(json.dumps({"answers": answers, "sizes": sizes}))


if __name__ == "__main__":
    main()
