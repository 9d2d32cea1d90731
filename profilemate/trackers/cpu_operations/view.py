"""The files about CPU operations, and what else the reading half shows of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from profilemate.export.cells import milliseconds, number, seconds, word
from profilemate.session.session import Session
from profilemate.trackers.cpu_operations.analyze import Call, CpuSummary, analyze, calls_with_rows
from profilemate.trackers.cpu_operations.histogram import RELATIVE_ERROR
from profilemate.trackers.cpu_operations.operations import BY_NAME, SERIALISE
from profilemate.trackers.cpu_operations.summary import cpu_lines, cpu_record, summary_file
from profilemate.trackers.view import Cells, CsvFile, TextFile, View

TIMING_FILE = "cpu_operations_timing.csv"
SUMMARY_FILE = "cpu_timing_summary.json"
HEADER = ("timestamp_sec", "operation", "duration_ms", "context", "process", "call", "sampled_every")


def _timing(session: Session, cpu: CpuSummary, counted: Counter[str]) -> Iterator[Cells]:
    for call in calls_with_rows(session, cpu):
        counted["rows"] += 1
        every = call.process.settings.get("cpu_operation_rows_every")
        yield (
            seconds(call.time_ns), word(call.operation), milliseconds(call.duration_ns), _context(call),
            word(call.process.role), number(call.call), number(every if isinstance(every, int) else None),
        )  # fmt: skip


def _context(call: Call) -> str:
    """What the call was about: "tokens=12"; empty where it counts nothing."""
    operation = BY_NAME.get(call.operation, BY_NAME[SERIALISE])
    return f"{operation.unit}={call.amount}" if operation.unit and call.amount is not None else ""


def _notes(cpu: CpuSummary, counted: Counter[str]) -> list[str]:
    if not cpu.processes:
        return []
    rows = " and ".join(f"every {one}th call" if one else "no call" for one in cpu.rows_every) or "a sample"
    notes = [
        f"{SUMMARY_FILE}: counts, sums and extremes are of all calls up to each process's as_of_sec; percentiles are off by "
        f"at most {100 * RELATIVE_ERROR:.1f} %",
        f"{TIMING_FILE} has {rows} of each operation",
    ]
    if any(one.operation.name == "execute_model" for one in cpu.operations) and not _has(cpu, "model_launch"):
        notes.append(f"{SUMMARY_FILE}: model_launch was not seen; its time is in the own time of execute_model")
    return notes


def _has(cpu: CpuSummary, operation: str) -> bool:
    return any(one.operation.name == operation for one in cpu.operations)


CSV_FILES = (CsvFile(TIMING_FILE, HEADER, _timing, "no call of an operation has a row", is_per_event=True),)

VIEW = View(
    "CPU operations", analyze, CSV_FILES, cpu_record, cpu_lines, num_short_lines=1,
    text_files=(TextFile(SUMMARY_FILE, summary_file),), notes=_notes,
)  # fmt: skip
