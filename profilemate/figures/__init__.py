"""Figures of a session, one module per subject; the report, `profilemate plot` and notebooks draw the same ones."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from profilemate.figures.figure import Figure, NoFigure
from profilemate.frames.packages import load
from profilemate.session.errors import SessionError

if TYPE_CHECKING:
    from profilemate.frames.session import Session

SECTIONS = (
    "overview",
    "kv_cache",
    "cuda_graphs",
    "engine_steps",
    "requests",
    "preemptions",
    "moe",
    "bandwidth",
    "own_cost",
)
"""What the figures are about, in the order in which a report shows them."""

PACKAGES = ("altair", "polars")


@dataclass(frozen=True)
class Entry:
    """A figure that can be drawn. `module` is the one of this folder that has a function of the figure's name.

    `trackers` are those it needs, all of them; `shows` is a line for lists.
    """

    name: str
    title: str
    section: str
    module: str
    trackers: tuple[str, ...]
    shows: str


def _entry(section: str, module: str, trackers: str, name: str, title: str, shows: str) -> Entry:
    return Entry(name, title, section, module, tuple(trackers.split()), shows)


FIGURES: tuple[Entry, ...] = (
    _entry("overview", "throughput", "engine_steps", "throughput", "Tokens per second",
           "tokens of prefill and of decode that the engine ran, per second"),
    _entry("kv_cache", "kv_usage", "kv_cache", "kv_usage", "KV cache blocks over time",
           "blocks in use, cached and free, and empty; the highest use"),
    _entry("kv_cache", "kv_usage", "kv_cache", "kv_usage_by_engine", "KV cache use of each engine",
           "share of its blocks that each engine has in use, where there are several"),
    _entry("kv_cache", "evictions", "kv_cache", "kv_evictions", "Evicted blocks over time",
           "cached blocks whose content was dropped, by cause"),
    _entry("kv_cache", "evictions", "kv_cache", "kv_eviction_ages", "Lifetime and idle time of evicted blocks",
           "how long evicted blocks had lived, and how long nobody had used them"),
    _entry("kv_cache", "prefix_cache", "kv_cache", "prefix_hit_rate", "Prefix-cache hit rate over time",
           "share of the looked-up prompt tokens that the prefix cache had"),
    _entry("kv_cache", "prefix_cache", "prefix_lookups", "prefix_misses", "Why prompt tokens were not in the cache",
           "prompt tokens by what became of their look-up: hit, or missed and why"),
    _entry("cuda_graphs", "graph_ladder", "cuda_graphs", "graph_ladder", "CUDA graph sizes: asked, captured, used",
           "sizes that were configured, captured and replayed, side by side"),
    _entry("cuda_graphs", "graph_padding", "cuda_graphs", "graph_padding", "Replays and padding of each graph",
           "tokens and padding that went through each captured graph"),
    _entry("cuda_graphs", "graph_coverage", "cuda_graphs", "graph_coverage", "Forward passes with and without a graph",
           "passes, tokens and time by FULL graph, PIECEWISE graph and no graph"),
    _entry("cuda_graphs", "graph_coverage", "cuda_graphs", "graph_uncovered", "Forward passes that no graph covered",
           "passes without a graph: how many and how long, by size"),
    _entry("cuda_graphs", "forward_time", "forward_passes cuda_graphs", "forward_time",
           "Time of a forward pass by batch size",
           "time of a pass by scheduled tokens and graph mode; its steps are the cost of padding"),
    _entry("engine_steps", "steps", "engine_steps", "step_phases", "Engine time by what the batch held",
           "share of the engine's time in prefill, decode and mixed steps, and without requests"),
    _entry("engine_steps", "steps", "engine_steps", "step_limits", "What bound the engine steps",
           "share of the steps bound by the token budget, the sequence cap, KV space and so on"),
    _entry("engine_steps", "steps", "engine_steps", "step_queue", "Requests running and waiting",
           "lengths of the running and waiting queues, and what scheduling passed over"),
    _entry("engine_steps", "steps", "engine_steps", "step_time_split", "Where an engine step's time goes",
           "share of the engine's time in scheduling, the model, update and between steps"),
    _entry("requests", "request_times", "requests", "request_waterfall", "The slowest requests",
           "queue, prefill, decode, preempted and rest of the slowest requests"),
    _entry("requests", "request_latency", "requests", "ttft", "Time to first token",
           "distribution of the time to first token, with the 50th, 95th and 99th percentile"),
    _entry("requests", "request_latency", "requests", "tpot", "Time per output token",
           "distribution of the time per output token, with the 50th, 95th and 99th percentile"),
    _entry("preemptions", "preemptions", "requests", "preemptions", "Preemptions over time",
           "preempted requests by reason"),
    _entry("preemptions", "preemptions", "requests", "preemption_cost", "Tokens lost to preemptions",
           "lost tokens: found again in the prefix cache, computed again, or never needed again"),
    _entry("moe", "moe", "moe_routing", "moe_load", "Load of the experts",
           "how often each expert of each layer was chosen, against an even share"),
    _entry("moe", "moe", "moe_routing", "moe_imbalance", "Imbalance of the experts over time",
           "load of the busiest expert over the mean, of the layers"),
    _entry("bandwidth", "bandwidth", "bandwidth", "memory_bandwidth", "Memory bandwidth of the forward passes",
           "estimated bytes read per second, by prefill, decode and mixed, and their share of the peak"),
    _entry("bandwidth", "bandwidth", "bandwidth", "compute_rate", "Arithmetic of the forward passes",
           "estimated operations per second, by prefill, decode and mixed, and their share of the peak"),
    _entry("own_cost", "own_cost", "", "own_cost_by_process", "ProfileMate's own time by process",
           "time in ProfileMate's code and its share of the run"),
    _entry("own_cost", "own_cost", "", "own_cost_by_hook", "ProfileMate's own time by hook",
           "the hooks that cost most"),
    _entry("own_cost", "hook_health", "", "hook_health", "Health of the hooks",
           "state of every hook in every process"),
)  # fmt: skip
"""Every figure, in the order in which a report shows them."""

PLOT_ONLY: tuple[Entry, ...] = (
    _entry("kv_cache", "kv_usage_file", "kv_cache", "kv_usage_percent", "KV cache use",
           "usage_pct over timestamp_sec of kv_cache_usage.csv, which a report shows as blocks"),
)  # fmt: skip
"""Figures of one of the README's files as it stands, for `profilemate plot`."""

