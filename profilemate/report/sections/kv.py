"""KV cache and prefix cache."""

from __future__ import annotations

from profilemate.report.model import Column, Grid, Numbers, Part
from profilemate.report.numbers import cell, count, duration, percent, share_of
from profilemate.report.sections.section import SERVER, Section
from profilemate.report.source import Source
from profilemate.session.records import table_of
from profilemate.trackers.prefix_lookups.view import WORDS


def build(source: Source) -> Part:
    """Use, evictions, prefix cache; then why tokens were missed."""
    kv = source.tracker("kv_cache")
    if not kv:
        return Part(lead=("The KV cache was not tracked in this session.",))
    exact = "" if kv.get("peak_is_exact") else "sum of the engines' last known states"
    return Part(
        numbers=(
            Numbers(
                "Use",
                (
                    count("Blocks", kv.get("total_blocks"), "blocks"),
                    count("Peak", kv.get("peak_blocks"), "blocks", exact),
                    duration("Peak at", kv.get("peak_time_sec"), "after the start"),
                    count("In use at the end", kv.get("blocks_in_use"), "blocks"),
                    count("Failed allocations", kv.get("failed_allocations")),
                ),
            ),
            Numbers(
                "Evictions",
                (
                    count("Evicted", kv.get("evicted"), "blocks"),
                    duration("Mean lifetime", kv.get("mean_lifetime_sec"), "since it was filled"),
                    duration("Mean idle time", kv.get("mean_idle_sec"), "since it was last used"),
                    count("Allocated", kv.get("allocated"), "blocks"),
                    count("Re-used", kv.get("touched"), "blocks"),
                ),
            ),
            Numbers(
                "Prefix cache",
                (
                    percent("Hit rate", kv.get("hit_rate")),
                    count("Asked for", kv.get("query_tokens"), "tokens"),
                    count("Found", kv.get("hit_tokens"), "tokens"),
                    count("Resets", kv.get("resets")),
                ),
            ),
        ),
        grids=tuple(grid for grid in (_misses(source),) if grid.rows),
    )


def _misses(source: Source) -> Grid:
    lookups = source.tracker("prefix_lookups")
    missed, total = table_of(lookups.get("missed")), lookups.get("missed_tokens")
    rows = tuple(
        (words[0].upper() + words[1:], cell(tokens), share_of("", tokens, total).value)
        for name, words in WORDS.items()
        if (tokens := missed.get(name.removesuffix("_tokens")))
    )
    note = "" if lookups else "Look-ups were not tracked."
    columns = (Column("Why prompt tokens were not in the cache"), Column("Tokens", True), Column("Share (%)", True))
    return Grid("Missed tokens", columns, rows, note)


SECTION = Section("kv", "KV cache", SERVER, build, figures=("kv_cache",))
