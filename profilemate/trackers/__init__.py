"""One folder per tracker. A new tracker is a folder with events.py and hooks.py, and one word in TRACKERS."""

TRACKERS = ("cuda_graphs", "kv_cache")
