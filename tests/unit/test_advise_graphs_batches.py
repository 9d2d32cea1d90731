"""Which passes are uniform decodes, what a pass costs, and how a count is spread over blocks."""

from __future__ import annotations

from pathlib import Path

import pytest
from graph_sessions import captures, config, eager, full, piecewise, session_of

from profilemate.advise.graphs.batches import Observed, classify, decode_query_len, read_observed
from profilemate.advise.graphs.costs import CostModel, cost_model
from profilemate.advise.graphs.recount import BLOCKS, Range, by_block, observed, resampled, total
from profilemate.advise.graphs.rules import FULL, NONE, PIECEWISE, V1, V2, Ladder, Rules


def rules(runner: str = V1, query_len: int = 1, full_decode: bool = True) -> Rules:
    return Rules(runner, full_decode, PIECEWISE, query_len, 8, 64)


def one(tokens: int, requests: int, phase: str, mode: str, padded: int, decode_graph: bool = False) -> Observed:
    return Observed(0, tokens, requests, phase, mode, padded, decode_graph, 1)


UNIFORM = {
    "in a decode graph": (one(3, 3, "decode", FULL, 6, True), rules(), True, 0),
    "as many tokens as requests": (one(3, 3, "decode", NONE, 3), rules(), True, 0),
    "V1 does not ask for prefill": (one(1, 1, "prefill", NONE, 1), rules(), True, 0),
    "V2 does, and the graph tells": (one(1, 1, "prefill", PIECEWISE, 6), rules(V2), False, 0),
    "V2 does, and no graph could tell": (one(7, 7, "mixed", PIECEWISE, 12), rules(V2), False, 1),
    "V2, decode": (one(3, 3, "decode", PIECEWISE, 6), rules(V2), True, 0),
    "more tokens than requests": (one(4, 3, "decode", PIECEWISE, 6), rules(), False, 0),
    "no decode graphs at all": (one(3, 3, "decode", PIECEWISE, 6), rules(full_decode=False), False, 0),
    "drafts of all": (one(6, 2, "decode", FULL, 6, True), rules(query_len=3), True, 0),
    "one request with as many tokens as a decode": (one(3, 1, "prefill", NONE, 3), rules(query_len=3), True, 0),
    "the sum fits by chance, and the graph tells": (one(6, 2, "mixed", PIECEWISE, 6), rules(query_len=3), False, 0),
    "the sum fits, above all decode graphs": (one(9, 3, "mixed", PIECEWISE, 12), rules(query_len=3), False, 1),
    "a decode above all decode graphs": (one(9, 3, "decode", PIECEWISE, 12), rules(query_len=3), True, 0),
}


@pytest.mark.parametrize("case", UNIFORM)
def test_uniform_decodes(case: str) -> None:
    row, given, uniform, unclear = UNIFORM[case]
    found = classify([row], 0, given, Ladder((6,), (6, 12), PIECEWISE))
    assert [batch.uniform for batch in found.groups] == [uniform]
    assert found.unclear == unclear


def test_a_pass_is_by_rule_if_mode_and_padding_are_what_the_graphs_give() -> None:
    present = rules().ladder([6])
    rows = [
        one(3, 3, "decode", FULL, 6, True),
        one(3, 3, "decode", NONE, 3),
        one(5, 2, "mixed", NONE, 5),
        one(9, 2, "", NONE, 9),
    ]
    found = classify(rows, 0, rules(), present)
    assert [batch.by_rule for batch in found.groups] == [True, False, False, True]
    assert found.not_by_rule == 2


def test_the_query_length_is_that_of_most_decodes_not_the_longest() -> None:
    assert decode_query_len([one(6, 2, "decode", NONE, 6)] * 3 + [one(40, 1, "decode", NONE, 40)] * 2) == 3
    assert decode_query_len([one(40, 1, "prefill", NONE, 40)]) is None


def test_rows_are_counted_in_blocks_of_equal_numbers_of_passes(tmp_path: Path) -> None:
    passes = [full(8, 3)] * 30 + [piecewise(16, 9)] * 10
    rows, lost = read_observed(session_of(tmp_path, config([8, 16]), captures([8], [8, 16]), passes))
    assert lost == 0
    assert sorted((row.block, row.mode, row.passes) for row in rows) == [
        *((block, FULL, 2) for block in range(15)),
        *((block, PIECEWISE, 2) for block in range(15, 20)),
    ]


