"""The files about MoE routing, and what else the reading half shows of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from profilemate.export.cells import percent, seconds
from profilemate.session.session import Session
from profilemate.trackers.moe_routing.analyze import MoeSummary, analyze, imbalance, pairs
from profilemate.trackers.moe_routing.summary import lines, moe_record, moe_summary, notes
from profilemate.trackers.view import Cells, CsvFile, TextFile, View


def _activations(session: Session, moe: MoeSummary, counted: Counter[str]) -> Iterator[Cells]:
    for total in moe.counted:
        chosen = sum(total.row.counts)
        for expert, count in enumerate(total.row.counts):
            yield (
                str(total.row.layer_idx), str(expert), str(count), percent(count, chosen), str(total.source.engine),
                str(total.source.rank),
            )  # fmt: skip


def _coselection(session: Session, moe: MoeSummary, counted: Counter[str]) -> Iterator[Cells]:
    for source, layer_idx, low, high, count in pairs(session, moe):
        yield str(layer_idx), str(low), str(high), str(count), str(source.engine), str(source.rank)


def _imbalance(session: Session, moe: MoeSummary, counted: Counter[str]) -> Iterator[Cells]:
    for point in imbalance(session, moe):
        spread = point.spread
        yield (
            str(point.layer_idx), seconds(point.time_ns), _ratio(spread.std_dev), _ratio(spread.max_min_ratio),
            _ratio(spread.max_over_mean), str(point.tokens), str(point.source.engine), str(point.source.rank),
        )  # fmt: skip


def _ratio(value: float | None) -> str:
    """Six decimals; `inf` where an expert was never chosen."""
    return "" if value is None else f"{value:.6f}"


def _notes(moe: MoeSummary, counted: Counter[str]) -> list[str]:
    return notes(moe)


CSV_FILES = (
    CsvFile(
        "moe_expert_activations.csv",
        ("layer_idx", "expert_id", "activation_count", "percentage", "engine", "rank"),
        _activations,
        "no choice of an MoE router was counted",
    ),
    CsvFile(
        "moe_expert_coselection.csv",
        ("layer_idx", "expert_id_1", "expert_id_2", "coselection_count", "engine", "rank"),
        _coselection,
        "pairs of experts are only counted with PROFILEMATE_MOE_COSELECTION=1, or none were chosen",
    ),
    CsvFile(
        "moe_load_imbalance.csv",
        ("layer_idx", "timestamp_sec", "std_dev", "max_min_ratio", "max_over_mean", "tokens", "engine", "rank"),
        _imbalance,
        "no choice of an MoE router was counted", is_per_event=True,
    ),
)  # fmt: skip

VIEW = View(
    "MoE routing", analyze, CSV_FILES, moe_record, lines, num_short_lines=2,
    text_files=(TextFile("moe_summary.json", moe_summary),), notes=_notes,
)  # fmt: skip