BY_NAME = {entry.name: entry for entry in (*FIGURES, *PLOT_ONLY)}


def draw(session: Session, name: str) -> Figure | NoFigure:
    """One figure of a session. What keeps it from being drawn is said in a sentence.

    Raises SessionError for a name that is none of BY_NAME, and where a package is missing.
    """
    entry = BY_NAME.get(name)
    if entry is None:
        raise SessionError(f"there is no figure {name!r}; there are {', '.join(BY_NAME)}")
    for package in PACKAGES:
        load(package)
    from profilemate.figures.source import Missing, require

    try:
        for tracker in entry.trackers:
            require(session, tracker)
        module: Any = import_module(f"profilemate.figures.{entry.module}")
        drawn = getattr(module, name)(session)
    except Missing as missing:
        return NoFigure(name, entry.title, str(missing))
    except SessionError as error:
        return NoFigure(name, entry.title, f"it cannot be drawn: {error}")
    except Exception as error:
        return NoFigure(name, entry.title, unexpected(error))
    return Figure(name, entry.title, drawn.says, drawn.chart, drawn.note)


def unexpected(error: Exception) -> str:
    """What went wrong, for an issue; a figure that fails takes no other with it."""
    return f"drawing it failed, which is a fault of ProfileMate: {one_line(error)}"


def one_line(error: Exception) -> str:
    """The kind of an error and the first line of what it says."""
    lines = str(error).strip().splitlines()
    what = lines[0][:200] if lines else ""
    return f"{type(error).__name__}{': ' if what else ''}{what}"
