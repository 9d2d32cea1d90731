"""Drive the Scheduler and KVCacheManager of whatever vLLM is on the path, without a model or a device.

What differs between versions is found by looking at signatures and fields, never by a version's number.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import tempfile
import trace as traces  # tests/driver/trace.py, first on the path
from collections import Counter, deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

BLOCKS, BLOCK_SIZE, REQUESTS, SEED = 150, 16, 40, 7
SEQUENCES, STEP_TOKENS = 16, 512
STALL_STEPS = 2000
TINY_MODEL = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 64, "intermediate_size": 128,
    "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2, "vocab_size": traces.VOCABULARY,
    "max_position_embeddings": 65536, "bos_token_id": 1, "eos_token_id": 2, "torch_dtype": "bfloat16",
}  # fmt: skip


def that_fit(function: Callable[..., Any], **options: Any) -> dict[str, Any]:
    """The options that a function or class takes."""
    taken = inspect.signature(function).parameters
    return {name: value for name, value in options.items() if name in taken}


def make_config(longest: int) -> Any:
    """A VllmConfig for the tiny model."""
    from vllm.engine.arg_utils import EngineArgs

    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps(TINY_MODEL), encoding="utf-8")
        options = that_fit(
            EngineArgs, model=folder, tokenizer=folder, skip_tokenizer_init=True, load_format="dummy",
            max_model_len=longest + 1, max_num_seqs=SEQUENCES, max_num_batched_tokens=STEP_TOKENS,
            enable_prefix_caching=True,
        )  # fmt: skip
        config = EngineArgs(**options).create_engine_config()
    config.scheduler_config.async_scheduling = False
    config.cache_config.block_size = BLOCK_SIZE
    config.cache_config.num_gpu_blocks = BLOCKS
    return config


def make_scheduler(config: Any) -> Any:
    """Over a pool of one full-attention group."""
    import torch
    from vllm.v1.core.sched.scheduler import Scheduler
    from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheConfig, KVCacheGroupSpec
    from vllm.v1.structured_output import StructuredOutputManager

    shape = that_fit(
        FullAttentionSpec, block_size=BLOCK_SIZE, num_kv_heads=2, head_size=32, dtype=torch.bfloat16, use_mla=False
    )
    groups = [KVCacheGroupSpec(["full"], FullAttentionSpec(**shape))]
    options = that_fit(
        Scheduler, vllm_config=config, kv_cache_config=KVCacheConfig(BLOCKS, [], groups), block_size=BLOCK_SIZE,
        structured_output_manager=StructuredOutputManager(config), log_stats=True,
    )  # fmt: skip
    return Scheduler(**options)


def hash_function() -> Any:
    """`sha256`, wherever this version has it."""
    try:
        from vllm.utils.hashing import sha256
    except ImportError:
        from vllm.utils import sha256
    return sha256


class Load:
    """A synthetic trace as vLLM's requests, in order of arrival."""

    def __init__(self) -> None:
        """Nothing has arrived."""
        from vllm.v1.core.kv_cache_utils import get_request_block_hasher, init_none_hash

        function = hash_function()
        init_none_hash(function)
        self._hasher = get_request_block_hasher(BLOCK_SIZE, function)
        entries = traces.synthetic_trace(SEED, REQUESTS, tokens_per_chunk=BLOCK_SIZE)
        self.longest = max(len(entry.prompt) + entry.output_length for entry in entries)
        self.waiting = deque(sorted(entries, key=lambda entry: entry.arrival_step))

    def due(self, step: int) -> list[Any]:
        """Requests that have arrived by a step."""
        arrived = []
        while self.waiting and self.waiting[0].arrival_step <= step:
            arrived.append(self._make(self.waiting.popleft()))
        return arrived

    def _make(self, entry: Any) -> Any:
        from vllm.sampling_params import SamplingParams
        from vllm.v1.request import Request

        sampling = SamplingParams(max_tokens=entry.output_length, ignore_eos=True, temperature=0.0)
        return Request(
            **that_fit(
                Request,
                request_id=entry.request_id,
                prompt_token_ids=list(entry.prompt),
                sampling_params=sampling,
                pooling_params=None,
                eos_token_id=None,
                block_hasher=self._hasher,
            )
        )


def model_output(scheduler: Any, scheduled: Any) -> Any:
    """One made-up token for each request of which every known token is computed by this batch."""
    from vllm.v1.outputs import ModelRunnerOutput

    names = list(scheduled.num_scheduled_tokens)
    requests = [scheduler.requests[name] for name in names]
    told = {
        "req_ids": names, "req_id_to_index": {name: index for index, name in enumerate(names)},
        "sampled_token_ids": [[7] if one.num_computed_tokens >= one.num_tokens else [] for one in requests],
    }  # fmt: skip
    empty = {"prompt_logprobs_dict": {}, "pooler_output": []}
    for field in dataclasses.fields(ModelRunnerOutput):
        needed = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if needed and field.name not in told:
            told[field.name] = empty.get(field.name)
    return ModelRunnerOutput(**told)


def run(watch: Callable[[Any], Any]) -> tuple[Any, dict[str, int]]:
    """Drive a whole trace; `watch(scheduler)` is called before the first step. Returns its result and the driver's counts."""
    load = Load()
    scheduler = make_scheduler(make_config(load.longest))
    watcher = watch(scheduler)
    added: list[Any] = []
    counts: Counter[str] = Counter(preemptions=0)
    preempted: set[str] = set()
    clock = idle = 0
    while load.waiting or scheduler.has_requests():
        if not scheduler.has_requests():
            clock = max(clock, load.waiting[0].arrival_step)
        for request in load.due(clock):
            added.append(request)
            scheduler.add_request(request)
        scheduled = scheduler.schedule()
        away = {request.request_id for request in added if request.status.name == "PREEMPTED"}
        counts["preemptions"] += len(away - preempted)
        preempted = away
        idle = 0 if scheduled.num_scheduled_tokens else idle + 1
        if idle > STALL_STEPS:
            raise RuntimeError("the scheduler stalls")
        outputs = scheduler.update_from_output(scheduled, model_output(scheduler, scheduled))
        for of_client in outputs.values():
            counts["finished"] += sum(output.finish_reason is not None for output in of_client.outputs)
        clock += 1
    counts["requests"] = len(added)
    return watcher, dict(counts)
