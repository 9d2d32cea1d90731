"""Reading prefix look-ups: the file, the sums where old rows were removed, and blocks put in order again."""

from __future__ import annotations

from typing import Any

import pytest
from session_builder import ProcessBuilder, SessionBuilder, at

from profilemate.advise.kv.prompts import read_prompts
from profilemate.export import readme_files
from profilemate.schema.step_table import BASE
from profilemate.session.session import Session
from profilemate.trackers.prefix_lookups import events
from profilemate.trackers.prefix_lookups.view import lines

SETTINGS = {"trackers": ["prefix_lookups"]}


def lookup(number: int, seconds: float, **cells: Any) -> dict[str, Any]:
    """A row of prefix_lookups with 100 tokens asked."""
    return {
        "time_ns": at(seconds), "engine": 0, "lookup": number, "request": f"r{number}", "resumed": False,
        "cache_off": "", "prompt_tokens": 100, "blocks": 6, "asked_tokens": 100, "every": 1, **cells,
    }  # fmt: skip


@pytest.fixture
def core(session: SessionBuilder) -> ProcessBuilder:
    return session.process("EngineCore", settings=SETTINGS).rows(
        BASE, *({"time_ns": at(n), "engine": 0, "step": n} for n in (1, 9))
    )


def summary(session: SessionBuilder) -> dict[str, Any]:
    readme_files.write(Session(session.path))
    return dict(session.metadata()["summary"]["prefix_lookups"])


EVICTED = {
    "evicted_tokens": 64, "newest_ns": at(1.5), "median_ns": at(1.25), "oldest_ns": at(0.5), "hit_tokens": 32,
    "short_tokens": 4,
}  # fmt: skip
UNKNOWN = {"unknown_tokens": 96, "reach_ns": at(1), "short_tokens": 4, "every": 3}


def test_the_file(session: SessionBuilder, core: ProcessBuilder) -> None:
    core.rows(events.LOOKUPS, lookup(1, 2, **EVICTED), lookup(2, 3, **UNKNOWN))
    core.rows(events.LOOKUPS, lookup(3, 4, resumed=True, asked_tokens=120, cache_off="pooling", off_tokens=120))
    summary(session)
    assert session.text("prefix_cache_lookups.csv") == (
        "timestamp_sec,request_id,prompt_tokens,asked_tokens,hit_tokens,external_hit_tokens,missed_tokens,missed_short,"
        "missed_last,missed_new,missed_evicted,missed_reset,missed_untaken,missed_unkept,missed_unknown,missed_off,"
        "cache_off,newest_eviction_age_sec,median_eviction_age_sec,oldest_eviction_age_sec,table_reach_sec,"
        "looked_at_every,blocks,is_resumed,engine\n"
        "2.000000,r1,100,100,32,0,68,4,0,0,64,0,0,0,0,0,,0.500000,0.750000,1.500000,,1,6,False,0\n"
        "3.000000,r2,100,100,0,0,100,4,0,0,0,0,0,0,96,0,,,,,2.000000,3,6,False,0\n"
        "4.000000,r3,100,120,0,0,120,0,0,0,0,0,0,0,0,120,pooling,,,,,1,6,True,0\n"
    )


def test_the_summary(session: SessionBuilder, core: ProcessBuilder) -> None:
    core.rows(
        events.LOOKUPS, lookup(1, 2, **EVICTED), lookup(2, 3, **UNKNOWN), lookup(3, 4, resumed=True, hit_tokens=100)
    )
    core.rows(events.LOOKUPS, lookup(4, 5, **{**EVICTED, "median_ns": at(1), "evicted_tokens": 16}, new_tokens=48))
    record = summary(session)
    assert (record["lookups"], record["asked_tokens"], record["hit_tokens"], record["missed_tokens"]) == (
        3,
        300,
        64,
        236,
    )
    assert record["missed"]["evicted"] == 80
    assert record["evicted_seconds_before"] == {"p10": 0.75, "p50": 0.75, "p90": 4.0, "p99": 4.0}
    assert record["resumed"]["hit_tokens"] == 100
    assert lines(record) == [
        "3 look-ups, hit rate 21.3 % (64 of 300 tokens)",
        "missed: unknown (never seen, or evicted longer ago than the table reaches) 40.7 %, evicted 33.9 %, never seen "
        "20.3 %, shorter than a block 5.1 %",
        "evicted so long before the look-up, over evicted tokens: p10 0.750 s, p50 0.750 s, p90 4.000 s, p99 4.000 s",
        "after preemptions: 1 look-ups, hit rate 100.0 % (100 of 100 tokens); missed: nothing",
    ]
    notes = " ".join(session.metadata()["notes"])
    assert "1 prefix look-ups missed so many blocks" in notes
    assert "reached back at least 2.000 s" in notes


