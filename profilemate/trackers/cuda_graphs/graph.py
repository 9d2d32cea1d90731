"""A graph's full descriptor as the offline half holds it (descriptor.py makes the cells inside vLLM)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from profilemate.trackers.cuda_graphs import events

DESCRIPTOR_COLUMNS = tuple(name for name, _, _ in events.DESCRIPTOR)


class Descriptor(NamedTuple):
    """The fields of events.DESCRIPTOR; None is "not known" or, for num_reqs, vLLM's own None."""

    runtime_mode: str
    num_tokens: int | None = None
    num_reqs: int | None = None
    uniform: bool | None = None
    has_lora: bool | None = None
    num_active_loras: int | None = None
    uniform_token_count: int | None = None
    max_query_len: int | None = None
    num_ubatches: int | None = None

    @classmethod
    def of(cls, cells: Sequence[Any]) -> Descriptor:
        """From the cells of a row, in the order of DESCRIPTOR_COLUMNS."""
        return cls(*cells)

    @property
    def is_uniform(self) -> bool:
        """VLLM's `uniform`; the V2 runner says it by giving the tokens per request."""
        return self.uniform_token_count is not None if self.uniform is None else self.uniform

    @property
    def uses_lora(self) -> bool:
        """VLLM's `has_lora`; the V2 runner says it by the number of active adapters."""
        return bool(self.num_active_loras) if self.has_lora is None else self.has_lora

    @property
    def label(self) -> str:
        """For people: `FULL 8 tokens, 8 requests, uniform`."""
        parts = [f"{self.runtime_mode} {_counted(self.num_tokens, 'token')}"]
        if self.num_reqs is not None:
            parts.append(_counted(self.num_reqs, "request"))
        if self.is_uniform:
            parts.append("uniform")
        if self.uses_lora:
            parts.append(f"{self.num_active_loras} LoRA" if self.num_active_loras else "LoRA")
        for name in ("max_query_len", "num_ubatches"):
            value = getattr(self, name)
            if value is not None and value > 1:
                parts.append(f"{name} {value}")
        return ", ".join(parts)

    @property
    def order(self) -> tuple[Any, ...]:
        """Sorting key: unknown comes first."""
        return (*((value is not None, value or 0) for value in self[1:]), self.runtime_mode)


def _counted(count: int | None, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{'?' if count is None else count} {noun}s"