def test_sums_of_blocks_within_and_beyond_a_bound() -> None:
    present = rules().ladder([8])
    rows = [one(3, 3, "decode", FULL, 8, True), one(40, 2, "mixed", NONE, 40)]
    counts = observed(classify(rows, 0, rules(), present), 8)
    assert len(counts) == BLOCKS
    count = total(counts)
    assert (count.passes, count.tokens, count.padded, count.uncovered, count.padding) == (2, 43, 48, 1, 5)
    assert (count.passes_within, count.tokens_within, count.padded_within, count.uncovered_within) == (1, 3, 8, 0)
    assert (count.padding_share, count.uncovered_share) == (5 / 8, 0.0)


def test_another_choice_of_graph_changes_the_sums() -> None:
    batches = classify([one(3, 3, "decode", FULL, 8, True)], 0, rules(), rules().ladder([8]))
    assert total(by_block(batches, 8, lambda batch: (NONE, batch.tokens))).uncovered == 1


def test_the_range_is_narrow_where_blocks_agree_and_wide_where_they_do_not() -> None:
    even = resampled([1.0] * 20, [4.0] * 20)
    assert (even.low, even.high) == (0.25, 0.25)
    uneven = resampled([0.0] * 10 + [2.0] * 10, [4.0] * 20)
    assert 0.1 < uneven.low < 0.2 < 0.3 < uneven.high < 0.4
    assert even.around(0.1, 0.3) == Range(0.1, 0.3)
    assert resampled([0.0] * 20, [0.0] * 20) == Range(0.0, 0.0)


def test_times_are_made_non_decreasing_and_drawn_out(tmp_path: Path) -> None:
    """Medians of 100, 80 and 200 us at 2, 4 and 8: the first two become their mean, as there are as many of each."""
    passes = [full(2, 2, device_ns=100_000), full(4, 4, device_ns=80_000), full(8, 8, device_ns=200_000)] * 20
    session = session_of(tmp_path, config([2, 4, 8]), captures([2, 4, 8], [8]), passes)
    model = cost_model(session, "cuda", {FULL})
    assert model.is_time and model.samples == 60
    expected = {1: 90_000, 2: 90_000, 4: 90_000, 6: 145_000, 8: 200_000, 16: 400_000}
    assert {size: model.of(FULL, size) for size in expected} == pytest.approx(expected)
    assert not cost_model(session, "cuda", {FULL, PIECEWISE}).is_time
    assert not cost_model(session, "cpu", {FULL}).is_time


def test_one_slow_pass_does_not_count(tmp_path: Path) -> None:
    passes = [full(2, 2, device_ns=100), full(8, 8, device_ns=200)] * 40 + [full(2, 2, device_ns=10**9)]
    model = cost_model(session_of(tmp_path, config([2, 8]), captures([2, 8], [8]), passes), "cuda", {FULL})
    assert model.of(FULL, 2) == 100


def test_sizes_with_few_times_are_left_out(tmp_path: Path) -> None:
    passes = [full(2, 2, device_ns=100), full(8, 8, device_ns=200)] * 40 + [full(4, 4, device_ns=199)] * 4
    model = cost_model(session_of(tmp_path, config([2, 4, 8]), captures([2, 4, 8], [8]), passes), "cuda", {FULL})
    assert model.curves[FULL][0] == (2, 8)


def test_tokens_are_their_own_cost() -> None:
    assert CostModel("tokens", "").of(NONE, 7) == 7


def test_a_pass_without_columns_of_the_graph_tracker_is_no_row(tmp_path: Path) -> None:
    from graph_sessions import PASSES
    from session_builder import SessionBuilder, at

    import profilemate

    builder = SessionBuilder(tmp_path)
    worker = builder.process("Worker")
    worker.rows(PASSES, {"time_ns": at(1), "step": 1, "forward": 1, "runtime_mode": "NONE", "tokens": 5, "requests": 1})
    assert read_observed(profilemate.open(builder.path)) == ([], 0)


def test_eager_passes_keep_their_tokens(tmp_path: Path) -> None:
    session = session_of(tmp_path, config([8]), captures([8], [8]), [eager(100, 1, "prefill")] * 3)
    rows, _ = read_observed(session)
    assert {(row.tokens, row.padded, row.mode) for row in rows} == {(100, 100, NONE)}
