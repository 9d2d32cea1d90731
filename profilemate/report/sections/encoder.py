"""Encoder passes beside decoder passes."""

from __future__ import annotations

from profilemate.report.model import Column, Grid, Part
from profilemate.report.numbers import cell
from profilemate.report.sections.section import MODEL, Section
from profilemate.report.source import Source
from profilemate.session.records import table_of


def build(source: Source) -> Part:
    """One table."""
    record = source.tracker("encoder_decoder")
    if not record:
        return Part(lead=("Encoder passes were not tracked in this session.",))
    encoder, decoder = table_of(record.get("encoder")), table_of(record.get("decoder"))
    if not encoder.get("count"):
        return Part(lead=("No encoder pass was recorded: no request brought anything to encode.",))
    rows = tuple(
        (words, *(cell(one.get(key)) for key in ("count", "timed", "total_ms", "mean_ms", "p50_ms", "p95_ms")))
        for words, one in (("Encoder", encoder), ("Decoder", decoder))
    )
    columns = (
        Column("Part"), Column("Passes", True), Column("Timed", True), Column("In all (ms)", True),
        Column("Mean (ms)", True), Column("p50 (ms)", True), Column("p95 (ms)", True),
    )  # fmt: skip
    return Part(grids=(Grid("Encoder and decoder of the same workers", columns, rows),))


SECTION = Section("encoder", "Encoder", MODEL, build)
