"""Our variables on the way to Ray's workers, by the list of those that vLLM's executor copies."""

from __future__ import annotations

import os
from typing import Any

RAY_COPIES = "VLLM_RAY_EXTRA_ENV_VARS_TO_COPY"
OUR_PREFIX = "PROFILEMATE_"


def pass_session_to_ray(config: Any) -> None:
    """Ask vLLM's older Ray executor to copy our variables to its workers; the newer one copies all."""
    backends = [getattr(config, f"{name}_backend", "") for name in ("distributed_executor", "data_parallel")]
    if not any("ray" in str(backend).lower() for backend in backends):
        return
    ours = [key for key in os.environ if key.startswith(OUR_PREFIX)]
    before = [key for key in os.environ.get(RAY_COPIES, "").split(",") if key]
    os.environ[RAY_COPIES] = ",".join([*before, *(key for key in ours if key not in before)])


def forget_ray_copies() -> None:
    """In a worker: take our names off that list again. VLLM hashes the variable into the key of its compile cache."""
    copied = os.environ.get(RAY_COPIES)
    if copied is None or OUR_PREFIX not in copied:
        return
    others = [key for key in copied.split(",") if key and not key.startswith(OUR_PREFIX)]
    if others:
        os.environ[RAY_COPIES] = ",".join(others)
    else:
        del os.environ[RAY_COPIES]
