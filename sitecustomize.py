"""Starts ProfileMate in every Python process that has this folder on PYTHONPATH and imports vLLM."""


class ProfilingConfig:
    """Defaults, to be edited; an environment variable (see README.md) wins over a value here."""

    ENABLE_CUDA_GRAPH_TRACKING = True
    ENABLE_KV_CACHE_TRACKING = True
    ENABLE_PREEMPTION_TRACKING = True
    ENABLE_BATCH_UTILIZATION_TRACKING = True
    ENABLE_FORWARD_PASS_TIMING = True
    ENABLE_ENCODER_DECODER_TIMING = True
    ENABLE_CPU_TIMING = False  # how long the Python around the model takes, by operation
    ENABLE_PREFIX_LOOKUP_TRACKING = False  # what each request found in the prefix cache, and why it missed the rest
    ENABLE_MOE_EXPERT_TRACKING = False
    ENABLE_BANDWIDTH_ESTIMATE = False  # bytes and operations of every forward pass, from the model's sizes
    LOG_INTERVAL = 100  # block operations between two rows of kv_cache_usage.csv
    OUTPUT_DIR = "/tmp/vllm_profiling"


try:
    import profilemate.boot

    profilemate.boot.start(ProfilingConfig, __file__)
except Exception as error:  # the interpreter goes on whatever happens here
    import contextlib
    import sys

    with contextlib.suppress(Exception):  # stderr may be closed
        sys.stderr.write(f"[profilemate] off: {type(error).__name__}: {error}\n")
