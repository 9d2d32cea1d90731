"""Tables of the KV cache tracker. Blocks are counted without the null block, which is nobody's."""

from profilemate.schema.step_table import step_table
from profilemate.schema.table import Table, fields

ENGINE = ("engine", "int", "which scheduler of this process, from 0; one unless a process holds several engines")

STEPS = step_table(
    "The KV cache at the end of an engine step. Counters are cumulative, so the last row is the total. Those that change in "
    "few steps come last: their text is kept from row to row.",
    "in_use",
    ("total_blocks", "int", "num_gpu_blocks - 1"),
    ("in_use", "int", "blocks held by requests at this moment"),
    ("cached_free", "int", "free blocks whose content can still be hit"),
    ("empty", "int", "free blocks without content"),
    ("step_peak", "int", "most blocks in use at any moment since the previous row"),
    ("allocated", "int", "blocks handed out by get_new_blocks"),
    ("released", "int", "references dropped by free_blocks"),
    ("freed", "int", "blocks that really went back to the free queue"),
    ("evicted", "int", "blocks whose cached content was dropped, resets not counted"),
    ("lifetime_ns", "int", "sum over evictions: allocation to eviction"),
    ("idle_ns", "int", "sum over evictions: last prefix hit (or allocation) to eviction"),
    ("timed_evictions", "int", "evictions with a known birth; the two sums above are over these"),
    ("failed_allocations", "int", "allocate_slots calls that found no room"),
    ("operations", "int", "BlockPool calls that changed the free count"),
    ("busy_steps", "int", "engine steps that had tokens to run"),
    (
        "output_steps",
        "int",
        "of these, steps that gave a request an output; vLLM's metric counts one per API server that gets some",
    ),
    ("scheduled_tokens", "int", "tokens scheduled in them, recomputed and drafted ones included"),
    ("peak", "int", "most blocks in use so far"),
    ("peak_time_ns", "int", "when that was first reached"),
    ("touched", "int", "blocks re-used by a prefix hit, or held by a KV connector that copies them"),
    ("touched_free", "int", "of these, blocks that were free when hit"),
    ("preemptions", "int", "requests put back to waiting; empty under vLLM 0.11"),
    ("resets", "int", "successful resets of the prefix cache"),
    ("query_requests", "int", "prefix-cache look-ups as vLLM's metric counts them"),
    ("query_tokens", "int", "tokens looked up, as vllm:prefix_cache_queries"),
    ("hit_tokens", "int", "tokens found, as vllm:prefix_cache_hits"),
    ("preempted_query_tokens", "int", "tokens looked up for requests that come back from a preemption"),
    ("preempted_hit_tokens", "int", "of these, found"),
    ("prompt_tokens", "int", "prompt tokens of the requests scheduled for the first time"),
)

FIRST_SELDOM = "peak"
"""The first of the columns of STEPS that change in few steps."""

USAGE = Table(
    "kv_usage",
    "Blocks in use: a row every LOG_INTERVAL block operations, and one at the end of a step that set a new peak.",
    fields(
        ("time_ns", "int", "monotonic clock; of a peak, when it was reached"),
        ENGINE,
        ("kind", "str", "interval or peak"),
        ("in_use", "int", "blocks in use"),
        ("total_blocks", "int", "num_gpu_blocks - 1"),
    ),
)

EVICTIONS = Table(
    "kv_evictions",
    "One row per true eviction: a block whose cached content was dropped.",
    fields(
        ("time_ns", "int", "monotonic clock"),
        ENGINE,
        ("block_id", "int", "vLLM's block id"),
        ("allocated_ns", "int", "when it was allocated, monotonic clock; empty if that was before ProfileMate came"),
        ("used_ns", "int", "its last prefix hit, or its allocation"),
        ("cause", "str", "allocation (the block was handed out again) or invalidation (evict_blocks)"),
    ),
)

OTHER_POOLS = Table(
    "kv_other_pools",
    "Block pools of this process that are not the scheduler's own, cumulative.",
    fields(
        ("time_ns", "int", "monotonic clock"),
        ("pool", "int", "number of the pool in this process, in order of construction"),
        ("num_blocks", "int", "its size, null block included"),
        ("medium", "str", "what vLLM says it is on; empty where it says nothing"),
        ("allocated", "int", "blocks handed out"),
        ("freed", "int", "blocks that went back"),
        ("evicted", "int", "blocks whose content was dropped"),
    ),
)

TABLES = (STEPS, USAGE, EVICTIONS, OTHER_POOLS)
