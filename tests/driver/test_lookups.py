"""Prefix-cache look-ups against what the scenes of drive_lookups.py did: every missed token under its right reason.

The scenes' process kills itself, so that all of this is also what a kill leaves.
"""

from __future__ import annotations

import json
import signal
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import environment
import pytest
import streams
import warm

DRIVE = environment.ROOT / "tests" / "driver" / "drive_lookups.py"
REASONS = ("short", "last", "new", "evicted", "reset", "untaken", "unkept", "unknown", "off")
EXACT = ("admitted_late", "default", "async", "hybrid", "resets")


class Scenes(NamedTuple):
    """What the scenes know, the recorded rows, and the session."""

    known: dict[str, dict[str, Any]]
    process: Path
    session: Path

    def rows(self, scene: str, table: str = "prefix_lookups") -> list[dict[str, str]]:
        """The rows of a scene's engine."""
        return [row for row in streams.rows(self.process, table) if int(row["engine"]) == self.known[scene]["engine"]]


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Scenes:
    folder = tmp_path_factory.mktemp("lookups")
    env = environment.profiled(folder, PROFILEMATE_TRACKERS="kv_cache,prefix_lookups")
    done = warm.run([str(DRIVE), str(folder / "known.json")], env=env)
    assert done.returncode == -signal.SIGKILL, done.stderr[-3000:]
    session = streams.only_session(folder)
    return Scenes(json.loads((folder / "known.json").read_text()), streams.processes(session)[0], session)


def told(row: dict[str, str]) -> dict[str, Any]:
    """A recorded row in the words of the scenes, without what is zero."""
    numbers = {name: int(row[f"{name}_tokens"]) for name in ("asked", "hit", "external", *REASONS)}
    numbers["unwritten"] = int(row["unwritten_blocks"])
    return {name: value for name, value in numbers.items() if value} | (
        {"cache_off": row["cache_off"]} if row["cache_off"] else {}
    )


def wanted(row: dict[str, Any]) -> dict[str, Any]:
    """An expected row without what is zero and without times."""
    return {name: value for name, value in row.items() if value and name in ALL}


ALL = {"asked", "hit", "external", "unwritten", "cache_off", *REASONS}


@pytest.mark.parametrize("scene", ["by_hand", "caching_off", "pooling", "lru_model", "connector", "too_many"])
def test_every_missed_token_has_the_reason_that_the_scene_gave_it(scenes: Scenes, scene: str) -> None:
    assert [told(row) for row in scenes.rows(scene)] == [wanted(row) for row in scenes.known[scene]["rows"]]


@pytest.mark.parametrize("scene", EXACT)
def test_rows_equal_those_of_a_watcher_without_bounds(scenes: Scenes, scene: str) -> None:
    """Async, hybrid, resets; requests that found no room for long and that were preempted."""
    rows, truth = scenes.rows(scene), scenes.known[scene]["exact"]
    assert [told(row) for row in rows] == [wanted(row) for row in truth]
    assert [row["resumed"] for row in rows] == [str(row["resumed"]) for row in truth]
    for row, true in zip(rows, truth, strict=True):
        for name in ("newest", "oldest"):
            if true[name] is None:
                assert row[f"{name}_ns"] == ""
            else:
                earliest, latest = true[name]
                assert earliest <= int(row[f"{name}_ns"]) <= latest


def test_the_scenes_have_every_reason(scenes: Scenes) -> None:
    seen: Counter[str] = Counter()
    for row in streams.rows(scenes.process, "prefix_lookups"):
        seen.update({name: int(row[f"{name}_tokens"]) for name in REASONS})
    assert not [name for name in REASONS if not seen[name] and name != "unkept"]


def test_tokens_add_up_in_every_row(scenes: Scenes) -> None:
    for row in streams.rows(scenes.process, "prefix_lookups"):
        parts = sum(int(row[f"{name}_tokens"]) for name in ("hit", "external", *REASONS))
        assert parts == int(row["asked_tokens"])


def test_an_eviction_is_dated(scenes: Scenes) -> None:
    """The scene slept before and after it."""
    row, known = next(
        (row, known)
        for row, known in zip(scenes.rows("by_hand"), scenes.known["by_hand"]["rows"], strict=True)
        if "evicted_between" in known
    )
    earliest, latest = known["evicted_between"]
    assert earliest < int(row["oldest_ns"]) <= int(row["median_ns"]) <= int(row["newest_ns"]) < latest


