"""`make gpu-check`: ProfileMate's graph and KV oracles on a real GPU, against a torch profiler trace and vLLM's own counts."""
