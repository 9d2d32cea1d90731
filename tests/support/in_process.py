"""vLLM engines in this very process (VLLM_ENABLE_V1_MULTIPROCESSING=0): their parts, and an end that lets another begin."""

from __future__ import annotations

import gc
from typing import Any


def scheduler_of(llm: Any) -> Any:
    """The scheduler."""
    return llm.llm_engine.engine_core.engine_core.scheduler


def runner_of(llm: Any) -> Any:
    """The model runner."""
    return llm.llm_engine.engine_core.engine_core.model_executor.driver_worker.worker.model_runner


def end(llm: Any) -> None:
    """Shut the engine down and give back what it holds; the caller drops its own reference."""
    from vllm.distributed import cleanup_dist_env_and_memory

    llm.llm_engine.engine_core.shutdown()
    del llm
    gc.collect()
    cleanup_dist_env_and_memory()
