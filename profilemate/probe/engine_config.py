"""What is read of vLLM's configuration, and what of it is written: a closed list, as JSON can hold it, without secrets."""

from __future__ import annotations

from typing import Any

from profilemate.probe.process import THIS
from profilemate.schema import names


def read(source: Any, path: str) -> Any:
    """An attribute by dotted path, or None: vLLM's configuration changes its shape between versions."""
    for name in path.split("."):
        source = getattr(source, name, None)
        if source is None:
            return None
    return source


ENGINE_CONFIG = {
    "model": "model_config.model",
    "model_type": "model_config.hf_config.model_type",
    "is_multimodal": "model_config.is_multimodal_model",
    "is_encoder_decoder": "model_config.is_encoder_decoder",
    "dtype": "model_config.dtype",
    "max_model_len": "model_config.max_model_len",
    "enforce_eager": "model_config.enforce_eager",
    "block_size": "cache_config.block_size",
    "num_gpu_blocks": "cache_config.num_gpu_blocks",
    "num_gpu_blocks_override": "cache_config.num_gpu_blocks_override",
    "gpu_memory_utilization": "cache_config.gpu_memory_utilization",
    "cache_dtype": "cache_config.cache_dtype",
    "enable_prefix_caching": "cache_config.enable_prefix_caching",
    "max_num_seqs": "scheduler_config.max_num_seqs",
    "max_num_batched_tokens": "scheduler_config.max_num_batched_tokens",
    "async_scheduling": "scheduler_config.async_scheduling",
    "tensor_parallel_size": "parallel_config.tensor_parallel_size",
    "pipeline_parallel_size": "parallel_config.pipeline_parallel_size",
    "data_parallel_size": "parallel_config.data_parallel_size",
    "cudagraph_mode": "compilation_config.cudagraph_mode",
    "cudagraph_capture_sizes": "compilation_config.cudagraph_capture_sizes",
    "compilation_mode": "compilation_config.mode",
    "device": "device_config.device_type",
}
"""What is written of vLLM's configuration. A list of what may be written, so that no secret ever is."""


def note_engine_config(vllm_config: Any) -> None:
    """Keep the allowed settings, as JSON can hold them, and the number of processes that share the size cap."""
    for name, path in ENGINE_CONFIG.items():
        value = read(vllm_config, path)
        if value is not None:
            THIS.engine_config[name] = plain(value)
    THIS.num_processes = processes_of(vllm_config)


def processes_of(vllm_config: Any) -> int:
    """How many processes a configuration makes: an engine core and its workers for each engine, and a front end."""
    world = read(vllm_config, "parallel_config.world_size") or 1
    data_parallel = read(vllm_config, "parallel_config.data_parallel_size") or 1
    return (int(world) + 1) * int(data_parallel) + 1


def plain(value: Any) -> Any:
    """Numbers, booleans and lists of them as they are; an enum by its name; all else as text."""
    if isinstance(value, str) and not hasattr(value, "name"):
        return without_secrets(value)
    if isinstance(value, (bool, int, float)) and not hasattr(value, "name"):
        return value
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return without_secrets(str(getattr(value, "name", value)))


def without_secrets(text: str) -> str:
    """An address without user, password and query: a model may be named by one, as `s3://KEY:SECRET@bucket/model?token=...`."""
    scheme, separator, rest = text.partition("://")
    if not separator:
        return text
    path = rest.partition("?")[0].partition("#")[0]
    host, slash, below = path.partition("/")
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{below}"


def note_asked_sizes(arguments: Any) -> None:
    """Capture sizes as they were asked for: vLLM's configuration has what it made of them, in its place."""
    asked = arguments, read(arguments, "compilation_config")
    sizes = next((found for one in asked if (found := read(one, "cudagraph_capture_sizes"))), None)
    if isinstance(sizes, (list, tuple)):
        THIS.engine_config[names.ASKED_SIZES] = plain(sizes)
        THIS.dirty = True
