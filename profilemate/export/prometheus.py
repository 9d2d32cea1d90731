"""A session's samples as Prometheus text with timestamps, in the words and units of vLLM's own metrics."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from profilemate.export import retention
from profilemate.export.analysis import Analysis, analyze
from profilemate.export.atomic import replacing
from profilemate.session.errors import SessionError
from profilemate.session.records import text
from profilemate.session.session import Session
from profilemate.session.views import GraphWorker, engine_config, graph_workers
from profilemate.trackers.cuda_graphs import events as graph_events
from profilemate.trackers.cuda_graphs.tally import MAIN, newest_totals
from profilemate.trackers.kv_cache import events as kv_events
from profilemate.trackers.view import was_on

SAMPLES_PER_SERIES = 2000
CLOSEST_SAMPLES_NS = 1_000_000_000
NS_PER_MS = 1_000_000


class Metric(NamedTuple):
    """One metric of engine_steps: its column, its name, whether it counts up, its help, and what it is divided by."""

    column: str
    name: str
    is_counter: bool
    help: str
    divisor: str = ""


KV_METRICS = (
    Metric("in_use", "kv_cache_usage", False, "KV cache usage, 1 is full.", "total_blocks"),
    Metric("in_use", "kv_cache_used_blocks", False, "KV cache blocks held by requests."),
    Metric("allocated", "kv_cache_allocated_blocks", True, "KV cache blocks handed out."),
    Metric("freed", "kv_cache_freed_blocks", True, "KV cache blocks that went back to the free queue."),
    Metric("touched", "kv_cache_reused_blocks", True, "KV cache blocks re-used by a prefix hit."),
    Metric("evicted", "kv_cache_evicted_blocks", True, "KV cache blocks whose cached content was dropped."),
    Metric("failed_allocations", "kv_cache_failed_allocations", True, "Allocations that found no room."),
    Metric("preemptions", "preemptions", True, "Requests put back to waiting."),
    Metric("query_tokens", "prefix_cache_query_tokens", True, "Tokens looked up in the prefix cache."),
    Metric("hit_tokens", "prefix_cache_hit_tokens", True, "Of these, tokens found."),
    Metric("step", "engine_steps", True, "Finished engine steps."),
)


class Samples:
    """Metric families by name, in order of first use, as prometheus_client's collector interface wants them."""

    def __init__(self, library: Any, labels: dict[str, str], created_wall_ns: int) -> None:
        """`labels` are on every sample; times are counted from `created_wall_ns`."""
        self._library = library
        self._labels = labels
        self._created_wall_ns = created_wall_ns
        self._families: dict[str, Any] = {}

    def add(self, metric: Metric, labels: dict[str, str], value: float, time_ns: int) -> None:
        """One sample. The library cuts milliseconds off, so half of one is added."""
        names = [*self._labels, *labels]
        family = self._families.get(metric.name)
        if family is None:
            kind = self._library.CounterMetricFamily if metric.is_counter else self._library.GaugeMetricFamily
            family = self._families[metric.name] = kind(f"profilemate:{metric.name}", metric.help, labels=names)
        milliseconds = (self._created_wall_ns + time_ns) // NS_PER_MS
        values = [*self._labels.values(), *labels.values()]
        family.add_metric(values, value, timestamp=(milliseconds + 0.5) / 1000)

    def collect(self) -> Iterator[Any]:
        """What prometheus_client asks a collector for."""
        return iter(self._families.values())


def thinned(rows: Iterator[Any], closest_ns: int) -> Iterator[Any]:
    """Rows (time first) at least so far apart, and the last one."""
    next_ns: int | None = None
    skipped = None
    for row in rows:
        if next_ns is None or row[0] >= next_ns:
            next_ns, skipped = row[0] + closest_ns, None
            yield row
        else:
            skipped = row
    if skipped is not None:
        yield skipped


