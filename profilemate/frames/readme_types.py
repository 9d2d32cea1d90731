"""Types of the columns of the README's CSV files, by their names: an empty file has them too, and an id stays a text."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

TEXTS = frozenset(
    (
        "binding_limit", "cache_off", "cause", "clock", "component", "context", "event", "external_id", "extra_info",
        "fault", "finish_reason", "for_request_id", "kind", "latency_clock", "measured_by", "mode", "operation", "owner",
        "phase", "process", "purpose", "reason", "request_id", "runtime_mode", "site",
    )
)  # fmt: skip
BOOLEANS = frozenset(("counted_by_vllm", "has_lora", "is_resumed", "uniform"))
FLOATS = frozenset(
    ("arithmetic_intensity", "bandwidth_pct_of_peak", "compute_pct_of_peak", "max_min_ratio", "max_over_mean", "percentage",
     "read_gb_per_sec", "std_dev", "tflop_per_sec", "throughput_tokens_per_sec")
)  # fmt: skip
FLOAT_ENDINGS = ("_sec", "_ms", "_pct")


def kind_of(column: str) -> str:
    """str, bool, float or int: all that is not named here counts something."""
    if column in TEXTS:
        return "str"
    if column in BOOLEANS:
        return "bool"
    return "float" if column in FLOATS or column.endswith(FLOAT_ENDINGS) else "int"


def schema_of(header: Iterable[str]) -> dict[str, Any]:
    """Columns of a file with their polars types."""
    import polars

    kinds = {"int": polars.Int64, "str": polars.String, "bool": polars.Boolean, "float": polars.Float64}
    return {name: kinds[kind_of(name)] for name in header}
