"""The installed way in: vLLM calls `register` as a general plugin in each of its processes."""

import os
from collections.abc import Mapping

from profilemate import boot
from profilemate.schema.names import ENV_SESSION


def is_asked_for(environ: Mapping[str, str]) -> bool:
    """Whether a switch is on; PROFILEMATE_ENABLE wins over VLLM_ENABLE_PROFILING."""
    value = environ.get("PROFILEMATE_ENABLE") or environ.get("VLLM_ENABLE_PROFILING") or ""
    return value.strip().lower() in ("1", "true", "on", "yes")


def register() -> None:
    """Start only where it was asked for: installing the package must not profile every server of an environment."""
    if is_asked_for(os.environ) or os.environ.get(ENV_SESSION):
        boot.start()  # type: ignore[no-untyped-call]
