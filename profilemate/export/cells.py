"""How values look in the README's files."""

from __future__ import annotations

from functools import lru_cache

from profilemate.trackers.cuda_graphs.graph import Descriptor

NS_PER_SECOND = 1_000_000_000
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


def seconds(nanoseconds: int | None) -> str:
    """Seconds with six decimals, rounded from whole nanoseconds; empty where unknown."""
    if nanoseconds is None:
        return ""
    sign, rounded = ("-" if nanoseconds < 0 else ""), (abs(nanoseconds) + 500) // 1000
    return f"{sign}{rounded // 1_000_000}.{rounded % 1_000_000:06d}"


def number(value: int | None) -> str:
    """An integer; empty where unknown."""
    return "" if value is None else str(value)


@lru_cache(4096)
def word(value: str) -> str:
    """A text cell: never a spreadsheet formula, a separator, a quote or a control character."""
    clean = "".join(c if c.isprintable() and c not in ',"' else "_" for c in value)
    return "'" + clean if clean.startswith(FORMULA_STARTS) else clean


def percent(part: int, whole: int) -> str:
    """Percent with four decimals; 0 of nothing is 0."""
    return f"{100 * part / whole:.4f}" if whole else "0.0000"


DESCRIPTOR_HEADER = ("runtime_mode", "num_tokens", "num_reqs", "uniform", "has_lora")
FURTHER_HEADER = ("num_active_loras", "uniform_token_count", "max_query_len", "num_ubatches")


@lru_cache(4096)
def descriptor_cells(descriptor: Descriptor) -> tuple[str, ...]:
    """The columns that users know; `num_reqs` is None where vLLM's is."""
    return (
        word(descriptor.runtime_mode),
        number(descriptor.num_tokens),
        "None" if descriptor.num_reqs is None else str(descriptor.num_reqs),
        str(descriptor.is_uniform),
        str(descriptor.uses_lora),
    )


@lru_cache(4096)
def further_cells(descriptor: Descriptor) -> tuple[str, ...]:
    """The other fields of the descriptor, appended on the right."""
    return tuple(number(value) for value in descriptor[5:])
