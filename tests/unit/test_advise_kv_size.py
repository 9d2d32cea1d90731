"""Findings about the size of the KV cache and about prefix caching, on a session whose hits at every size are known by hand."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import kv_world
import pytest
from kv_world import ASKED, BLOCK, EVICTIONS, HITS, REQUESTS, world
from session_builder import SessionBuilder, at

import profilemate
from profilemate.advise import kv_cache_size, prefix_caching
from profilemate.advise.finding import ACT, FINE, LOOK, THIN, Finding
from profilemate.advise.kv.memory import Memory, command_lines, memory_text
from profilemate.advise.kv.prediction import hit_rate_between, predict
from profilemate.frames.session import Session
from profilemate.trackers.prefix_lookups import events as lookups
from profilemate.trackers.requests import events as requests


def opened(session: SessionBuilder) -> Session:
    return profilemate.open(session.path)


def found(session: SessionBuilder, name: str) -> Finding:
    topic = kv_cache_size if name.startswith("kv_cache_size") else prefix_caching
    return {one.name: one for one in topic.advise(opened(session))}[name]


def hit_rate(session: SessionBuilder) -> Finding:
    return found(session, "kv_cache_size.hit_rate")


def test_every_size_is_as_by_hand(tmp_path: Path) -> None:
    sizes = {one["usable_blocks"]: one for one in hit_rate(world(tmp_path)).numbers["sizes"]}
    for blocks in (5, 7, 10):
        assert (sizes[blocks]["hit_tokens"], sizes[blocks]["evictions"]) == (HITS[blocks], EVICTIONS[blocks])
    unlimited = next(one for one in sizes.values() if one["factor"] is None)
    assert (unlimited["usable_blocks"], unlimited["hit_tokens"]) == (9, HITS[10])


def test_the_plain_lru_curve_is_as_by_hand(tmp_path: Path) -> None:
    """Of two prompts in turn a block needs the four of the other one and those before it of its own."""
    engine = hit_rate(world(tmp_path)).numbers["engines"][0]
    each = (REQUESTS - 2) * BLOCK / ASKED
    points = dict(engine["lru"])
    assert engine["lru_is_exact"]
    assert {size: rate for size, rate in points.items() if size in (1, 2, 5, 8, 10)} == {
        size: pytest.approx(rate * each) for size, rate in ((1, 0), (2, 0), (5, 1), (8, 4), (10, 4)) if size in points
    }


def test_it_advises_the_smallest_size_that_brings_most(tmp_path: Path) -> None:
    finding = hit_rate(world(tmp_path))
    assert finding.level == ACT
    assert finding.flags == ("--num-gpu-blocks-override 11",)
    assert finding.alternatives == ("--kv-cache-dtype fp8",)
    assert "2 times the KV blocks would find 95.2 % of the prompt tokens instead of 0.0 %" in finding.title
    gains = {gain.quantity.split(", ")[1]: gain for gain in finding.gains}
    assert gains["twice"].expected == pytest.approx(100 * HITS[10] / ASKED)
    assert gains["twice"].low == pytest.approx(100 * HITS[10] / ASKED - 2)
    assert gains["one and a half times"].expected == pytest.approx(100 * HITS[7] / ASKED)
    assert {one.table: one.rows for one in finding.evidence}["prefix_blocks"] == 4 * REQUESTS


def test_with_the_size_of_a_block_and_of_the_device_it_says_the_utilization(tmp_path: Path) -> None:
    finding = hit_rate(world(tmp_path, worker=kv_world.DEVICE))
    assert finding.flags == ("--gpu-memory-utilization 0.91",)
    assert finding.alternatives == ("--num-gpu-blocks-override 11", "--kv-cache-dtype fp8")
    assert finding.numbers["bytes_per_block"] == 16 * 4 * 256
    assert "16,384 bytes for a block" in finding.says


def test_where_twice_brings_nothing_and_half_loses_nothing(tmp_path: Path) -> None:
    """Ten blocks are one more than ever used; five would find nothing."""
    finding = hit_rate(world(tmp_path, blocks=10))
    assert (finding.level, finding.flags) == (FINE, ())
    assert "little" in finding.title


def test_half_the_blocks_where_they_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(kv_world.HITS, 20, HITS[10])
    monkeypatch.setitem(kv_world.EVICTIONS, 20, 0)
    finding = hit_rate(world(tmp_path, blocks=20))
    assert (finding.level, finding.flags) == (LOOK, ("--num-gpu-blocks-override 11",))
    assert "Half the KV blocks would find 95.2 % of the prompt tokens instead of 95.2 %" in finding.title


def test_the_numbers_are_plain_data(tmp_path: Path) -> None:
    for topic in (kv_cache_size, prefix_caching):
        for finding in topic.advise(opened(world(tmp_path))):
            json.dumps(finding.numbers)
            assert "  " not in finding.says and finding.says.strip() == finding.says


# -- what cannot be said ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cells", "config", "says"),
    [
        ({"no_lookups": True}, {}, "tracker prefix_lookups"),
        ({"no_blocks": True}, {}, "tracker prefix_lookups"),
        ({}, {"block_size": 32}, "one KV cache group"),
        ({"external_tokens": 16}, {}, "KV connector"),
        ({"hit_tokens": 32}, {}, "is not this server"),
        ({"drafted_tokens": 3}, {}, "speculative decoding"),
        ({"allocated": 400}, {}, "several groups"),
        ({}, {"enable_prefix_caching": False}, "Prefix caching is off"),
        ({}, {"max_num_seqs": None}, "does not record"),
    ],
)  # fmt: skip
def test_it_says_why_it_cannot_tell(tmp_path: Path, cells: dict[str, Any], config: dict[str, Any], says: str) -> None:
    finding = hit_rate(world(tmp_path, config=config, **cells))
    assert finding.level == THIN and not finding.flags and not finding.gains
    assert says in finding.says


def test_without_look_ups_it_says_how_to_get_them_and_how_long_blocks_were_kept(tmp_path: Path) -> None:
    finding = hit_rate(world(tmp_path, no_lookups=True))
    assert "PROFILEMATE_TRACKERS=default,prefix_lookups" in finding.to_be_sure
    assert "236 blocks were evicted, half of them within 3 s of their last use" in finding.says
    assert "vLLM found 0.0 % of the looked-up tokens" in finding.says


def test_few_look_ups_are_said_and_nothing_is_advised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("profilemate.advise.kv.hits.LOOKUPS_NEEDED", REQUESTS + 1)
    finding = hit_rate(world(tmp_path))
    assert (finding.level, finding.flags) == (THIN, ())
    assert "60 of the 61 look-ups that it takes" in finding.says


def test_look_ups_without_a_row_are_counted(tmp_path: Path) -> None:
    """The twentieth row was never written; what it found is in no number."""
    session = world(tmp_path)
    (path,) = session.path.glob("processes/*/prefix_lookups.csv")
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:20] + lines[21:]))
    finding = hit_rate(session)
    assert "1 look-ups are not in it" in finding.says
    assert finding.numbers["engines"][0]["asked_tokens"] == ASKED - 65


def test_engines_of_different_sizes_get_no_flags(tmp_path: Path) -> None:
    session = SessionBuilder(tmp_path)
    for index, blocks in enumerate((5, 7)):
        config = {**kv_world.CONFIG, "num_gpu_blocks": blocks + 1}
        kv_world.add_engine(session.process(f"EngineCore_DP{index}", engine_index=index, engine_config=config), blocks)
    finding = hit_rate(session)
    assert finding.flags == () and "different numbers of blocks" in finding.says


def test_a_session_without_engines(tmp_path: Path) -> None:
    session = SessionBuilder(tmp_path)
    session.process("APIServer")
    assert [one.level for one in kv_cache_size.advise(opened(session))] == [THIN]
    assert [one.level for one in prefix_caching.advise(opened(session))] == [THIN]


def test_blocks_whose_rows_are_gone_are_taken_for_one_prefix(tmp_path: Path) -> None:
    """The rows of the first two prompts were removed: the others tell their last block, and share what is before it.

    Hence each finds what its like found, but the first of each, which came third and fourth.
    """
    session = SessionBuilder(tmp_path)
    core = session.process("EngineCore", engine_config={**kv_world.CONFIG, "num_gpu_blocks": 6})
    kv_world.add_engine(core, 5)
    path = core.folder / "prefix_blocks.csv"
    header, _, _, *rest = path.read_text().splitlines(keepends=True)
    path.write_text(header + "".join(rest))
    trace = predict(opened(session)).engines[0].trace
    assert trace is not None and (trace.left.unwritten, trace.left.beheaded) == (2, REQUESTS - 2)
    assert len({one.end for one in trace.asked[2:]}) == 2 and len({one.end for one in trace.asked}) == 4
    assert [trace.tree.depth(one.end) for one in trace.asked] == [4] * REQUESTS
    finding = hit_rate(session)
    assert "Of 58 prompts the rows of the first blocks were removed" in finding.says
    assert {one["usable_blocks"]: one["hit_tokens"] for one in finding.numbers["sizes"]}[10] == HITS[10] - 2 * 64


def test_requests_come_in_the_order_in_which_they_were_queued(tmp_path: Path) -> None:
    """The fifth was admitted before the sixth and queued after it, as where vLLM passes over a request."""
    session = SessionBuilder(tmp_path)
    core = session.process("EngineCore", engine_config={**kv_world.CONFIG, "num_gpu_blocks": 6})
    kv_world.add_engine(core, 5)
    core.rows(requests.IN_ENGINE, kv_world.served(4, queued_ns=at(16.5), request="late"))
    core.rows(lookups.LOOKUPS, kv_world.look_up(4, 5, lookup=REQUESTS + 1, request="late"))
    trace = predict(opened(session)).engines[0].trace
    assert trace is not None and len(trace.asked) == REQUESTS + 1
    assert [one.queued_ns for one in trace.asked] == sorted(one.queued_ns for one in trace.asked)
    assert trace.asked[7].queued_ns == at(16.5)


# -- two engines --------------------------------------------------------------------------------------------------------


def test_two_engines_have_a_cache_each_and_are_added_up(tmp_path: Path) -> None:
    session = SessionBuilder(tmp_path)
    for index in (0, 1):
        config = {**kv_world.CONFIG, "num_gpu_blocks": 6}
        kv_world.add_engine(session.process(f"EngineCore_DP{index}", engine_index=index, engine_config=config), 5)
    finding = hit_rate(session)
    assert [engine["engine"] for engine in finding.numbers["engines"]] == [0, 1]
    sizes = {one["factor"]: one for one in finding.numbers["sizes"]}
    assert (sizes[2.0]["hit_tokens"], sizes[2.0]["asked_tokens"]) == (2 * HITS[10], 2 * ASKED)
    assert sizes[1.5]["evictions"] == 2 * EVICTIONS[7]
    assert finding.flags == ("--num-gpu-blocks-override 11",)


# -- verify -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("blocks", [7, 10])
def test_another_size_shows_what_was_predicted(tmp_path: Path, blocks: int) -> None:
    finding = hit_rate(world(tmp_path))
    after = opened(world(tmp_path, blocks=blocks, no_lookups=True))
    assert kv_cache_size.differences(finding, after) == []
    (verdict,) = kv_cache_size.verify(finding, after)
    assert verdict.holds
    assert (verdict.predicted, verdict.observed) == pytest.approx((100 * HITS[blocks] / ASKED,) * 2)
    assert verdict.high - verdict.low == pytest.approx(4)
    assert "another load" not in verdict.says


def test_a_prediction_that_does_not_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    finding = hit_rate(world(tmp_path))
    monkeypatch.setitem(kv_world.HITS, 10, HITS[10] - (REQUESTS - 2) * 2)
    monkeypatch.setattr(kv_world, "PROMPT", 66)
    (verdict,) = kv_cache_size.verify(finding, opened(world(tmp_path, blocks=10)))
    assert not verdict.holds
    assert "another load: 3,960 looked-up tokens instead of 3,900" in verdict.says


def test_the_same_size_shows_nothing(tmp_path: Path) -> None:
    finding = hit_rate(world(tmp_path))
    assert kv_cache_size.differences(finding, opened(world(tmp_path))) == [
        "the other session had 5 usable blocks as well"
    ]
    other = opened(world(tmp_path, blocks=10, config={"block_size": 32}))
    assert kv_cache_size.differences(finding, other) == ["the other session has another block size"]


def test_between_replayed_sizes() -> None:
    sizes = [(10, 0.1), (20, 0.3), (40, 0.2)]
    assert hit_rate_between(sizes, 10) == (0.1, 0.1, 0.1)
    assert hit_rate_between(sizes, 5) == (0.1, 0.0, 0.1)
    assert hit_rate_between(sizes, 15) == pytest.approx((0.2, 0.1, 0.3))
    assert hit_rate_between(sizes, 30) == pytest.approx((0.25, 0.2, 0.3))
    assert hit_rate_between(sizes, 41) == (0.2, 0.2, 0.2)


# -- use and preemptions ------------------------------------------------------------------------------------------------


def test_use_is_weighted_by_time(tmp_path: Path) -> None:
    """Nine steps in ten hold one block of ten for 0.1 s, every tenth holds nine for 0.9 s; the first has no beginning."""
    session = SessionBuilder(tmp_path)
    core = session.process("EngineCore", engine_config=kv_world.CONFIG)
    long = {"step_peak": 9, "no_requests_ns": 100_000_000}
    core.rows(kv_world.BOTH, *(kv_world.step(n, 10, **(long if n % 10 == 9 else {"step_peak": 1})) for n in range(60)))
    numbers = found(session, "kv_cache_size.use").numbers
    assert (numbers["peak_share"], numbers["p50_share"], numbers["p95_share"]) == (0.9, 0.9, 0.9)
    assert numbers["mean_share"] == pytest.approx((5.3 * 0.1 + 5.4 * 0.9) / 10.7)
    assert numbers["nearly_full_share_of_time"] == pytest.approx(5.4 / 10.7)
    assert numbers["seconds_in_use"] == pytest.approx(10.7)


def preempting(tmp_path: Path, **more: Any) -> SessionBuilder:
    """Two requests at once on nine blocks that both grow to five: the second is preempted once. Fifty such pairs."""
    session = SessionBuilder(tmp_path)
    core = session.process("EngineCore", engine_config={**kv_world.CONFIG, "num_gpu_blocks": 10})
    rows, asked, blocks = [], [], []
    for pair in range(50):
        for place in (2 * pair, 2 * pair + 1):
            asked.append(kv_world.served(place, queued_ns=at(100 * pair + 9), output_tokens=20, prompt_tokens=64))
            rows.append(
                kv_world.look_up(
                    place, 5, prompt_tokens=64, asked_tokens=64, hit_tokens=0, evicted_tokens=0, new_tokens=48,
                    last_tokens=16, short_tokens=0, median_ns=None,
                )
            )  # fmt: skip
            numbers = " ".join(f"{1 + 10 * place + n:016x}" for n in range(4))
            blocks.append(
                {"time_ns": at(1), "engine": 0, "lookup": place + 1, "request": f"r{place}", "blocks": 4, "first": 0,
                 "numbers": numbers}
            )  # fmt: skip
    steps = [
        kv_world.step(n, 5, time_ns=at(100 * pair + 10.1 + n), scheduled_ns=at(100 * pair + 10 + n), step=30 * pair + n + 1,
                      no_requests_ns=70_000_000_000 if n == 0 else 0, total_blocks=9, usable_blocks=9, step_tokens=2,
                      preemptions=pair + 1, hit_tokens=0, query_tokens=6400, allocated=700, evicted=0)
        for pair in range(50) for n in range(30)
    ]  # fmt: skip
    core.rows(kv_world.BOTH, *steps)
    core.rows(requests.IN_ENGINE, *asked)
    preempted = {"engine": 0, "event": "preempted", "reason": "no_blocks"}
    core.rows(requests.PREEMPTIONS, *({**preempted, "time_ns": at(100 * n + 20)} for n in range(50)))
    if not more.get("no_lookups"):
        core.rows(lookups.LOOKUPS, *rows)
        core.rows(lookups.BLOCKS, *blocks)
    return session


def test_preemptions_that_more_blocks_avoid(tmp_path: Path) -> None:
    """Each grows to 84 tokens, hence five blocks at first and six at last: eleven blocks hold both, nine do not."""
    finding = found(preempting(tmp_path), "kv_cache_size.preemptions")
    assert (finding.numbers["recorded"], finding.numbers["replayed"]) == (50, 50)
    assert finding.numbers["blocks"] == 13 and finding.numbers["left"] == 0
    assert finding.level == ACT and finding.flags == ("--num-gpu-blocks-override 14",)
    (gain,) = finding.gains
    assert (gain.now, gain.expected, gain.low, gain.high) == (50, 0, 0, 5)
    assert "about 0" in finding.title


def test_preemptions_without_look_ups_have_the_widest_range(tmp_path: Path) -> None:
    finding = found(preempting(tmp_path, no_lookups=True), "kv_cache_size.preemptions")
    assert (finding.level, finding.flags, finding.gains) == (LOOK, (), ())
    assert "between none and all of them" in finding.says


def test_no_preemption_no_finding(tmp_path: Path) -> None:
    assert "kv_cache_size.preemptions" not in [one.name for one in kv_cache_size.advise(opened(world(tmp_path)))]


# -- memory and flags ---------------------------------------------------------------------------------------------------


def memory(bytes_per_block: int | None = 1 << 20, gib: int | None = 80, **config: Any) -> Memory:
    return Memory({**kv_world.CONFIG, **config}, bytes_per_block, gib and gib << 30)


def test_flags_for_more_blocks() -> None:
    assert command_lines(memory(), 8192, 4096) == [
        "--gpu-memory-utilization 0.95", "--num-gpu-blocks-override 8193", "--kv-cache-dtype fp8",
    ]  # fmt: skip
    assert command_lines(memory(), 40_960, 4096) == ["--num-gpu-blocks-override 40961"]
    assert "1.35" in memory_text(memory(), 40_960, 4096)
    assert command_lines(memory(cache_dtype="fp8"), 8192, 4096)[-1] == "--num-gpu-blocks-override 8193"
    assert command_lines(memory(dtype="torch.float32"), 8192, 4096)[-1] == "--num-gpu-blocks-override 8193"
    assert command_lines(memory(device="cpu", gib=None), 8192, 4096) == ["--num-gpu-blocks-override 8193"]
    overridden = memory(num_gpu_blocks_override=4097)
    assert command_lines(overridden, 8192, 4096) == [
        "--num-gpu-blocks-override 8193", "--kv-cache-dtype fp8 --num-gpu-blocks-override 8193",
    ]  # fmt: skip
    assert "has no say" in memory_text(overridden, 8192, 4096)


def test_flags_for_fewer_blocks() -> None:
    assert command_lines(memory(), 2048, 4096) == ["--gpu-memory-utilization 0.88", "--num-gpu-blocks-override 2049"]
    assert "2 GiB less" in memory_text(memory(), 2048, 4096)


def test_every_flag_can_be_given_to_a_shell() -> None:
    for line in command_lines(memory(num_gpu_blocks_override=4097), 8192, 4096):
        assert all(word.startswith("--") or word[0].isalnum() for word in shlex.split(line))


@pytest.mark.parametrize(
    ("facts", "known"),
    [
        ({}, False),
        ({"kv_layers": [{"kind": "attention", "layers": 4, "bytes": 256.0, "window": 4096}]}, False),
        ({"kv_layers": [*kv_world.DEVICE["kv_layers"], {"kind": "state", "layers": 1, "bytes": 9.0}]}, False),
        (kv_world.DEVICE, True),
    ],
)
def test_the_size_of_a_block_is_said_for_one_kind_of_layer(tmp_path: Path, facts: dict[str, Any], known: bool) -> None:
    assert (hit_rate(world(tmp_path, worker=facts)).numbers["bytes_per_block"] is not None) == known


# -- prefix caching -----------------------------------------------------------------------------------------------------


def test_evicted_prefixes_and_what_a_larger_cache_keeps(tmp_path: Path) -> None:
    finding = found(world(tmp_path), "prefix_caching.evicted")
    assert finding.numbers["evicted_tokens"] == (REQUESTS - 2) * 64
    assert finding.numbers["seconds_before"]["p50"] == 0.5
    gains = {gain.quantity: gain for gain in finding.gains}
    assert gains["tokens found, 2 times the blocks"].expected == HITS[10]
    assert gains["tokens found, 1.5 times the blocks"].expected == HITS[7]
    assert finding.level == LOOK and f"2 times the blocks would find {HITS[10]:,} tokens more" in finding.says


def test_reasons_add_up(tmp_path: Path) -> None:
    finding = found(world(tmp_path), "prefix_caching.reasons")
    assert finding.numbers["hit_tokens"] + sum(finding.numbers["missed"].values()) == ASKED
    assert "evicted 95.2 %" in finding.says


def test_resets_and_skipped_look_ups(tmp_path: Path) -> None:
    session = world(
        tmp_path, evicted_tokens=0, reset_tokens=32, off_tokens=32, cache_off="prompt_logprobs", new_tokens=0
    )
    assert found(session, "prefix_caching.resets").numbers["reset_tokens"] == 32 * REQUESTS
    skipped = found(session, "prefix_caching.skipped")
    assert skipped.numbers["reasons"] == {"prompt_logprobs": [REQUESTS, 32 * REQUESTS]}
    assert "60 requests (1,920 tokens) since they ask for prompt_logprobs" in skipped.says


def test_a_server_without_prefix_caching_whose_prompts_share_prefixes(tmp_path: Path) -> None:
    session = world(tmp_path, blocks=10, config={"enable_prefix_caching": False}, cache_off="server", hit_tokens=0)
    (finding,) = prefix_caching.advise(opened(session))
    assert (finding.level, finding.flags) == (ACT, ("--enable-prefix-caching",))
    assert (finding.numbers["would_find"], finding.numbers["asked_tokens"]) == (HITS[10], ASKED)


def test_a_server_without_prefix_caching_and_without_hashes(tmp_path: Path) -> None:
    session = world(tmp_path, config={"enable_prefix_caching": False}, no_lookups=True)
    (finding,) = prefix_caching.advise(opened(session))
    assert finding.level == THIN and "--enable-prefix-caching" in finding.to_be_sure


def test_without_the_tracker_the_reasons_are_not_known(tmp_path: Path) -> None:
    (finding,) = prefix_caching.advise(opened(world(tmp_path, no_lookups=True)))
    assert finding.level == THIN and "PROFILEMATE_TRACKERS=default,prefix_lookups" in finding.says


def ends(tmp_path: Path, prompt_tokens: int, hit_tokens: int) -> Finding:
    """Blocks of 32 tokens, the first four of which every prompt has; all that was ever there is found."""
    session = SessionBuilder(tmp_path)
    core = session.process("EngineCore", engine_config={**kv_world.CONFIG, "num_gpu_blocks": 101, "block_size": 32})
    core.rows(kv_world.BOTH, *(kv_world.step(n, 10, total_blocks=100, usable_blocks=100) for n in range(REQUESTS)))
    core.rows(requests.IN_ENGINE, *(kv_world.served(n, prompt_tokens=prompt_tokens) for n in range(REQUESTS)))
    whole = prompt_tokens // 32
    for n in range(REQUESTS):
        hit = hit_tokens if n else 0
        short = prompt_tokens % 32
        row = kv_world.look_up(
            n, 5, prompt_tokens=prompt_tokens, blocks=whole, asked_tokens=prompt_tokens, hit_tokens=hit, evicted_tokens=0,
            new_tokens=prompt_tokens - hit - short, short_tokens=short, median_ns=None,
        )  # fmt: skip
        core.rows(lookups.LOOKUPS, row)
        numbers = [f"{place + 1:016x}" for place in range(whole)]
        core.rows(
            lookups.BLOCKS,
            {"time_ns": at(10 + n), "engine": 0, "lookup": n + 1, "request": f"r{n}", "blocks": whole, "first": n and whole,
             "parent": numbers[-1] if n else None, "numbers": "" if n else " ".join(numbers)},
        )  # fmt: skip
    return found(session, "prefix_caching.block_size")


def test_a_repeated_prompt_of_whole_blocks_surely_finds_half_a_block_more(tmp_path: Path) -> None:
    """128 tokens: 96 are found, with blocks of 16 it is 112; the first request finds nothing either way."""
    finding = ends(tmp_path, 128, 96)
    assert finding.numbers["sure_tokens"] == 16 * (REQUESTS - 1)
    assert finding.numbers["at_most_tokens"] == 16 * (REQUESTS - 1) + 16
    assert (finding.level, finding.flags) == (LOOK, ("--block-size 16",))


def test_a_short_tail_may_be_found_or_not(tmp_path: Path) -> None:
    """140 tokens: 12 behind the last block, fewer than a smaller block has; 150: 22, of which 16 may be found."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    none = ends(tmp_path / "a", 140, 128)
    assert (none.numbers["sure_tokens"], none.numbers["at_most_tokens"]) == (0, 16)
    some = ends(tmp_path / "b", 150, 128)
    assert (some.numbers["sure_tokens"], some.numbers["at_most_tokens"]) == (0, 16 * REQUESTS)


def test_blocks_of_sixteen_are_left_alone(tmp_path: Path) -> None:
    finding = found(world(tmp_path), "prefix_caching.block_size")
    assert (finding.level, finding.flags, finding.gains) == (FINE, (), ())
