"""MoE routing: which experts were chosen, how evenly."""

from __future__ import annotations

from profilemate.report.model import Column, Grid, Numbers, Part
from profilemate.report.numbers import cell, count, duration
from profilemate.report.sections.section import MODEL, Section
from profilemate.report.source import Source
from profilemate.session.records import table_of, text
from profilemate.trackers.moe_routing.summary import REASONS


def build(source: Source) -> Part:
    """How much was seen, and a table of layers."""
    moe = source.tracker("moe_routing")
    if not moe:
        return Part(lead=("Off by setting; PROFILEMATE_TRACKERS=default,moe_routing counts what the routers choose.",))
    unseen = table_of(moe.get("unseen"))
    if not moe.get("num_layers") and not unseen:
        return Part(lead=("The model has no MoE layer, or none was loaded.",))
    return Part(
        lead=tuple(
            f"{cell(layers)} layers were not seen: {REASONS.get(text(why), text(why))}." for why, layers in unseen.items()
        ),
        numbers=(
            Numbers(
                "Layers",
                (
                    count("MoE layers", moe.get("num_layers")),
                    count("Counted", moe.get("layers_counted")),
                    count("Tokens", moe.get("tokens"), "tokens"),
                    duration("As of", moe.get("as_of_sec"), "after the start"),
                ),
            ),
        ),
        grids=tuple(grid for grid in (_layers(source),) if grid.rows),
    )  # fmt: skip


def _layers(source: Source) -> Grid:
    layers = {name: table_of(one) for name, one in table_of(source.tracker("moe_routing").get("layers")).items()}
    ordered = sorted(layers.items(), key=lambda pair: -float(pair[1].get("max_over_mean") or 0))
    rows = tuple(
        (
            text(name).replace("layer_", ""), cell(one.get("num_experts")), cell(one.get("top_k")),
            cell(one.get("total_activations")), cell(one.get("max_over_mean")), cell(one.get("min_activations")),
            cell(one.get("activation_coverage_pct"), 4), cell(one.get("seen_pct"), 4),
        )
        for name, one in ordered
    )  # fmt: skip
    columns = (
        Column("Layer"), Column("Experts", True), Column("Top-k", True), Column("Choices", True),
        Column("Busiest over mean", True), Column("Fewest choices", True), Column("Experts chosen (%)", True),
        Column("Seen (%)", True),
    )  # fmt: skip
    return Grid("Layers, the most uneven first", columns, rows)


SECTION = Section("moe", "MoE routing", MODEL, build, figures=("moe",))