@pytest.mark.parametrize("scene", ["default", "async", "hybrid", "resets"])
def test_totals_equal_vllms_own_and_those_of_the_kv_cache_tracker(scenes: Scenes, scene: str) -> None:
    sums: Counter[str] = Counter()
    for row in scenes.rows(scene):
        prefix = "preempted_" if row["resumed"] == "True" else ""
        sums.update(
            {
                f"{prefix}requests": 1,
                f"{prefix}queries": int(row["asked_tokens"]),
                f"{prefix}hits": int(row["hit_tokens"]),
            }
        )
    vllm = scenes.known[scene]["vllm"]
    assert {name: sums[name] for name in vllm} == vllm
    last = scenes.rows(scene, "engine_steps")[-1]
    kept = ("query_requests", "query_tokens", "hit_tokens", "preempted_query_tokens", "preempted_hit_tokens")
    ours = ("requests", "queries", "hits", "preempted_queries", "preempted_hits")
    assert [int(last[name]) for name in kept] == [sums[name] for name in ours]


def test_a_table_of_eight_entries_says_unknown_and_never_lies(scenes: Scenes) -> None:
    rows, truth = scenes.rows("small_table"), scenes.known["small_table"]["truth"]
    assert len(rows) == len(truth)
    unknown = 0
    for row, true in zip(rows, truth, strict=True):
        have = Counter({name: int(row[f"{name}_tokens"]) for name in REASONS})
        for name in ("new", "evicted", "reset"):
            assert have[name] <= true[name]
        assert have["unknown"] == sum(true[name] - have[name] for name in ("new", "evicted", "reset"))
        assert [have[name] for name in ("short", "last", "untaken")] == [true[n] for n in ("short", "last", "untaken")]
        assert bool(have["unknown"]) == bool(row["reach_ns"])
        unknown += have["unknown"]
    assert unknown


def test_a_prompt_of_128k_tokens_is_written_in_many_steps(scenes: Scenes) -> None:
    known = scenes.known["long_prompt"]
    assert max(known["keyed_per_step"]) <= known["limit"] + 1  # and the block before a row's first
    assert sum(n > 0 for n in known["keyed_per_step"]) > 8192 // known["limit"]
    assert known["waiting"] == [0, 0, 0, 0], "the order was not complete before the request had ended"
    assert known["kept_bytes"] < 4 * 8192 * 150  # what is remembered: blocks that left the cache, and written ones


def orders(rows: list[dict[str, str]]) -> list[list[str]]:
    """Blocks in order of every look-up: a row goes on where the numbers before it end."""
    before: dict[str, str] = {}
    last: dict[str, str] = {}
    for row in rows:
        end = row["parent"]
        for number in row["numbers"].split():
            before[number] = end
            end = number
        last[row["lookup"]] = end
    return [chain(before, end) for end in last.values()]


def chain(before: dict[str, str], end: str) -> list[str]:
    """Back to the first block."""
    numbers = []
    while end:
        numbers.append(end)
        end = before[end]
    return numbers[::-1]


def test_the_blocks_of_long_prompts_are_there_in_order(scenes: Scenes) -> None:
    """Keyed with the session's secret; the third prompt begins as the first, the fourth is the first again."""
    known, rows = scenes.known["long_prompt"], scenes.rows("long_prompt", "prefix_blocks")
    assert orders(rows) == known["orders"]
    per_lookup = Counter({row["lookup"]: 0 for row in rows})
    for row in rows:
        per_lookup[row["lookup"]] += len(row["numbers"].split())
    first, second, *known_before = per_lookup.values()
    assert (first, second) == (8192, 8192)
    assert known_before == [2, 0], "what was written is written again"


def test_no_more_blocks_are_looked_at_than_a_step_may(scenes: Scenes) -> None:
    """Eight thousand evicted blocks: the first 128, then every 63rd."""
    rows = scenes.rows("long_prompt")
    row = rows.pop(2)
    assert int(row["every"]) == 63
    assert int(row["evicted_tokens"]) + int(row["hit_tokens"]) + 8 == int(row["asked_tokens"])
    assert [other["every"] for other in rows] == ["1", "1", "1"]


def test_no_prompt_and_no_hash_can_be_read(scenes: Scenes) -> None:
    text = (scenes.process / "prefix_blocks.csv").read_text() + (scenes.process / "prefix_lookups.csv").read_text()
    assert ",q0," not in text
    assert "r1" not in {row["request"] for row in streams.rows(scenes.process, "prefix_lookups")}
