"""The installed way in: vLLM calls `register` as a general plugin in each of its processes."""

import os

from profilemate import boot
from profilemate.schema.names import ENV_SESSION


def register() -> None:
    """Start only where it was asked for: installing the package must not profile every server of an environment."""
    value = os.environ.get("PROFILEMATE_ENABLE") or os.environ.get("VLLM_ENABLE_PROFILING") or ""
    if value.strip().lower() in ("1", "true", "on", "yes") or os.environ.get(ENV_SESSION):
        boot.start()  # type: ignore[no-untyped-call]
