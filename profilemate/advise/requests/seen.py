"""Lengths of the requests of a session, and what a limit on them means for the KV cache."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from profilemate.advise.requests.ended import BY_THEMSELVES, ended_requests
from profilemate.advise.weighted import quantiles
from profilemate.session.views import engine_config

if TYPE_CHECKING:
    from profilemate.frames.session import Session

INT32_BYTES = 4


@dataclass(frozen=True)
class Lengths:
    """Requests that ended by themselves, and the settings. Tokens; percentiles are of prompt, output and their sum."""

    table: str
    requests: int
    broken_off: int
    cut: int
    limit: int
    prompt: dict[str, int]
    output: dict[str, int]
    whole: dict[str, int]
    blocks: dict[str, int]
    block_size: int
    usable_blocks: int
    max_num_seqs: int

    @property
    def longest(self) -> int:
        """Of all requests that ended, broken off or not."""
        return self.whole.get("max", 0)

    def share_of_cache(self, limit: int) -> float | None:
        """Which share of the KV cache one request of that length takes; None where the sizes are not known."""
        if not self.block_size or not self.usable_blocks:
            return None
        return math.ceil(limit / self.block_size) / self.usable_blocks

    def buffer_bytes(self, limit: int) -> tuple[int, int]:
        """Block table on the device per KV cache group, and token ids on the host (`benchmarks/model_length`)."""
        blocks = math.ceil(limit / self.block_size) if self.block_size else 0
        return self.max_num_seqs * blocks * INT32_BYTES, self.max_num_seqs * limit * INT32_BYTES


def read_lengths(session: Session) -> Lengths:
    """Lengths of all that ended; 0 for a setting that was not recorded."""
    import polars

    config = engine_config(session)
    seen, table = ended_requests(session)
    limit, block_size = _whole(config.get("max_model_len")), _whole(config.get("block_size"))
    frame = seen.with_columns(whole=polars.col("prompt_tokens") + polars.col("output_tokens"))
    own = frame.filter(polars.col("reason").is_in(BY_THEMSELVES))
    cut = own.filter((polars.col("reason") == "length") & (polars.col("whole") >= limit)).height if limit else 0
    blocks = own["whole"].to_numpy().astype(float)
    kept = (blocks - 1).clip(min=0)
    return Lengths(
        table=table,
        requests=own.height,
        broken_off=frame.height - own.height,
        cut=cut,
        limit=limit,
        prompt=_percentiles(own["prompt_tokens"].to_numpy()),
        output=_percentiles(own["output_tokens"].to_numpy()),
        whole={**_percentiles(blocks), **({"max": int(_most(frame["whole"]))} if frame.height else {})},
        blocks=_percentiles(-(-kept // block_size)) if block_size else {},
        block_size=block_size,
        usable_blocks=max(0, _whole(config.get("num_gpu_blocks")) - 1),
        max_num_seqs=_whole(config.get("max_num_seqs")),
    )


def _percentiles(values: Any) -> dict[str, int]:
    names = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99, "max": 1.0}
    found = quantiles(values, list(names.values()))
    return {name: int(value) for name, value in zip(names, found, strict=False)}


def _most(values: Any) -> int:
    return int(values.max() or 0)


def _whole(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0
