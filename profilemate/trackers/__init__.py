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
    Tracker("cuda_graphs", "ENABLE_CUDA_GRAPH_TRACKING", "CUDA graph tracking", "Worker"),
    Tracker("kv_cache", "ENABLE_KV_CACHE_TRACKING", "KV cache tracking", "EngineCore"),
)

NAMES = tuple(tracker.name for tracker in TRACKERS)
DEFAULT = tuple(tracker.name for tracker in TRACKERS if tracker.on_by_default)
BY_NAME = {tracker.name: tracker for tracker in TRACKERS}
