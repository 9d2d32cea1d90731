"""How many requests ran at once, against max_num_seqs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from profilemate.advise.enough import Need, absent, lost_rows, thin, unmet
from profilemate.advise.finding import ACT, FINE, LOOK, Evidence, Finding, Gain, Verdict
from profilemate.advise.steps import TABLE, steps
from profilemate.advise.weighted import mean, quantiles
from profilemate.session.views import engine_config
from profilemate.trackers.engine_steps.events import KV_SPACE, SEQUENCE_CAP

if TYPE_CHECKING:
    import polars as pl

    from profilemate.frames.session import Session

TOPIC = "lengths"
NAME = "lengths.max_num_seqs"
ABOUT = "max_num_seqs"

STEPS_NEEDED, REQUESTS_NEEDED, SECONDS_NEEDED = 500, 100, 20
BINDS = 0.1
"""From this share of the time on a limit is said to bind."""
ROOMY = 0.5
"""Below this share of the cap the most that ever ran leaves it roomy."""
COVERED = 0.95
"""A cap that is advised holds the running and waiting requests for this share of the time."""
FILLED = 0.9
"""Of the KV cache, counted on for running requests; the rest is for their growth."""
MULTIPLE = 8
SLICES = 10
BOUND = "time in steps that the sequence cap bounds"

COLUMNS = (
    "step_tokens", "running", "waiting", "skipped", "limit", "max_requests", "max_step_tokens", "in_use", "total_blocks",
    "step_finished",
)  # fmt: skip


@dataclass(frozen=True)
class Concurrency:
    """Over steps with tokens, weighted by the time of each while its engine held requests; per engine."""

    steps: int
    finished: int
    seconds: float
    cap: int
    most_step_tokens: int
    running: dict[str, float]
    wanted: dict[str, float]
    bound_share: float
    kv_share: float
    blocks_each: float | None
    usable_blocks: int

    @property
    def fit(self) -> int | None:
        """Requests that the KV cache holds, each with as many blocks as the running ones have; None if not known."""
        return int(FILLED * self.usable_blocks / self.blocks_each) if self.blocks_each and self.usable_blocks else None


def advise(session: Session) -> list[Finding]:
    """One finding."""
    frame = _busy(session)
    evidence = (Evidence(TABLE, frame.height, "steps with tokens"),)
    if not frame.height:
        return [
            absent(TOPIC, NAME, ABOUT, "No engine step with tokens was recorded; the tracker engine_steps has them.")
        ]
    seen = _read(frame)
    cap = seen.cap or int(engine_config(session).get("max_num_seqs") or 0)
    if not cap:
        return [absent(TOPIC, NAME, ABOUT, "The session does not record max_num_seqs.")]
    says = f"{_text(seen, cap)}{lost_rows(session, TABLE)}"
    needs = [
        Need("steps with tokens", seen.steps, STEPS_NEEDED),
        Need("requests that ended", seen.finished, REQUESTS_NEEDED),
        Need("seconds with requests", math.floor(seen.seconds), SECONDS_NEEDED),
    ]
    if unmet(needs):
        return [thin(TOPIC, NAME, ABOUT, needs, says, evidence)]
    if seen.bound_share >= BINDS:
        return [_too_low(session, seen, cap, frame, says, evidence)]
    if seen.running["max"] < ROOMY * cap:
        return [_roomy(seen, cap, says, evidence)]
    fits = f"max_num_seqs {cap:,} fits the load"
    title = f"KV space bounds the batch, not max_num_seqs {cap:,}" if seen.kv_share >= BINDS else fits
    return [Finding(TOPIC, NAME, FINE, title, says, evidence, numbers=_numbers(seen, cap))]


def verify(finding: Finding, after: Session) -> list[Verdict]:
    """The share of time in steps that the cap bounds."""
    frame = _busy(after)
    if not frame.height:
        return []
    seen = _read(frame)
    return [
        Verdict(
            finding.name, gain.quantity, gain.unit, gain.expected, gain.low, gain.high, 100 * seen.bound_share,
            f"{seen.steps:,} steps under max_num_seqs {seen.cap:,}; at most {int(seen.running['max']):,} ran at once",
        )
        for gain in finding.gains
        if gain.quantity == BOUND
    ]  # fmt: skip


def _busy(session: Session) -> pl.DataFrame:
    import polars

    frame = steps(session, *COLUMNS)
    wanted = polars.col("running") + polars.col("waiting").fill_null(0) - polars.col("skipped").fill_null(0)
    return frame.filter((polars.col("step_tokens") > 0) & polars.col("running").is_not_null()).with_columns(
        wanted=wanted
    )


def _read(frame: pl.DataFrame) -> Concurrency:
    import polars

    weights = frame["working_ns"].to_numpy().astype(float)
    capped = frame.filter((polars.col("limit") == SEQUENCE_CAP) & (polars.col("running") > 0))
    crowd = capped if capped.height else frame.filter(polars.col("running") > 0)
    known = crowd.drop_nulls(["in_use", "total_blocks"])
    each = known.select(polars.col("in_use") / polars.col("running")).to_series().to_numpy().astype(float)
    return Concurrency(
        steps=frame.height,
        finished=int(frame["step_finished"].sum() or 0),
        seconds=float(weights.sum()) / 1e9,
        cap=int(frame["max_requests"].drop_nulls().tail(1).sum() or 0),
        most_step_tokens=int(frame["max_step_tokens"].drop_nulls().tail(1).sum() or 0),
        running=_percentiles(frame["running"].to_numpy(), weights),
        wanted=_percentiles(frame["wanted"].to_numpy(), weights),
        bound_share=_share(frame, polars.col("limit") == SEQUENCE_CAP),
        kv_share=_share(frame, polars.col("limit") == KV_SPACE),
        blocks_each=mean(each, known["working_ns"].to_numpy().astype(float)),
        usable_blocks=int(known["total_blocks"].cast(float).max() or 0),
    )  # fmt: skip


def _share(frame: pl.DataFrame, which: pl.Expr) -> float:
    whole = int(frame["working_ns"].sum() or 0)
    return int(frame.filter(which)["working_ns"].sum() or 0) / whole if whole else 0.0


def _percentiles(values: Any, weights: Any) -> dict[str, float]:
    names = {"p50": 0.5, "p90": 0.9, "p95": COVERED, "p99": 0.99}
    found = dict(zip(names, quantiles(values, list(names.values()), weights), strict=True))
    return {**found, "mean": mean(values.astype(float), weights) or 0.0, "max": float(values.max())}


def _too_low(
    session: Session, seen: Concurrency, cap: int, frame: pl.DataFrame, says: str, evidence: tuple[Evidence, ...]
) -> Finding:
    wished = MULTIPLE * math.ceil(seen.wanted["p95"] / MULTIPLE)
    bounds = {"the KV cache": seen.fit, "max_num_batched_tokens": seen.most_step_tokens or None}
    binding = min((name for name in bounds if bounds[name] is not None), key=lambda name: bounds[name] or 0, default="")
    limit = bounds.get(binding)
    advised = wished if limit is None or wished <= limit else MULTIPLE * (limit // MULTIPLE)
    title = f"max_num_seqs {cap:,} bounds the batch for {100 * seen.bound_share:.0f} % of the time"
    room = (
        f" At {seen.blocks_each:.1f} blocks for a running request, {seen.fit:,} of them take {100 * FILLED:.0f} % of "
        f"{seen.usable_blocks:,} blocks."
        if seen.blocks_each and seen.fit is not None
        else " What the KV cache would hold is not known, since the tracker kv_cache was off."
    )
    if advised <= cap:
        return Finding(
            TOPIC, NAME, LOOK, title,
            f"{says}{room} A higher cap would therefore meet {binding} next: it alone brings nothing.", evidence,
            numbers=_numbers(seen, cap),
        )  # fmt: skip
    clipped = (
        f" Of {wished:,} that were wanted at the 95th percentile, {binding} allows {advised:,}."
        if advised < wished
        else ""
    )
    return Finding(
        TOPIC, NAME, ACT, title, f"{says}{room}{clipped}{_graphs_text(session, advised)}", evidence,
        flags=(f"--max-num-seqs {advised}",),
        gains=(_gain(seen, frame, advised),),
        to_be_sure=(
            "Larger batches make each step longer: compare the time per output token before and after. Whether more "
            "requests per second come out cannot be told from one session. Nothing is said of loads above this one."
        ),
        numbers={**_numbers(seen, cap), "advised": advised, "wanted_at_p95": wished},
    )  # fmt: skip


def _gain(seen: Concurrency, frame: pl.DataFrame, advised: int) -> Gain:
    """Steps that still want more than the new cap; the range is over slices of the session."""
    import polars

    over = polars.col("wanted") > advised
    slices = [frame.slice(part * frame.height // SLICES, frame.height // SLICES) for part in range(SLICES)]
    most = max([1 - COVERED, _share(frame, over), *(_share(one, over) for one in slices if one.height)])
    return Gain(
        BOUND, "%", 100 * seen.bound_share, 100 * _share(frame, over), 0.0, 100 * most,
        f"time in which more than {advised:,} ran or waited; the range is from none to the worst tenth of the session, "
        f"{100 * (1 - COVERED):.0f} % at least, under the same load",
    )  # fmt: skip


def _roomy(seen: Concurrency, cap: int, says: str, evidence: tuple[Evidence, ...]) -> Finding:
    advised = MULTIPLE * math.ceil(1.25 * seen.running["max"] / MULTIPLE)
    title = f"max_num_seqs {cap:,} was never nearly reached: at most {int(seen.running['max']):,} ran at once"
    if advised >= cap:
        return Finding(TOPIC, NAME, FINE, title, says, evidence, numbers=_numbers(seen, cap))
    return Finding(
        TOPIC, NAME, LOOK, title,
        f"{says} A lower cap changes nothing for this load. It frees no KV block by itself; vLLM sizes the block table, the "
        "sampler's share of the memory profile and, where no capture sizes are given, the CUDA graphs after it: fewer "
        "graphs, a quicker start and on a GPU somewhat more room for the KV cache, which this session cannot tell.",
        evidence,
        flags=(f"--max-num-seqs {advised}",),
        to_be_sure="Only if no burst is to come that is larger than what was recorded: with this cap it would wait.",
        numbers={**_numbers(seen, cap), "advised": advised},
    )  # fmt: skip


def _graphs_text(session: Session, advised: int) -> str:
    sizes = engine_config(session).get("cudagraph_capture_sizes")
    largest = max((size for size in sizes if isinstance(size, int)), default=0) if isinstance(sizes, list) else 0
    if not largest or largest >= advised:
        return ""
    return (
        f" The largest captured size is {largest:,}: decode batches above it run without a CUDA graph, so capture up to "
        f"{advised:,} as well (see the topic capture_sizes)."
    )


def _text(seen: Concurrency, cap: int) -> str:
    running, wanted = seen.running, seen.wanted
    return (
        f"Over {seen.seconds:,.0f} s with requests (per engine, by time) {running['mean']:.1f} requests ran on average, "
        f"{running['p50']:.0f} in the median, {running['p95']:.0f} at the 95th percentile and {running['max']:.0f} at most, of "
        f"max_num_seqs {cap:,}; running and waiting together were {wanted['p95']:.0f} at the 95th percentile. The cap bound "
        f"{100 * seen.bound_share:.1f} % of the time, KV space {100 * seen.kv_share:.1f} %."
    )


def _numbers(seen: Concurrency, cap: int) -> dict[str, Any]:
    return {
        "max_num_seqs": cap, "steps": seen.steps, "seconds": seen.seconds, "running": seen.running,
        "running_and_waiting": seen.wanted, "time_bound_by_sequence_cap": seen.bound_share,
        "time_bound_by_kv_space": seen.kv_share, "blocks_per_running_request": seen.blocks_each, "requests_that_fit": seen.fit,
        "usable_blocks": seen.usable_blocks,
    }  # fmt: skip
