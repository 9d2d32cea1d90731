"""CUDA graphs: captured, replayed, padding, what no graph covered."""

from __future__ import annotations

from profilemate.report.model import Column, Grid, Numbers, Part
from profilemate.report.numbers import cell, count, duration, is_number, percent, share_of
from profilemate.report.sections.section import SERVER, Section
from profilemate.report.source import Source
from profilemate.session.records import items_of, table_of, text


def build(source: Source) -> Part:
    """Coverage and captures, the most replayed graphs, and those that nobody replayed."""
    graphs = source.tracker("cuda_graphs")
    if not graphs:
        return Part(lead=("CUDA graphs were not tracked in this session.",))
    passes, never = table_of(graphs.get("forward_passes")), items_of(graphs.get("never_replayed"))
    total = passes.get("total")
    return Part(
        numbers=(
            Numbers(
                "Forward passes",
                (
                    count("In all", total),
                    share_of("In a full graph", passes.get("full_graph"), total),
                    share_of("In piecewise graphs", passes.get("piecewise_graph"), total),
                    share_of("Without a graph", passes.get("no_graph"), total),
                ),
            ),
            Numbers(
                "Captures",
                (
                    count("Graphs captured", graphs.get("graphs_captured")),
                    count("Never replayed", len(never)),
                    duration("Time to capture", graphs.get("capture_seconds")),
                ),
            ),
            Numbers(
                "Padding",
                (
                    percent("Padding", graphs.get("padding_fraction"), "of the tokens in graphs"),
                    count("Tokens in graphs", graphs.get("padded_tokens"), "tokens"),
                    count("Of them padding", graphs.get("padding_tokens"), "tokens"),
                ),
            ),
        ),
        grids=tuple(grid for grid in (_top(source), _never(never)) if grid.rows),
    )


def _top(source: Source) -> Grid:
    graphs = source.tracker("cuda_graphs")
    rows = []
    for usage in map(table_of, items_of(graphs.get("top"))):
        padded, unpadded = usage.get("padded_tokens"), usage.get("unpadded_tokens")
        unused = padded - unpadded if is_number(padded) and is_number(unpadded) else None
        padding = share_of("", unused, padded).value
        share = share_of("", usage.get("replay_count"), graphs.get("replays")).value
        rows.append((text(usage.get("graph")), cell(usage.get("replay_count")), share, padding))
    columns = (Column("Graph"), Column("Replays", True), Column("Share (%)", True), Column("Padding (%)", True))
    return Grid("Most replayed graphs", columns, tuple(rows))


def _never(never: list[object]) -> Grid:
    return Grid("Captured, never replayed", (Column("Graph"),), tuple((text(graph),) for graph in never))


SECTION = Section("graphs", "CUDA graphs", SERVER, build, figures=("cuda_graphs",))