def _spacing(analysis: Analysis) -> int:
    times = [time_ns for span in analysis.result_of("kv_cache").spans for time_ns in (span.first_ns, span.last_ns)]
    return max(CLOSEST_SAMPLES_NS, (max(times) - min(times)) // SAMPLES_PER_SERIES) if times else CLOSEST_SAMPLES_NS


def _add_kv(analysis: Analysis, samples: Samples) -> None:
    columns = kv_events.STEPS.columns
    for span in analysis.result_of("kv_cache").spans:
        rows = (
            row
            for row in analysis.session.rows(span.process, kv_events.STEPS)
            if row[columns.index("engine")] == span.local_engine
        )
        for row in thinned(rows, _spacing(analysis)):
            values = dict(zip(columns, row, strict=True))
            for metric in KV_METRICS:
                value, divisor = values[metric.column], values[metric.divisor] if metric.divisor else 1
                if value is not None and divisor:
                    labels = {"engine": str(span.engine)}
                    samples.add(metric, labels, value / divisor if metric.divisor else value, span.process.at(row[0]))


REPLAYS = Metric("", "graph_replays", True, "Forward passes that replayed a CUDA graph, by runtime mode.")
FORWARDS = Metric("", "forward_passes", True, "Serving forward passes of the main model.")


ANY_PASS = graph_events.PASSES._replace(present="")
"""Rows of passes whether or not the graph tracker contributed to them."""


def _graph_points(session: Session, worker: GraphWorker) -> Iterator[tuple[int, int, dict[str, int]]]:
    """(time, forward passes, replays by mode), cumulative; where old rows are gone it begins with the totals."""
    columns = ("time_ns", "forward", "runtime_mode", "graphs")
    rows = session.rows(worker.process, ANY_PASS, *columns)
    block = newest_totals(session, worker.process)
    replays = {"FULL": 0, "PIECEWISE": 0}
    through = 0
    if block:
        through = block.through_forward
        for row in block.rows:
            if row[2] == MAIN and row[3] in replays and row[13]:
                replays[row[3]] += row[12] or 0
        yield block.time_ns, through, dict(replays)
    for time_ns, forward, mode, graphs in rows:
        if forward > through:
            if graphs and mode in replays:
                replays[mode] += 1
            yield time_ns, forward, replays


def _add_graphs(analysis: Analysis, samples: Samples) -> None:
    has_graphs = was_on(analysis.session, "cuda_graphs")
    for worker in graph_workers(analysis.session):
        points = ((time, count, dict(modes)) for time, count, modes in _graph_points(analysis.session, worker))
        for time_ns, forwards, replays in thinned(points, _spacing(analysis)):
            at, engine = worker.process.at(time_ns), {"engine": str(worker.engine)}
            samples.add(FORWARDS, engine, forwards, at)
            for mode, count in replays.items() if has_graphs else ():
                samples.add(REPLAYS, {**engine, "runtime_mode": mode}, count, at)


def render(session: Session) -> str:
    """The exposition. Raises SessionError where prometheus_client is not installed."""
    try:
        from prometheus_client import CollectorRegistry, generate_latest
        from prometheus_client import core as library
    except ImportError as error:
        raise SessionError("--format prometheus needs a package: pip install prometheus_client") from error
    analysis = analyze(session)
    labels = {"model_name": text(engine_config(analysis.session).get("model")), "session": session.info.session_id}
    samples = Samples(library, labels, session.info.created_wall_ns)
    _add_kv(analysis, samples)
    _add_graphs(analysis, samples)
    registry = CollectorRegistry()
    registry.register(samples)
    return generate_latest(registry).decode()


def export(session: Session, output: Path | None) -> str:
    """Format `prometheus`: to the file `output`, else returned for standard output."""
    retention.refuse_trimmed(session)
    exposition = render(session)
    if output is None:
        return exposition
    with replacing(output, is_asked_for=True) as file:
        file.write(exposition)
    return ""
