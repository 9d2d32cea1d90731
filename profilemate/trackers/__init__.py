"""One folder per tracker. A new tracker is a folder with events.py, hooks.py, analyze.py and view.py, and one line here."""

from typing import NamedTuple


class Tracker(NamedTuple):
    """A tracker by the name of its folder.

    `switch` is its name in ProfilingConfig, `role` of the process in which it looks at vLLM. One that is not `on_by_default`
    costs more than a server should pay unasked.
    """

    name: str
    switch: str
    title: str
    role: str
    on_by_default: bool = True


TRACKERS = (
    Tracker("cpu_operations", "ENABLE_CPU_TIMING", "CPU operation timing", "EngineCore", on_by_default=False),
    Tracker("forward_passes", "ENABLE_FORWARD_PASS_TIMING", "forward pass timing", "Worker"),
    Tracker("cuda_graphs", "ENABLE_CUDA_GRAPH_TRACKING", "CUDA graph tracking", "Worker"),
    Tracker("engine_steps", "ENABLE_BATCH_UTILIZATION_TRACKING", "engine step tracking", "EngineCore"),
    Tracker("kv_cache", "ENABLE_KV_CACHE_TRACKING", "KV cache tracking", "EngineCore"),
    Tracker("requests", "ENABLE_PREEMPTION_TRACKING", "request and preemption tracking", "EngineCore"),
    Tracker(
        "prefix_lookups", "ENABLE_PREFIX_LOOKUP_TRACKING", "prefix-cache lookups", "EngineCore", on_by_default=False
    ),
    Tracker("encoder_decoder", "ENABLE_ENCODER_DECODER_TIMING", "encoder timing", "Worker"),
    Tracker("moe_routing", "ENABLE_MOE_EXPERT_TRACKING", "MoE routing", "Worker", on_by_default=False),
    Tracker("bandwidth", "ENABLE_BANDWIDTH_ESTIMATE", "bandwidth and compute estimate", "Worker", on_by_default=False),
)

NAMES = tuple(tracker.name for tracker in TRACKERS)
DEFAULT = tuple(tracker.name for tracker in TRACKERS if tracker.on_by_default)
BY_NAME = {tracker.name: tracker for tracker in TRACKERS}
