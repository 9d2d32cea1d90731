"""Drive vLLM's own Scheduler and KVCacheManager with made-up model output; no model, no device.

    python tests/driver/drive.py [--blocks N] [--trace FILE] [--oracle OUT.json] ...

Prints one JSON line of tallies on stdout (vLLM's log goes to stderr). vLLM is imported inside
functions only, so hooks that wait for its modules see the import.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
import tempfile
import time
import trace as traces  # the sibling module: a script's own folder comes before the standard library
import zlib
from collections import Counter, deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import oracle

STALL_STEPS = 1000
"""Steps in a row without a scheduled token after which the pool is taken to be too small."""

TINY_MODEL = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "vocab_size": traces.VOCABULARY,
    "max_position_embeddings": 262_144,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "torch_dtype": "bfloat16",
}


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    add = parser.add_argument
    add("--blocks", type=int, default=300, help="blocks of the pool, the null block included")
    add("--block-size", type=int, default=16, help="tokens per block")
    add("--requests", type=int, default=200, help="requests of the synthetic trace")
    add("--seed", type=int, default=7, help="seed of the synthetic trace")
    add("--shape", choices=sorted(traces.SHAPES), default="mixed", help="kind of synthetic trace")
    add("--trace", type=Path, help="a Mooncake JSONL trace instead of the synthetic one")
    add("--limit", type=int, help="use only the first LIMIT requests of --trace")
    add("--max-num-seqs", type=int, default=32)
    add("--max-num-batched-tokens", type=int, default=1024)
    add("--no-caching", action="store_true", help="switch prefix caching off")
    add("--reset-every", type=int, default=0, metavar="N", help="reset the prefix cache every N steps (see run)")
    add("--async", dest="use_async", action="store_true", help="AsyncScheduler: schedule N+1 before update N")
    add("--hybrid", action="store_true", help="two KV groups, full attention and sliding window")
    add("--sliding-window", type=int, default=64, help="window of --hybrid in tokens")
    add(
        "--step-ms",
        type=float,
        default=0.0,
        help="update each step so long after its schedule began, if it can be done",
    )
    add("--kv-cache-metrics", action="store_true", help="vLLM's own residency collector, at 100 %%")
    add("--oracle", type=Path, metavar="FILE", help="attach the oracle and write its result to FILE")
    return parser.parse_args(argv)


def make_trace(options: argparse.Namespace) -> list[traces.TraceRequest]:
    """The trace the options ask for."""
    if options.trace is not None:
        return traces.mooncake_trace(options.trace, options.limit, tokens_per_chunk=options.block_size)
    shape = traces.SHAPES[options.shape]
    return traces.synthetic_trace(options.seed, options.requests, tokens_per_chunk=options.block_size, **shape)


def make_vllm_config(options: argparse.Namespace, folder: Path, longest: int) -> Any:
    """A VllmConfig for the tiny model, with what the CPU platform overrides put back."""
    from vllm.engine.arg_utils import EngineArgs

    (folder / "config.json").write_text(json.dumps(TINY_MODEL), encoding="utf-8")
    config = EngineArgs(
        model=str(folder),
        tokenizer=str(folder),
        skip_tokenizer_init=True,
        load_format="dummy",
        max_model_len=longest + 1,
        max_num_seqs=options.max_num_seqs,
        max_num_batched_tokens=options.max_num_batched_tokens,
        enable_prefix_caching=not options.no_caching,
        kv_cache_metrics=options.kv_cache_metrics,
        kv_cache_metrics_sample=1.0,
    ).create_engine_config()
    config.scheduler_config.async_scheduling = options.use_async
    config.cache_config.block_size = options.block_size
    config.cache_config.num_gpu_blocks = options.blocks
    return config


def make_kv_cache_config(options: argparse.Namespace) -> Any:
    """One full-attention group, or with --hybrid a second one with a sliding window."""
    import torch
    from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheConfig, KVCacheGroupSpec, SlidingWindowSpec

    shape = {"block_size": options.block_size, "num_kv_heads": 2, "head_size": 32, "dtype": torch.bfloat16}
    groups = [KVCacheGroupSpec(["full"], FullAttentionSpec(**shape))]
    if options.hybrid:
        window = SlidingWindowSpec(sliding_window=options.sliding_window, **shape)
        groups.append(KVCacheGroupSpec(["window"], window))
    return KVCacheConfig(num_blocks=options.blocks, kv_cache_tensors=[], kv_cache_groups=groups)


def make_scheduler(options: argparse.Namespace, longest: int) -> Any:
    """The scheduler class vLLM itself would take, over a pool of the given size."""
    from vllm.v1.core.sched.async_scheduler import AsyncScheduler
    from vllm.v1.core.sched.scheduler import Scheduler
    from vllm.v1.structured_output import StructuredOutputManager

    with tempfile.TemporaryDirectory() as folder:
        config = make_vllm_config(options, Path(folder), longest)
    return (AsyncScheduler if options.use_async else Scheduler)(
        vllm_config=config,
        kv_cache_config=make_kv_cache_config(options),
        structured_output_manager=StructuredOutputManager(config),
        block_size=options.block_size,
        log_stats=True,
    )


class Requests:
    """Turns trace entries into vLLM requests, in arrival order."""

    def __init__(self, trace: Sequence[traces.TraceRequest], block_size: int) -> None:
        from vllm.utils.hashing import sha256
        from vllm.v1.core.kv_cache_utils import get_request_block_hasher, init_none_hash

        init_none_hash(sha256)
        self.hasher = get_request_block_hasher(block_size, sha256)
        self.waiting = deque(sorted(trace, key=lambda entry: entry.arrival_step))

    def due(self, step: float) -> list[Any]:
        """Requests that have arrived by `step`."""
        arrived = []
        while self.waiting and self.waiting[0].arrival_step <= step:
            arrived.append(self._make(self.waiting.popleft()))
        return arrived

    def _make(self, entry: traces.TraceRequest) -> Any:
        from vllm.sampling_params import SamplingParams
        from vllm.v1.request import Request

        return Request(
            request_id=entry.request_id,
            prompt_token_ids=list(entry.prompt),
            sampling_params=SamplingParams(max_tokens=entry.output_length, ignore_eos=True, temperature=0.0),
            pooling_params=None,
            block_hasher=self.hasher,
        )


class Driver:
    """The engine's loop: one `step` is one schedule() call and the update_from_output() of one batch."""

    def __init__(self, scheduler: Any, requests: Requests, options: argparse.Namespace) -> None:
        self.scheduler = scheduler
        self.requests = requests
        self.options = options
        self.in_flight: deque[tuple[Any, Any]] = deque()
        self.depth = 2 if options.use_async else 1
        self.tally: Counter[str] = Counter()
        self.sampled: Counter[str] = Counter()
        self.added: list[Any] = []
        self.collected_lifetimes: list[float] = []
        self.holding_for_reset = False
        self.clock: float = 0
        self.idle_steps = 0

    def run(self) -> None:
        """Drive until every request has finished and every batch has been updated."""
        while self.requests.waiting or self.scheduler.has_requests() or self.in_flight:
            self._arrivals()
            began = time.monotonic()
            scheduled = self._schedule()
            time.sleep(max(0.0, began + self.options.step_ms / 1000 - time.monotonic()))
            if len(self.in_flight) >= self.depth or not scheduled:
                self._update()
            self._maybe_reset()
            self._advance(self.clock + self._length())

    def _advance(self, clock: float) -> None:
        self.clock = clock

    def _length(self) -> float:
        """How long this step was, in steps."""
        return 1

    def _arrivals(self) -> None:
        if self.holding_for_reset:
            return
        if not self.scheduler.has_requests() and self.requests.waiting:  # nothing to do until then: skip ahead
            self._advance(max(self.clock, self.requests.waiting[0].arrival_step))
        for request in self.requests.due(self.clock):
            self.added.append(request)
            self.scheduler.add_request(request)

    def _schedule(self) -> bool:
        """Schedule a batch if there is anything to do; whether it has tokens."""
        if not self.scheduler.has_requests():
            return False
        scheduled = self.scheduler.schedule()
        self.tally["schedules"] += 1
        self._count_tokens(scheduled)
        self.in_flight.append((scheduled, self._model_output(scheduled)))
        return bool(scheduled.num_scheduled_tokens)

    def _count_tokens(self, scheduled: Any) -> None:
        self.tally["scheduled_tokens"] += scheduled.total_num_scheduled_tokens
        self.tally["empty_steps"] += not scheduled.num_scheduled_tokens
        self.idle_steps = 0 if scheduled.num_scheduled_tokens else self.idle_steps + 1
        if self.idle_steps > STALL_STEPS:
            raise RuntimeError(f"nothing scheduled for {STALL_STEPS} steps: the pool is too small for a request")
        for request_id, count in scheduled.num_scheduled_tokens.items():
            request = self.scheduler.requests[request_id]
            start = request.num_computed_tokens - count  # schedule() has already moved it on
            prefill = min(count, max(0, request.num_prompt_tokens - start))
            self.tally["prefill_tokens"] += prefill
            self.tally["decode_tokens"] += count - prefill

    def _model_output(self, scheduled: Any) -> Any:
        """One made-up token for each request whose known tokens are all computed by this batch."""
        from vllm.v1.outputs import ModelRunnerOutput

        request_ids = list(scheduled.num_scheduled_tokens)
        return ModelRunnerOutput(
            req_ids=request_ids,
            req_id_to_index={request_id: index for index, request_id in enumerate(request_ids)},
            sampled_token_ids=[self._sample(request_id) for request_id in request_ids],
        )

    def _sample(self, request_id: str) -> list[int]:
        if self.scheduler.requests[request_id].is_prefill_chunk:
            return []
        self.sampled[request_id] += 1
        return [zlib.crc32(f"{request_id}/{self.sampled[request_id]}".encode()) % traces.VOCABULARY]

    def _update(self) -> None:
        if not self.in_flight:
            return
        outputs = self.scheduler.update_from_output(*self.in_flight.popleft())
        self.tally["steps"] += 1
        for group in outputs.values():
            for output in group.outputs:
                self.tally["output_tokens"] += len(output.new_token_ids)
                self.tally["finished"] += output.finish_reason is not None
            if group.scheduler_stats is not None:
                self._collect(group.scheduler_stats.kv_cache_eviction_events)

    def _collect(self, events: Sequence[Any]) -> None:
        self.collected_lifetimes += [event.lifetime_seconds for event in events]

    def _maybe_reset(self) -> None:
        """Try a reset when one is due; if blocks are in use, hold arrivals back and try again once idle."""
        every = self.options.reset_every
        due = every and self.tally["steps"] >= every * (self.tally["resets_due"] + 1)
        if due and not self.holding_for_reset:
            self.holding_for_reset = True
            self.tally["resets_due"] += 1
            self._try_reset()
        elif self.holding_for_reset and not self.scheduler.has_requests() and not self.in_flight:
            self._try_reset()

    def _try_reset(self) -> None:
        done = self.scheduler.reset_prefix_cache()
        self.tally["resets" if done else "resets_failed"] += 1
        self.holding_for_reset = not done

    def summary(self) -> dict[str, Any]:
        """The driver's own tallies."""
        if (collector := self.scheduler.kv_metrics_collector) is not None:
            self._collect(collector.drain_events())
        lifetimes = self.collected_lifetimes
        return {
            **{name: self.tally[name] for name in TALLIES},
            "requests": len(self.added),
            "preemptions": sum(request.num_preemptions for request in self.added),
            "recomputed_requests": sum(request.num_preemptions > 0 for request in self.added),
            "collector_evictions": len(lifetimes),
            "collector_mean_lifetime_s": sum(lifetimes) / len(lifetimes) if lifetimes else None,
            "scheduler": type(self.scheduler).__name__,
        }


