"""Advice on capture sizes from sessions written by hand, against sums done by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
from graph_sessions import (
    Pass,
    add_worker,
    captures,
    config,
    decode_graph,
    eager,
    full,
    mixed_graph,
    piecewise,
    session_of,
)
from session_builder import SessionBuilder

import profilemate
from profilemate.advise import capture_sizes
from profilemate.advise.finding import ACT, FINE, LOOK, THIN, Finding
from profilemate.advise.graphs.plan import Budget
from profilemate.frames.session import Session

SIZES = [1, 2, 8, 16]
CAPTURES = captures([1, 2, 8], SIZES)


def traffic(times: int = 20) -> list[Pass]:
    """Decodes of 3 (often), 5 and 8, mixed ones of 11, and prefills above the largest size."""
    return [*[full(8, 3)] * 10, full(8, 5), full(8, 8), piecewise(16, 11), eager(100, 1, "prefill")] * times


def ladder(session: Session) -> Finding:
    return capture_sizes.advise(session)[0]


def test_the_ladder_and_its_numbers_by_hand(tmp_path: Path) -> None:
    finding = ladder(session_of(tmp_path, config(SIZES), CAPTURES, traffic()))
    assert (finding.name, finding.level) == ("capture_sizes.ladder", ACT)
    assert finding.flags == ("--cudagraph-capture-sizes 3 8 11 16",)
    gains = {gain.quantity: gain for gain in finding.gains}
    padded = gains["padded tokens of all passes"]
    assert padded.now == 20 * (12 * 8 + 16 + 100)
    assert padded.expected == padded.low == padded.high == 20 * (10 * 3 + 8 + 8 + 11 + 100)
    uncovered = gains["passes without a graph"]
    assert uncovered.now == uncovered.expected == 20
    shares = next(gain for name, gain in gains.items() if name.startswith("padding"))
    assert shares.now == pytest.approx(100 * (10 * 5 + 3 + 5) / (12 * 8 + 16))
    assert shares.expected == pytest.approx(100 * 3 / (30 + 8 + 8 + 11))
    assert shares.low <= shares.expected <= shares.high < shares.now


def test_the_range_holds_what_a_ladder_does_on_traffic_that_it_was_not_fitted_to(tmp_path: Path) -> None:
    """Stretches of 3 and of 5 by turns. Fitted to the ones, the others pad: 5 to 8 and 3 to 5."""
    passes = [full(8, tokens) for stretch in range(20) for tokens in [(3, 5)[stretch % 2]] * 13]
    finding = ladder(session_of(tmp_path, config(SIZES), CAPTURES, passes))
    shares = next(gain for gain in finding.gains if gain.quantity.startswith("padding"))
    assert (shares.low, shares.expected) == (0, 0)
    assert shares.high == pytest.approx(100 * 130 * (3 + 2) / (130 * (8 + 5)))


def test_graphs_seconds_and_memory_before_and_after(tmp_path: Path) -> None:
    """10 ms and 1 MiB per token of each graph; a size between two captured ones lies between their prices."""
    numbers = ladder(session_of(tmp_path, config(SIZES), CAPTURES, traffic())).numbers
    assert (numbers["present"]["graphs"], numbers["advised"]["graphs"]) == (7, 6)
    assert numbers["present"]["capture_seconds"] == pytest.approx(0.01 * (1 + 2 + 8 + 16 + 1 + 2 + 8))
    assert numbers["advised"]["capture_seconds"] == pytest.approx(0.01 * (3 + 8 + 11 + 16 + 3 + 8))
    assert numbers["advised"]["memory_bytes"] == pytest.approx((3 + 8 + 11 + 16 + 3 + 8) << 20)


def test_the_curve_falls_and_holds_what_is_forced(tmp_path: Path) -> None:
    curve = ladder(session_of(tmp_path, config(SIZES), CAPTURES, traffic())).numbers["curve"]
    assert [(point["num_sizes"], point["padding_tokens"]) for point in curve] == [
        (2, 20 * (50 + 3 + 5)), (3, 20 * (3 + 5)), (4, 20 * 3), (5, 0),
    ]  # fmt: skip


def test_a_budget_of_seconds_or_bytes_is_kept(tmp_path: Path) -> None:
    session = session_of(tmp_path, config(SIZES), CAPTURES, traffic())
    for budget in (Budget(seconds=0.4), Budget(memory_bytes=40 << 20)):
        plan = capture_sizes.plan(session, budget)
        assert plan.advised.sizes == (3, 8, 16)
        assert plan.advised.price.seconds == pytest.approx(0.01 * (3 + 8 + 16 + 3 + 8))


def test_fewer_graphs_than_now_are_advised_on_request_at_their_price(tmp_path: Path) -> None:
    """Three graphs of sizes 8 and 16 (8 has two modes, 16 the mixed one): decodes of 3 run at 8 as they do now."""
    session = session_of(tmp_path, config(SIZES), CAPTURES, traffic())
    finding = capture_sizes.advise(session, Budget(graphs=3))[0]
    assert finding.flags == ("--cudagraph-capture-sizes 8 16",)
    assert finding.level == LOOK and finding.title.startswith("Capture sizes within 3 graphs: padding ")
    assert next(gain for gain in finding.gains if gain.unit == "tokens").expected == 20 * (12 * 8 + 16 + 100)


def test_the_range_under_a_budget_is_of_ladders_within_it(tmp_path: Path) -> None:
    """Stretches of 3 and of 5 by turns; three graphs leave 8 and 16 alone, whichever half they are fitted to."""
    passes = [full(8, tokens) for stretch in range(20) for tokens in [(3, 5)[stretch % 2]] * 13]
    finding = capture_sizes.advise(session_of(tmp_path, config(SIZES), CAPTURES, passes), Budget(graphs=3))[0]
    shares = next(gain for gain in finding.gains if gain.quantity.startswith("padding"))
    assert shares.expected == pytest.approx(50)
    assert shares.low > 42, "with as many graphs as now it would be 5 of 13"


def test_a_budget_below_what_decode_batches_need_is_raised_and_said_to_be(tmp_path: Path) -> None:
    finding = capture_sizes.advise(session_of(tmp_path, config(SIZES), CAPTURES, traffic()), Budget(graphs=1))[0]
    assert finding.numbers["advised"]["graphs"] == 3
    assert "That is more than the budget of 1 graph" in finding.says


@pytest.mark.parametrize(("times", "level"), [(15, THIN), (16, ACT)])
def test_below_the_minimum_of_passes_nothing_is_advised(tmp_path: Path, times: int, level: str) -> None:
    """13 passes of each round count: 195 and 208."""
    finding = ladder(session_of(tmp_path, config(SIZES), CAPTURES, traffic(times)))
    assert finding.level == level
    assert bool(finding.flags) == (level == ACT)
    assert (f"only {195} forward passes" in finding.says) == (level == THIN)


def test_mixed_batches_do_not_count_where_only_decodes_have_graphs(tmp_path: Path) -> None:
    """100 decodes and 300 mixed batches that no size serves under FULL_DECODE_ONLY."""
    settings = config(SIZES, cudagraph_mode="FULL_DECODE_ONLY")
    passes = [full(8, 3), *[eager(5, 2)] * 3] * 100
    finding = ladder(session_of(tmp_path, settings, captures([1, 2, 8], []), passes))
    assert (finding.level, "only 100 forward passes" in finding.says) == (THIN, True)
    more = ladder(session_of(tmp_path / "more", settings, captures([1, 2, 8], []), passes * 2))
    assert more.flags == ("--cudagraph-capture-sizes 3 8",)
    assert more.gains[1].expected == 600


def test_a_ladder_that_fits_is_left_alone(tmp_path: Path) -> None:
    passes = [full(8, 8), full(2, 2), piecewise(16, 16)] * 100
    finding = ladder(session_of(tmp_path, config([2, 8, 16]), captures([2, 8], [2, 8, 16]), passes))
    assert (finding.level, finding.flags, finding.gains) == (FINE, (), ())


def test_far_fewer_graphs_for_the_same_are_worth_a_look(tmp_path: Path) -> None:
    sizes = [1, 2, 3, 4, 5, 6, 7, 8, 16]
    finding = ladder(session_of(tmp_path, config(sizes), captures(sizes[:-1], sizes), [full(8, 8)] * 300))
    assert (finding.level, finding.flags) == (LOOK, ("--cudagraph-capture-sizes 8 16",))
    assert finding.title == "3 graphs would do what 17 do"


def test_passes_that_the_sizes_do_not_explain_stay_as_they_were(tmp_path: Path) -> None:
    """A decode of 3 without a graph, though one fits: adapters, ranks, encoder input. No ladder changes that."""
    odd = [eager(3, 3, "decode")] * 4
    numbers = ladder(session_of(tmp_path, config(SIZES), CAPTURES, traffic() + odd)).numbers
    assert numbers["passes_not_by_rule"] == 4
    assert numbers["advised"]["uncovered_passes"] == 20 + 4


def test_where_many_are_not_explained_nothing_is_advised(tmp_path: Path) -> None:
    odd = [eager(3, 3, "decode")] * 20
    finding = ladder(session_of(tmp_path, config(SIZES), CAPTURES, traffic() + odd))
    assert (finding.level, finding.flags) == (LOOK, ())
    assert "20 of 300" in finding.says


def test_micro_batch_graphs_are_beyond_the_rules(tmp_path: Path) -> None:
    rows = [*CAPTURES, decode_graph(8, num_ubatches=2)]
    finding = ladder(session_of(tmp_path, config(SIZES), rows, traffic()))
    assert (finding.level, finding.flags) == (LOOK, ())
    assert "micro-batches" in finding.says


def test_no_capture_recorded_is_said(tmp_path: Path) -> None:
    finding = ladder(session_of(tmp_path, config(SIZES), [], traffic()))
    assert (finding.level, "no capture was recorded" in finding.says) == (THIN, True)


def test_a_server_without_graphs_gets_no_ladder(tmp_path: Path) -> None:
    session = session_of(tmp_path, config([], cudagraph_mode="NONE"), [], [eager(3, 3, "decode")] * 300)
    assert capture_sizes.advise(session) == []


def test_engines_are_added_up_and_ranks_are_not(tmp_path: Path) -> None:
    builder = SessionBuilder(tmp_path)
    for engine in (0, 1):
        for rank in (0, 1):
            add_worker(
                builder, config(SIZES), CAPTURES, traffic(10), ranks={"dp": engine, "tp": rank}, engine_index=engine
            )
    numbers = ladder(profilemate.open(builder.path)).numbers
    assert (numbers["engines"], numbers["passes"]) == (2, 2 * 14 * 10)
    assert numbers["present"]["graphs"] == 7
    assert numbers["present"]["capture_seconds"] == pytest.approx(0.38)


def test_each_lora_case_has_graphs_of_its_own(tmp_path: Path) -> None:
    with_adapters = [{**row, "has_lora": True, "num_active_loras": 3} for row in CAPTURES]
    numbers = ladder(session_of(tmp_path, config(SIZES), CAPTURES + with_adapters, traffic())).numbers
    assert (numbers["lora_cases"], numbers["present"]["graphs"], numbers["advised"]["graphs"]) == (2, 14, 12)
    assert numbers["present"]["capture_seconds"] == pytest.approx(2 * 0.38)
    assert numbers["advised"]["sizes"] == [3, 8, 11, 16]


def test_speculative_decoding_advises_multiples_of_the_query_length(tmp_path: Path) -> None:
    """3 tokens per request; V1 rounds sizes to multiples of 3, so no other is advised, and mixed ones pad to them too."""
    settings = config([3, 12, 24, 48], max_num_batched_tokens=100)
    rows = captures([3, 12, 24], [3, 12, 24, 48], query_len=3)
    passes = [full(12, 9, query_len=3), piecewise(48, 31)] * 150
    finding = ladder(session_of(tmp_path, settings, rows, passes))
    assert finding.numbers["query_len"] == 3
    assert finding.flags == ("--cudagraph-capture-sizes 9 24 33 48",)
    assert finding.gains[0].expected == 150 * (9 + 33)


def test_times_of_the_device_decide_where_there_are_enough(tmp_path: Path) -> None:
    """Graphs of 1 to 8 take the same time, so that padding decodes costs nothing; a PIECEWISE one takes 100 us a token."""
    flat, steep = 5_000_000, 100_000
    rows = captures([1, 2, 4, 8], [1, 2, 4, 8, 16, 32])
    passes = [
        full(1, 1, device_ns=flat), full(4, 3, device_ns=flat), full(8, 5, device_ns=flat),
        piecewise(16, 9, device_ns=16 * steep), piecewise(32, 17, device_ns=32 * steep),
    ]  # fmt: skip
    finding = ladder(session_of(tmp_path, config([1, 2, 4, 8, 16, 32]), rows, passes * 60))
    assert finding.numbers["cost_unit"] == "ns"
    assert finding.numbers["advised"]["decode_sizes"] == [8]
    assert {9, 17} <= {n for n in finding.numbers["advised"]["sizes"]} or finding.numbers["advised"]["sizes"][-2] == 17
    time = finding.gains[-1]
    assert time.unit == "s"
    assert time.now == pytest.approx(60 * (3 * flat + 48 * steep) / 1e9)
    assert time.low <= time.expected <= time.high < time.now


@pytest.mark.parametrize(("device", "times"), [("cuda", 9), ("cpu", 60)])
def test_else_padded_tokens_decide_and_it_says_why(tmp_path: Path, device: str, times: int) -> None:
    with_times = [full(8, 3, device_ns=1000), full(2, 2, device_ns=900), piecewise(16, 11, device_ns=2000)] * times
    session = session_of(tmp_path, config(SIZES, device=device), CAPTURES, with_times + traffic())
    finding = ladder(session)
    assert finding.numbers["cost_unit"] == "tokens"
    assert ("CPU" if device == "cpu" else "fewer than 50 device times") in finding.numbers["cost_from"]


def test_rows_that_the_size_cap_removed_are_counted_as_missing(tmp_path: Path) -> None:
    from profilemate.trackers.cuda_graphs import events

    builder = SessionBuilder(tmp_path)
    worker = add_worker(builder, config(SIZES), CAPTURES, traffic())
    total = {"time_ns": 1, "through_forward": 1000, "owner": "main", "runtime_mode": "FULL", "forwards": 1000}
    worker.rows(events.TOTALS, total)
    finding = ladder(profilemate.open(builder.path))
    assert finding.numbers["passes_without_rows"] == 1000 - 280
    assert "720 passes have no row any more" in finding.says


# -- the largest decode batch -------------------------------------------------------------------------------------------


def hole(session: Session) -> Finding:
    return capture_sizes.advise(session)[1]


def test_decode_batches_above_the_largest_graph_are_a_finding_of_their_own(tmp_path: Path) -> None:
    """The costliest mistake: sizes up to 8, 40 sequences; decodes of 9 to 40 run without a graph."""
    again = eager(30, 12, "decode")  # a preempted request computed again is no decode
    passes = [full(8, 6)] * 250 + [eager(20, 20, "decode")] * 7 + [again]
    session = session_of(tmp_path, config([2, 8], max_num_seqs=40), captures([2, 8], [2, 8]), passes)
    finding = hole(session)
    assert (finding.name, finding.level) == ("capture_sizes.decode_cap", ACT)
    assert finding.title == "Decode batches of 9 to 40 requests fall off the graphs"
    assert (finding.numbers["passes_above"], finding.numbers["passes_above_without_graph"]) == (7, 7)
    assert finding.alternatives == ("--max-num-seqs 8",)
    assert ladder(session).flags == finding.flags
    assert "40" in finding.flags[0].split()
    assert ladder(session).numbers["advised"]["uncovered_passes"] == 0
    assert finding.evidence[1].rows == finding.numbers["passes_above"]


def test_the_configuration_alone_is_worth_a_look(tmp_path: Path) -> None:
    session = session_of(tmp_path, config([2, 8], max_num_seqs=40), captures([2, 8], [2, 8]), [full(8, 8)] * 20)
    finding = hole(session)
    assert (finding.level, finding.numbers["passes_above"]) == (LOOK, 0)
    assert finding.flags == ("--cudagraph-capture-sizes 2 8 16 32 40",)


def test_a_size_above_max_num_seqs_makes_no_decode_graph(tmp_path: Path) -> None:
    """1 2 4 8 by hand with max_num_seqs=6: decodes of 5 and 6 go to PIECEWISE 8."""
    rows = captures([1, 2, 4], [1, 2, 4, 8])
    passes = [full(4, 4)] * 20 + [piecewise(8, 5, 5, "decode")] * 5
    finding = hole(session_of(tmp_path, config([1, 2, 4, 8], max_num_seqs=6), rows, passes))
    assert (finding.level, finding.numbers["passes_above"]) == (ACT, 5)
    assert finding.numbers["passes_above_without_graph"] == 0
    assert finding.flags == ("--cudagraph-capture-sizes 1 2 4 6 8",)


def test_a_request_computed_again_is_no_decode_batch(tmp_path: Path) -> None:
    """After a preemption vLLM counts it as decoding, with as many tokens as it lost."""
    passes = [full(8, 8)] * 20 + [eager(153, 4, "decode")]
    assert hole(session_of(tmp_path, config(SIZES), CAPTURES, passes)).level == FINE


# -- verify -------------------------------------------------------------------------------------------------------------


def after_of(folder: Path, passes: list[Pass], sizes: list[int]) -> Session:
    decode = [size for size in sizes if size <= 8]
    return session_of(folder, config(sizes), captures(decode, sizes), passes, "session_2")


def test_the_same_batches_are_held_to_the_unit(tmp_path: Path) -> None:
    finding = ladder(session_of(tmp_path, config(SIZES), CAPTURES, traffic()))
    came = [eager(100, 1, "prefill"), piecewise(11, 11), full(8, 8), full(8, 5), *[full(3, 3)] * 10] * 20
    verdicts = capture_sizes.verify(finding, after_of(tmp_path, came, [3, 8, 11, 16]))
    assert [verdict.holds for verdict in verdicts] == [True] * 5
    assert verdicts[1].observed == 20 * (30 + 8 + 8 + 11 + 100)


def test_the_same_batches_on_other_graphs_do_not_hold(tmp_path: Path) -> None:
    finding = ladder(session_of(tmp_path, config(SIZES), CAPTURES, traffic()))
    verdicts = capture_sizes.verify(finding, session_of(tmp_path, config(SIZES), CAPTURES, traffic(), "session_2"))
    assert {verdict.quantity: verdict.holds for verdict in verdicts} == {
        "graphs captured by one engine": False,
        "padded tokens of all passes": False,
        "passes without a graph": True,
        "padding, share of the padded tokens of passes that the sizes reach": False,
        "passes without a graph, share of the passes that the sizes reach": True,
    }


def test_other_batches_are_held_to_shares(tmp_path: Path) -> None:
    finding = ladder(session_of(tmp_path, config(SIZES), CAPTURES, traffic()))
    came = [piecewise(11, 11), full(8, 8), full(8, 5), *[full(3, 3)] * 11] * 20
    verdicts = capture_sizes.verify(finding, after_of(tmp_path, came, [3, 8, 11, 16]))
    assert [verdict.unit for verdict in verdicts] == ["graphs", "%", "%"]
    elsewhere = capture_sizes.verify(finding, after_of(tmp_path / "e", [piecewise(16, 12)] * 300, [3, 8, 11, 16]))
    assert [verdict.holds for verdict in elsewhere] == [True, False, True]


def test_graphs_that_were_not_captured_are_noticed(tmp_path: Path) -> None:
    finding = ladder(session_of(tmp_path, config(SIZES), CAPTURES, traffic()))
    after = session_of(tmp_path, config([3, 8, 11, 16]), [mixed_graph(16)], [piecewise(16, 11)] * 300, "session_2")
    assert not capture_sizes.verify(finding, after)[0].holds
