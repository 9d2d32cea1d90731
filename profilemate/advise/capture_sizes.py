"""Capture sizes: the ladder that pads least and leaves least without a graph, and decode batches that fall off the graphs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from profilemate.advise.finding import ACT, FINE, LOOK, THIN, Evidence, Finding, Verdict
from profilemate.advise.graphs import reading, recount, words
from profilemate.advise.graphs.costs import CostModel, cost_model
from profilemate.advise.graphs.decode_cap import decode_cap_finding, verify_decode_cap
from profilemate.advise.graphs.ladder_gains import Ranges, gains_of, ranges_of
from profilemate.advise.graphs.ladder_numbers import digest, numbers_of
from profilemate.advise.graphs.plan import Budget, Plan, Problem, make_plan, modes_needed
from profilemate.advise.graphs.recount import share
from profilemate.advise.graphs.use_finding import MIN_PASSES

if TYPE_CHECKING:
    from profilemate.advise.graphs.reading import GraphData
    from profilemate.frames.session import Session

TOPIC = "capture_sizes"
LADDER = f"{TOPIC}.ladder"
AS_MANY_AS_NOW = Budget()
MOST_UNEXPLAINED = 0.02
"""Share of passes that got another graph than the rules give, above which no ladder is advised."""
WORTH_PADDING, WORTH_UNCOVERED, WORTH_TIME, WORTH_GRAPHS = 0.02, 0.01, 0.01, 0.3
"""Cuts, as shares of now, that are worth a change: of padded tokens, of passes without graph, of time; of graphs, a look."""


def advise(session: Session, budget: Budget = AS_MANY_AS_NOW) -> list[Finding]:
    """The ladder within a budget, and the largest decode batch. Raises SessionError for a budget that cannot be used."""
    data = reading.read(session)
    if data.missing or data.are_off:
        return [] if data.are_off else [_thin(data, data.missing)]
    ladder = ladder_finding(session, data, budget)
    return [ladder, *decode_cap_finding(data, ladder)]


def plan(session: Session, budget: Budget) -> Plan:
    """The ladder of a session for a budget of graphs, seconds of capture or bytes of graph memory of one engine.

    Raises SessionError for a budget that cannot be used; `advise` tells what speaks against using a session at all.
    """
    data = reading.read(session)
    return make_plan(data.setup, data.batches, _model(session, data), budget)


def ladder_finding(session: Session, data: GraphData, budget: Budget = AS_MANY_AS_NOW) -> Finding:
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
    return _advice(data, model, make_plan(setup, batches, model, budget), budget)


def _model(session: Session, data: GraphData) -> CostModel:
    return cost_model(session, data.setup.config.get("device"), modes_needed(data.setup, data.batches))


def _advice(data: GraphData, model: CostModel, found: Plan, budget: Budget) -> Finding:
    ranges = ranges_of(data, model, found, budget)
    level = _level(model, found, ranges)
    if budget.is_given and level == FINE and found.advised.sizes != found.present.sizes:
        level = LOOK
    flags = (f"--cudagraph-capture-sizes {words.sizes(found.advised.sizes)}",) if level in (ACT, LOOK) else ()
    return Finding(
        topic=TOPIC,
        name=LADDER,
        level=level,
        title=words.ladder_title(level, found, budget),
        says=words.ladder_says(data, model, found, budget),
        evidence=_evidence(data, model),
        flags=flags,
        gains=gains_of(model, found, ranges) if flags else (),
        to_be_sure=words.TO_BE_SURE,
        numbers=numbers_of(data, model, found, ranges),
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


def _evidence(data: GraphData, model: CostModel) -> tuple[Evidence, ...]:
    rows = [
        Evidence("forward_passes", data.batches.passes, "of the workers that stand for their engines"),
        Evidence("graph_captures", len(data.setup.captures), "purpose serving or lazy, owner main"),
    ]
    if model.is_time:
        rows.append(Evidence("forward_latencies", model.samples, "joined by process and forward"))
    return tuple(rows)


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
