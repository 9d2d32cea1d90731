"""Engine steps and forward passes: what bound them and where the time went."""

from __future__ import annotations

from profilemate.report.model import Column, Grid, Number, Numbers, Part
from profilemate.report.numbers import cell, count, percent, plain, share_of
from profilemate.report.sections.section import SERVER, Section
from profilemate.report.source import Source
from profilemate.session.records import items_of, table_of, text
from profilemate.trackers.engine_steps.summary import LIMIT_WORDS

TIMES = (
    ("waiting_for_model", "Waiting for the model"),
    ("scheduling", "Scheduling"),
    ("update", "Update from the output"),
    ("between_steps", "Between steps"),
)
PERCENTILES = ("p50", "p95", "p99")


def build(source: Source) -> Part:
    """Steps, limits, time; then a table of passes by phase."""
    steps = source.tracker("engine_steps")
    if not steps and not source.tracker("forward_passes"):
        return Part(lead=("Engine steps were not tracked in this session.",))
    limits, share = table_of(steps.get("share_by_limit")), table_of(steps.get("share_of_time_with_requests"))
    return Part(
        numbers=(
            Numbers(
                "Steps",
                (
                    count("Steps", steps.get("total_samples")),
                    count("With tokens", steps.get("busy_steps")),
                    plain("Mean batch", steps.get("mean_token_utilization_pct"), "%", _of(steps, "max_tokens", "tokens")),
                    plain("Mean batch", steps.get("mean_seq_utilization_pct"), "%", _of(steps, "max_num_seqs", "requests")),
                    count("Prefill tokens", steps.get("prefill_tokens"), "tokens"),
                    count("Decode tokens", steps.get("decode_tokens"), "tokens"),
                    *_drafts(steps),
                ),
            ),
            Numbers(
                "What bound them", tuple(percent(words.capitalize().replace("Kv", "KV"), limits.get(name))
                                         for name, words in LIMIT_WORDS.items())
            ),
            Numbers(
                "The engine's time with requests", tuple(percent(words, share.get(name)) for name, words in TIMES)
            ),
        ),
        grids=tuple(grid for grid in (_durations(source), _passes(source)) if grid.rows),
    )  # fmt: skip


def _of(steps: dict[str, object], key: str, unit: str) -> str:
    return f"of {steps[key]:,} {unit}" if isinstance(steps.get(key), int) else f"of the {unit} allowed"


def _drafts(steps: dict[str, object]) -> tuple[Number, ...]:
    if not steps.get("drafted_tokens"):
        return ()
    return (
        count("Drafted tokens", steps.get("drafted_tokens"), "tokens"),
        share_of("Accepted", steps.get("accepted_tokens"), steps.get("drafted_tokens")),
    )


def _durations(source: Source) -> Grid:
    steps = source.tracker("engine_steps")
    rows = []
    for key, words in (("scheduling_ms", "Scheduling"), ("update_ms", "Update from the output")):
        times = table_of(steps.get(key))
        if times:
            rows.append((words, *(cell(times.get(name)) for name in ("mean", *PERCENTILES, "max"))))
    columns = (Column("Part of a step"), *(Column(f"{name} (ms)", True) for name in ("Mean", *PERCENTILES, "Max")))
    return Grid("Python of a step", columns, tuple(rows))


def _passes(source: Source) -> Grid:
    record = source.tracker("forward_passes")
    rows = tuple(
        (
            text(name),
            cell(phase.get("count")),
            cell(phase.get("timed")),
            *(cell(phase.get(f"{key}_ms")) for key in ("mean", *PERCENTILES)),
            cell(phase["tokens"] / phase["count"]) if phase.get("count") and phase.get("tokens") is not None else "",
            cell(phase.get("tokens_per_sec")),
        )
        for name, phase in ((name, table_of(phase)) for name, phase in table_of(record.get("phases")).items())
    )
    columns = (
        Column("Phase"), Column("Passes", True), Column("Timed", True), Column("Mean (ms)", True),
        *(Column(f"{name} (ms)", True) for name in PERCENTILES), Column("Tokens a pass", True), Column("Tokens/s", True),
    )  # fmt: skip
    clocks = ", ".join(text(clock) for clock in items_of(record.get("clocks")))
    return Grid("Forward passes", columns, rows, f"By the clock: {clocks}." if clocks else "")


SECTION = Section("steps", "Engine steps", SERVER, build, figures=("engine_steps",))
