"""The KV cache: allocations, prefix hits, frees, evictions and usage of the scheduler's own BlockPool."""