TALLIES = (
    "steps",
    "schedules",
    "empty_steps",
    "finished",
    "scheduled_tokens",
    "prefill_tokens",
    "decode_tokens",
    "output_tokens",
    "resets",
    "resets_failed",
)


def run(options: argparse.Namespace) -> tuple[dict[str, Any], oracle.Oracle | None]:
    """Run one trace to its end; the second value is None without --oracle.

    With --reset-every a reset is tried every N steps. vLLM refuses it while blocks are in use; then new
    requests wait until the running ones are done and the reset is repeated.
    """
    trace = make_trace(options)
    longest = max(len(entry.prompt) + entry.output_length for entry in trace)
    scheduler = make_scheduler(options, longest)
    driver = Driver(scheduler, Requests(trace, options.block_size), options)
    watcher = oracle.attach(scheduler) if options.oracle is not None else None
    gc.collect()
    gc.freeze()  # as EngineCore does: a full collection over vLLM's imports stops everything for some 0.3 s
    cpu, wall = time.process_time(), time.perf_counter()
    driver.run()
    cost = {"loop_cpu_s": time.process_time() - cpu, "loop_wall_s": time.perf_counter() - wall}
    gc.unfreeze()  # so that the next run of this process collects this one's scheduler
    scheduler.shutdown()
    return {**driver.summary(), **cost}, watcher


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the script."""
    options = parse(argv)
    os.environ.setdefault("VLLM_LOGGING_STREAM", "ext://sys.stderr")
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    summary, watcher = run(options)
    if watcher is not None:
        watcher.write(options.oracle)
    print(json.dumps(summary), flush=True)
    return 0 if summary["finished"] == summary["requests"] else 1


if __name__ == "__main__":
    sys.exit(main())
