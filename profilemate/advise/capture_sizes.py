"""Capture sizes: the ladder that pads least and leaves least without a graph, and decode batches that fall off the graphs."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from profilemate.advise.finding import ACT, FINE, LOOK, THIN, Evidence, Finding, Gain, Verdict
from profilemate.advise.graphs import reading, recount, words
from profilemate.advise.graphs.batches import BLOCKS
from profilemate.advise.graphs.costs import CostModel, cost_model
from profilemate.advise.graphs.decode_cap import decode_cap_finding, verify_decode_cap
from profilemate.advise.graphs.plan import Budget, Plan, Problem, choose_sizes, make_plan, modes_needed
from profilemate.advise.graphs.recount import Range, share
from profilemate.advise.graphs.use_finding import MIN_PASSES

if TYPE_CHECKING:
    from profilemate.advise.graphs.batches import Batches
    from profilemate.advise.graphs.reading import GraphData
    from profilemate.advise.graphs.setup import Setup
    from profilemate.frames.session import Session

TOPIC = "capture_sizes"
LADDER = f"{TOPIC}.ladder"
MOST_UNEXPLAINED = 0.02
"""Share of passes that got another graph than the rules give, above which no ladder is advised."""
WORTH_PADDING, WORTH_UNCOVERED, WORTH_TIME, WORTH_GRAPHS = 0.02, 0.01, 0.01, 0.3
"""Cuts, as shares of now, that are worth a change: of padded tokens, of passes without graph, of time; of graphs, a look."""


def advise(session: Session) -> list[Finding]:
    """The ladder within as many graphs as there are now, and the largest decode batch."""
    data = reading.read(session)
    if data.missing or data.are_off:
        return [] if data.are_off else [_thin(data, data.missing)]
    ladder = ladder_finding(session, data)
    return [ladder, *decode_cap_finding(data, ladder)]


def plan(session: Session, budget: Budget) -> Plan:
    """The ladder of a session for a budget of graphs, seconds of capture or bytes of graph memory of one engine.

    Raises SessionError for a budget that cannot be used; `advise` tells what speaks against using a session at all.
    """
    data = reading.read(session)
    return make_plan(data.setup, data.batches, _model(session, data), budget)


def ladder_finding(session: Session, data: GraphData) -> Finding:
    """What to capture, or why that cannot be said."""
    setup, batches = data.setup, data.batches
    if not setup.captures:
        return _thin(data, "no capture was recorded, so it is not known which graphs there are")
    served = Problem.of(setup, batches, CostModel("tokens", "")).passes
    count = sum(batch.passes for batch in served)
    if setup.beyond_the_rules:
        return _refused(data, f"The session has {setup.beyond_the_rules}, for which no ladder is worked out.")
    if count < MIN_PASSES:
        return _thin(data, f"only {words.passes(count)} that graphs can serve; a ladder needs {MIN_PASSES}")
    if batches.not_by_rule > MOST_UNEXPLAINED * batches.passes:
        return _refused(
            data, f"{words.of(batches.not_by_rule, batches.passes)} passes ran in another graph than the sizes alone give "
            "(LoRA, ranks that step together, encoder input), so another ladder's padding cannot be told.",
        )  # fmt: skip
    model = _model(session, data)
    return _advice(data, model, make_plan(setup, batches, model, Budget()))


def _model(session: Session, data: GraphData) -> CostModel:
    return cost_model(session, data.setup.config.get("device"), modes_needed(data.setup, data.batches))


@dataclass(frozen=True)
class Ranges:
    """Expected values under the advised ladder over resampled blocks, and with the ladder fitted to the other half."""

    padding_share: Range
    uncovered_share: Range
    time_ratio: Range | None


def _ranges(data: GraphData, model: CostModel, found: Plan) -> Ranges:
    setup, batches = data.setup, data.batches
    blocks = recount.under(batches, found.advised.ladder, found.reach)
    elsewhere = _out_of_sample(setup, batches, model)
    padding = recount.resampled(
        [one.padded_within - one.tokens_within for one in blocks], [one.padded_within for one in blocks]
    )
    uncovered = recount.resampled([one.uncovered_within for one in blocks], [one.passes_within for one in blocks])
    time = None
    if model.is_time:
        costs = [
            recount.cost_by_block(batches, one.ladder, found.reach, model) for one in (found.advised, found.present)
        ]
        time = recount.resampled(*costs)
    expected = found.advised.count
    return Ranges(
        padding.around(expected.padding_share, elsewhere.padding_share),
        uncovered.around(expected.uncovered_share, elsewhere.uncovered_share),
        time,
    )


def _out_of_sample(setup: Setup, batches: Batches, model: CostModel) -> recount.Count:
    """Each half of the blocks under the ladder that was fitted to the other half: what fitting alone makes look good."""
    halves = [
        replace(batches, groups=tuple(b for b in batches.groups if b.block % 2 == side)).merged() for side in (0, 1)
    ]
    reach = Problem.of(setup, batches, model).reach
    found = recount.Count()
    for fitted, other in (halves, halves[::-1]):
        sizes = choose_sizes(setup, Problem.of(setup, fitted, model), Budget()).advised
        found += recount.total(recount.under(other, setup.rules.ladder(sizes), reach))
    return found


def _advice(data: GraphData, model: CostModel, found: Plan) -> Finding:
    ranges = _ranges(data, model, found)
    level = _level(model, found, ranges)
    flags = (f"--cudagraph-capture-sizes {words.sizes(found.advised.sizes)}",) if level in (ACT, LOOK) else ()
    return Finding(
        topic=TOPIC,
        name=LADDER,
        level=level,
        title=words.ladder_title(level, found),
        says=words.ladder_says(data, model, found),
        evidence=_evidence(data, model),
        flags=flags,
        gains=_gains(model, found, ranges) if flags else (),
        to_be_sure=words.TO_BE_SURE,
        numbers=_numbers(data, model, found, ranges),
    )


def _level(model: CostModel, found: Plan, ranges: Ranges) -> str:
    now, then = found.present.count, found.advised.count
    covers = share(now.uncovered_within - then.uncovered_within, now.passes_within) >= WORTH_UNCOVERED
    if model.is_time and ranges.time_ratio is not None:
        cuts = ranges.time_ratio.high < 1 and 1 - share(found.advised.cost, found.present.cost) >= WORTH_TIME
    else:
        cuts = share(now.padded_within - then.padded_within, now.padded_within) >= WORTH_PADDING
        cuts = cuts and ranges.padding_share.high < now.padding_share
    if covers or cuts:
        return ACT
    saves = 1 - share(found.advised.price.graphs, found.present.price.graphs) >= WORTH_GRAPHS
    return LOOK if saves and found.advised.cost <= found.present.cost else FINE


def _gains(model: CostModel, found: Plan, ranges: Ranges) -> tuple[Gain, ...]:
    now, then = found.present, found.advised
    varied = (
        f"95 % over {recount.REPLICATES} draws of {BLOCKS} stretches of the session, and the ladder fitted to one half "
        "and counted on the other; how much one run differs from the next is not in it"
    )
    gains = [
        _exact_gain(words.PADDED, "tokens", now.count.padded, then.count.padded),
        _exact_gain(words.UNCOVERED, "passes", now.count.uncovered, then.count.uncovered),
        _share_gain(
            words.PADDING_SHARE, now.count.padding_share, then.count.padding_share, ranges.padding_share, varied
        ),
        _share_gain(
            words.UNCOVERED_SHARE, now.count.uncovered_share, then.count.uncovered_share, ranges.uncovered_share, varied
        ),
    ]
    if ranges.time_ratio is not None:
        ratios = ranges.time_ratio
        within = Range(now.cost * ratios.low / 1e9, now.cost * ratios.high / 1e9).around(then.cost / 1e9)
        how = f"{model.why}; {varied}"
        gains.append(Gain(words.TIME, "s", now.cost / 1e9, then.cost / 1e9, within.low, within.high, how))
    return tuple(gains)


def _exact_gain(quantity: str, unit: str, now: int, expected: int) -> Gain:
    how = "these passes counted again with the advised sizes: exact if the same batches come again"
    return Gain(quantity, unit, now, expected, expected, expected, how)


def _share_gain(quantity: str, now: float, expected: float, within: Range, how: str) -> Gain:
    return Gain(quantity, "%", 100 * now, 100 * expected, 100 * within.low, 100 * within.high, how)


def _evidence(data: GraphData, model: CostModel) -> tuple[Evidence, ...]:
    rows = [
        Evidence("forward_passes", data.batches.passes, "of the workers that stand for their engines"),
        Evidence("graph_captures", len(data.setup.captures), "purpose serving or lazy, owner main"),
    ]
    if model.is_time:
        rows.append(Evidence("forward_latencies", model.samples, "joined by process and forward"))
    return tuple(rows)


def _numbers(data: GraphData, model: CostModel, found: Plan, ranges: Ranges) -> dict[str, Any]:
    setup, batches = data.setup, data.batches
    return {
        "present": _choice(found.present), "advised": _choice(found.advised), "best_within_budget": _choice(found.best),
        "forced_sizes": list(found.forced), "reach_tokens": found.reach, "budget_raised": found.raised,
        "curve": [_point(one) for one in found.curve], "cost_unit": model.unit, "cost_from": model.why,
        "runner": setup.rules.runner, "query_len": setup.rules.query_len, "max_num_seqs": setup.rules.max_num_seqs,
        "max_num_batched_tokens": setup.rules.max_batched_tokens, "mixed_mode": setup.rules.mixed_mode,
        "full_decode_graphs": setup.rules.full_decode, "lora_cases": setup.rules.lora_cases, "engines": setup.engines,
        "passes": batches.passes, "passes_without_rows": batches.lost, "passes_unclear": batches.unclear,
        "passes_not_by_rule": batches.not_by_rule, "same_batches": digest(batches),
        "padding_share_range": [ranges.padding_share.low, ranges.padding_share.high],
        "uncovered_share_range": [ranges.uncovered_share.low, ranges.uncovered_share.high],
    }  # fmt: skip


def _choice(one: Any) -> dict[str, Any]:
    return {"sizes": list(one.sizes), "decode_sizes": list(one.ladder.decode), **_point(one)}


def _point(one: Any) -> dict[str, Any]:
    return {
        "num_sizes": len(one.sizes), "graphs": one.price.graphs, "capture_seconds": one.price.seconds,
        "memory_bytes": one.price.memory_bytes, "padded_tokens": one.count.padded, "padding_tokens": one.count.padding,
        "uncovered_passes": one.count.uncovered, "uncovered_within_reach": one.count.uncovered_within, "cost": one.cost,
    }  # fmt: skip


def digest(batches: Batches) -> str:
    """The same for two sessions if and only if the same batches came, in whatever order."""
    ordered = sorted(batches.multiset().items())
    return hashlib.sha256(repr(ordered).encode()).hexdigest()[:16]


def _thin(data: GraphData, why: str) -> Finding:
    return Finding(
        topic=TOPIC,
        name=LADDER,
        level=THIN,
        title="Too little to advise capture sizes",
        says=f"No ladder is advised: {why}.",
        evidence=(Evidence("forward_passes", data.batches.passes),),
        to_be_sure=f"Record a session with at least {MIN_PASSES} forward passes of the traffic that you serve.",
        numbers={"passes": data.batches.passes, "passes_needed": MIN_PASSES, "passes_without_rows": data.batches.lost},
    )


def _refused(data: GraphData, why: str) -> Finding:
    return Finding(
        topic=TOPIC,
        name=LADDER,
        level=LOOK,
        title="Capture sizes: no ladder can be worked out",
        says=why,
        evidence=(
            Evidence("forward_passes", data.batches.passes),
            Evidence("graph_captures", len(data.setup.captures)),
        ),
        numbers={"passes": data.batches.passes, "passes_not_by_rule": data.batches.not_by_rule},
    )


def verify(finding: Finding, after: Session) -> list[Verdict]:
    """Padded tokens and passes without a graph: to the unit where the same batches came again, else as shares."""
    data = reading.read(after)
    if finding.name != LADDER:
        return verify_decode_cap(finding, data)
    if data.missing or "advised" not in finding.numbers:
        return []
    bound = finding.numbers["reach_tokens"]
    seen = recount.total(recount.observed(data.batches, bound))
    graphs = finding.numbers["advised"]["graphs"]
    found = [
        words.verdict(
            finding.name,
            "graphs captured by one engine",
            "graphs",
            [graphs] * 3,
            _captured(data),
            "Descriptors of the main model.",
        )
    ]
    same = digest(data.batches) == finding.numbers["same_batches"]
    observed = {
        words.PADDED: seen.padded,
        words.UNCOVERED: seen.uncovered,
        words.PADDING_SHARE: 100 * seen.padding_share,
        words.UNCOVERED_SHARE: 100 * seen.uncovered_share,
    }
    for gain in finding.gains:
        is_exact = gain.unit != "%"
        if gain.quantity in observed and (same or not is_exact):
            found.append(
                words.verdict(
                    finding.name, gain.quantity, gain.unit, [gain.expected, gain.low, gain.high],
                    observed[gain.quantity], words.SAME_BATCHES if same else words.OTHER_BATCHES,
                )
            )  # fmt: skip
    return found


def _captured(data: GraphData) -> int:
    return len({one.descriptor for one in data.setup.first_engine})
