"""Columns of the table `sessions`: what a session was, the settings that matter, totals, and what is missing of it."""

from __future__ import annotations

SETTINGS = {
    "dtype": "str", "max_model_len": "int", "enforce_eager": "bool", "block_size": "int", "num_gpu_blocks": "int",
    "gpu_memory_utilization": "float", "cache_dtype": "str", "enable_prefix_caching": "bool", "max_num_seqs": "int",
    "max_num_batched_tokens": "int", "async_scheduling": "bool", "tensor_parallel_size": "int",
    "pipeline_parallel_size": "int", "data_parallel_size": "int", "cudagraph_mode": "str",
    "cudagraph_capture_sizes": "str", "compilation_mode": "str", "device": "str",
}  # fmt: skip
"""Of vLLM's configuration, by the names that ProfileMate records them under."""

KV_TOTALS = {
    "engine_steps": "step", "scheduled_tokens": "scheduled_tokens", "query_tokens": "query_tokens",
    "hit_tokens": "hit_tokens", "evicted": "evicted", "preemptions": "preemptions",
}  # fmt: skip
"""Totals by their column among an engine's counters; a trimmed session's are in metadata.json's summary of the KV cache."""

SESSIONS = (
    ("session", "str", "key: its id, and digits of a hash of when, where and by which process it was begun"),
    ("session_id", "str", "as its record has it"),
    ("folder", "str", "name of its folder when it was exported"),
    ("state", "str", "running, ended, killed, over, empty or unknown, as `profilemate list` says"),
    ("is_trimmed", "bool", "its rows had been removed to keep its folder under the cap: it has no streams here"),
    ("merged_of", "str", "the sessions that `profilemate merge` joined to it, separated by spaces"),
    ("began", "time", "when it began, UTC"),
    ("began_unix_ns", "int", "the same in nanoseconds"),
    ("duration_sec", "float", "from its beginning to its last row"),
    ("began_day", "str", "the day in UTC, as its folder's name has it"),
    ("model_name", "str", "the model of its first engine, exactly"),
    ("host_name", "str", "the host that began it"),
    ("host_names", "str", "all hosts, separated by spaces"),
    ("vllm", "str", "version, of the first process that has one"),
    ("torch", "str", "version"),
    ("python", "str", "version"),
    ("profilemate", "str", "version that recorded it"),
    ("num_processes", "int", "recorded processes"),
    ("trackers", "str", "trackers that were on, separated by spaces"),
    *((name, kind, "of vLLM's configuration, first engine") for name, kind in SETTINGS.items()),
    ("device_name", "str", "what vLLM calls the device; recorded by the tracker bandwidth"),
    *((name, "int", f"sum over engines of {column} as of their last row") for name, column in KV_TOTALS.items()),
    ("forward_passes", "int", "serving forward passes of the workers that stand for their engines"),
    ("rows", "int", "rows of streams that were exported"),
    ("lost_rows", "int", "rows of streams that are known to be missing: caps, full disks, slow disks"),
    ("faults", "int", "kinds of damage found in its files, see the table `faults`"),
    ("missing", "str", "what is missing, damaged or still running, a sentence a line"),
    ("exported", "time", "when it was exported, UTC"),
)
