"""The README's files about encoder and decoder, and what else the reading half shows of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

from profilemate.export.cells import milliseconds, number, seconds, word
from profilemate.session.session import Session
from profilemate.trackers.encoder_decoder.analyze import Component, EncoderSummary, analyze, passes
from profilemate.trackers.encoder_decoder.summary import encoder_lines, encoder_record, summary_file
from profilemate.trackers.view import Cells, CsvFile, TextFile, View


def _timing(session: Session, summary: EncoderSummary, counted: Counter[str]) -> Iterator[Cells]:
    for one in passes(session, summary):
        yield (
            seconds(one.time_ns), one.component, milliseconds(one.duration_ns), word(one.context), number(one.items),
            number(one.tokens), number(one.requests), one.clock, milliseconds(one.host_ns), number(one.graph_hits),
            number(one.graph_misses), number(one.step), str(one.engine),
        )  # fmt: skip


def _no_encoder(config: Mapping[str, object]) -> str:
    if config.get("is_multimodal") is False and config.get("is_encoder_decoder") is not True:
        return "the model has no encoder"
    return ""


def _of_component(name: str, component: Component) -> list[str]:
    notes = []
    if component.rows < component.passes:
        notes.append(
            f"encoder_decoder_timing.csv lacks the oldest of {component.passes} {name} passes; "
            f"their times are over the {component.rows} that it has"
        )
    if component.rows and not component.durations.count:
        notes.append(
            f"encoder_decoder_timing.csv: no {name} pass has a device time; duration_ms is empty, host_ms is the launch alone"
        )
    elif component.durations.count < component.rows:
        notes.append(
            f"encoder_decoder_timing.csv: {component.durations.count} of {component.rows} {name} passes have a device time; "
            "the shares take their mean for the others"
        )
    return notes


def _notes(summary: EncoderSummary, counted: Counter[str]) -> list[str]:
    if not summary.encoder.passes:
        return []
    notes = [*_of_component("encoder", summary.encoder), *_of_component("decoder", summary.decoder)]
    if not summary.decoder.passes:
        notes.append("encoder_decoder_timing.csv has no decoder rows: no forward pass of these workers was recorded")
    return notes


CSV_FILES = (
    CsvFile(
        "encoder_decoder_timing.csv",
        ("timestamp_sec", "component", "duration_ms", "context", "items", "tokens", "requests", "clock", "host_ms",
         "graph_hits", "graph_misses", "step", "engine"),
        _timing,
        "no request brought anything to encode", _no_encoder, is_per_event=True,
    ),
)  # fmt: skip

VIEW = View(
    "Encoder and decoder", analyze, CSV_FILES, encoder_record, encoder_lines,
    text_files=(TextFile("encoder_decoder_summary.json", summary_file),), notes=_notes,
)  # fmt: skip