def test_sums_outlive_removed_rows(session: SessionBuilder, core: ProcessBuilder) -> None:
    """Look-ups 1 to 7 are in the newest sums, of which 1 to 5 have no row any more; a resumed one has sums of its own."""
    sums = {"engine": 0, "asked_tokens": 700, "new_tokens": 600, "hit_tokens": 100}
    core.rows(
        events.TOTALS,
        {**sums, "time_ns": at(1), "resumed": False, "through_lookup": 3, "lookups": 3},
        {**sums, "time_ns": at(2), "resumed": True, "through_lookup": 5, "lookups": 1},
        {**sums, "time_ns": at(2), "resumed": False, "through_lookup": 7, "lookups": 6},
    )
    core.rows(events.LOOKUPS, *(lookup(n, n, new_tokens=100) for n in (6, 7)), segment=2)
    core.rows(events.LOOKUPS, lookup(8, 8, hit_tokens=100), lookup(9, 9, resumed=True, new_tokens=100))
    record = summary(session)
    assert (record["lookups"], record["asked_tokens"], record["missed"]["new"]) == (7, 800, 600)
    assert record["hit_tokens"] == 200
    assert (record["resumed"]["lookups"], record["resumed"]["missed"]["new"]) == (2, 700)
    assert len(session.lines("prefix_cache_lookups.csv")) == 4


def test_the_rows_of_two_engines_are_merged(session: SessionBuilder) -> None:
    for index in (0, 1):
        core = session.process(f"EngineCore_DP{index}", engine_index=index, settings=SETTINGS)
        core.rows(BASE, {"time_ns": at(1), "engine": 0, "step": 1}, {"time_ns": at(9), "engine": 0, "step": 2})
        core.rows(events.LOOKUPS, lookup(1, 2 - index, new_tokens=100), lookup(2, 4 + index, hit_tokens=100))
    record = summary(session)
    assert (record["lookups"], record["hit_tokens"]) == (4, 200)
    assert [line.split(",")[0] + line[-2:] for line in session.lines("prefix_cache_lookups.csv")] == [
        "1.000000,1", "2.000000,0", "4.000000,0", "5.000000,1",
    ]  # fmt: skip


def test_without_rows_the_file_says_why(session: SessionBuilder, core: ProcessBuilder) -> None:
    record = summary(session)
    assert lines(record) == ["no request was admitted"]
    assert "prefix_cache_lookups.csv is empty: no request was admitted" in session.metadata()["notes"]


def test_a_hook_that_missed_evictions_is_named(session: SessionBuilder) -> None:
    """Without it every evicted block would pass for a new one."""
    hook = {"tracker": "prefix_lookups", "target": "m:x", "reason": "explode"}
    failed = {**hook, "name": "prefix_lookups.remove_cached_block_hashes", "state": "put_in", "failures": 2}
    other = {**hook, "name": "prefix_lookups.maybe_evict_cached_block", "state": "not_in_this_version"}
    core = session.process("EngineCore", settings=SETTINGS, hooks=[failed, other])
    core.rows(events.LOOKUPS, lookup(1, 2, new_tokens=100))
    summary(session)
    told = [note for note in session.metadata()["notes"] if "may tell evicted or reset blocks as new" in note]
    assert len(told) == 1
    assert told[0].startswith("EngineCore: prefix_lookups.remove_cached_block_hashes did not always work")


def test_a_vllm_without_either_place_for_evictions_is_named(session: SessionBuilder) -> None:
    hook = {"tracker": "prefix_lookups", "target": "m:x", "reason": "", "state": "not_in_this_version"}
    names = ("prefix_lookups.remove_cached_block_hashes", "prefix_lookups.maybe_evict_cached_block")
    core = session.process("EngineCore", settings=SETTINGS, hooks=[{**hook, "name": name} for name in names])
    core.rows(events.LOOKUPS, lookup(1, 2, new_tokens=100))
    summary(session)
    assert sum("may tell evicted or reset blocks as new" in note for note in session.metadata()["notes"]) == 2


def test_it_is_not_there_unless_asked_for(session: SessionBuilder) -> None:
    session.process("EngineCore")
    readme_files.write(Session(session.path))
    assert not (session.path / "prefix_cache_lookups.csv").exists()
    assert "prefix_lookups" not in session.metadata()["summary"]


def blocks(number: int, first: int, total: int, parent: str, numbers: str) -> dict[str, Any]:
    """A row of prefix_blocks."""
    return {
        "time_ns": at(number), "engine": 0, "lookup": number, "request": f"r{number}", "blocks": total, "first": first,
        "parent": parent, "numbers": numbers,
    }  # fmt: skip


def test_blocks_are_put_in_order_again(session: SessionBuilder, core: ProcessBuilder) -> None:
    """A prefix that is written once stands before every prompt that begins with it; a row that is missing shows."""
    core.rows(
        events.BLOCKS,
        blocks(1, 0, 4, "", "0a 0b"),
        blocks(1, 2, 4, "0b", "0c 0d"),
        blocks(2, 3, 4, "0c", "0e"),
        blocks(3, 4, 4, "0d", ""),
        blocks(4, 2, 3, "0b", "0f"),
        blocks(5, 1, 2, "77", "78"),
        blocks(6, 0, 3, "", "21 22"),
    )
    opened = Session(session.path)
    prompts = read_prompts(opened, opened.with_role("EngineCore")[0], 0)
    paths = {lookup: prompts.tree.path(end) for lookup, end in prompts.ends.items()}
    a, b, c, d = paths[1]
    e, f = paths[2][-1], paths[4][-1]
    assert paths == {1: [a, b, c, d], 2: [a, b, c, e], 3: [a, b, c, d], 4: [a, b, f], 5: paths[5], 6: paths[6]}
    assert len(paths[5]) == len(paths[6]) == 2, "one block is known to have come before, one was never written"
    assert len({a, b, c, d, e, f, *paths[5], *paths[6]}) == 10
