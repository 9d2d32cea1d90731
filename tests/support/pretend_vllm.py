"""A small pretence of the `vllm` package for tests of processes: real module and class names, a pool and a scheduler."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

Write = Callable[[dict[str, str], str], Path]

SERVE = "import vllm.engine.arg_utils as a; a.EngineArgs(); import vllm.v1.core.sched.scheduler as s; s.run(4)"

PRETEND_VLLM = {
    "vllm/__init__.py": '__version__ = "9.9.9"',
    "vllm/engine/__init__.py": "",
    "vllm/engine/arg_utils.py": """
        class EngineArgs:
            def __init__(self):
                self.__post_init__()
            def __post_init__(self):
                self.distributed_executor_backend = None
        """,
    "vllm/v1/__init__.py": "",
    "vllm/v1/core/__init__.py": "",
    "vllm/v1/core/sched/__init__.py": "",
    "vllm/v1/core/block_pool.py": """
        class Block:
            def __init__(self, block_id):
                self.block_id, self.ref_cnt, self.block_hash, self.is_null = block_id, 0, None, block_id == 0
        class BlockPool:
            def __init__(self, num_gpu_blocks):
                self.num_gpu_blocks, self.enable_caching = num_gpu_blocks, True
                self.blocks = [Block(i) for i in range(num_gpu_blocks)]
                self.free = self.blocks[1:]
            def get_num_free_blocks(self):
                return len(self.free)
            def get_new_blocks(self, num_blocks):
                taken, self.free = self.free[:num_blocks], self.free[num_blocks:]
                for block in taken:
                    block.ref_cnt = 1
                return taken
            def _maybe_evict_cached_block(self, block):
                return False
            def touch(self, blocks):
                pass
            def free_blocks(self, ordered_blocks):
                for block in ordered_blocks:
                    block.ref_cnt -= 1
                    self.free.append(block)
            def reset_prefix_cache(self):
                return True
        """,
    "vllm/v1/core/sched/scheduler.py": """
        from types import SimpleNamespace
        from vllm.v1.core.block_pool import BlockPool
        class Scheduler:
            def __init__(self):
                self.kv_cache_manager = SimpleNamespace(block_pool=BlockPool(11))
                self.scheduler_config = SimpleNamespace(max_num_seqs=4, max_num_batched_tokens=64)
                self.max_num_running_reqs, self.max_num_scheduled_tokens = 4, 64
                self.requests, self.running, self.waiting = {}, [], []
            def get_request_counts(self):
                return 1, 0
            def schedule(self):
                self.blocks = self.kv_cache_manager.block_pool.get_new_blocks(3)
                cached = SimpleNamespace(req_ids=["one"], num_output_tokens=[3], num_computed_tokens=[7])
                return SimpleNamespace(
                    total_num_scheduled_tokens=3, num_scheduled_tokens={"one": 3}, scheduled_new_reqs=[],
                    scheduled_cached_reqs=cached, scheduled_spec_decode_tokens={}, preempted_req_ids=set(),
                )
            def _free_request(self, request):
                return None
            def finish_requests(self, request_ids, finished_status):
                return []
            def add_request(self, request):
                return None
            def reset_prefix_cache(self):
                return self.kv_cache_manager.block_pool.reset_prefix_cache()
            def update_from_output(self, scheduler_output, model_runner_output):
                self.kv_cache_manager.block_pool.free_blocks(reversed(self.blocks))
                return {}
        def run(steps):
            scheduler = Scheduler()
            for _ in range(steps):
                scheduler.update_from_output(scheduler.schedule(), None)
        """,
}
