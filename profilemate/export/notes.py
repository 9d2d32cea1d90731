"""Why a file is empty or a number is not whole, in sentences."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from profilemate.export.analysis import Analysis
from profilemate.session.health import SIZE_CAP
from profilemate.session.records import ProcessInfo
from profilemate.trackers.kv_cache.events import STEPS

TRACKER_TITLES = {"cuda_graphs": "CUDA graph tracking", "kv_cache": "KV cache tracking"}
TRACKER_ROLES = {"cuda_graphs": "Worker", "kv_cache": "EngineCore"}
NOTHING_HAPPENED = {
    "cuda_graph_captures.csv": "vLLM captured no CUDA graph for the main model",
    "cuda_graph_usage.csv": "no CUDA graph was captured for serving and none was replayed",
    "cuda_graph_timeline.csv": "no serving forward pass replayed a CUDA graph",
    "cuda_graph_other.csv": "no drafter, encoder or micro-batch graphs were captured or replayed",
    "kv_cache_usage.csv": "no engine step was recorded",
    "kv_cache_evictions.csv": "no cached block was evicted",
}


def empty_file_note(analysis: Analysis, name: str, tracker: str) -> str:
    """The reason that a file has no rows."""
    return f"{name} is empty: {_tracker_reason(analysis, tracker) or _configured(analysis, tracker, name)}"


def _tracker_reason(analysis: Analysis, tracker: str) -> str:
    session, title = analysis.session, TRACKER_TITLES[tracker]
    hooks = [hook for hook in analysis.health.hooks if hook.tracker == tracker]
    states = {hook.state for hook in hooks}
    chosen = session.info.settings.get("trackers")
    if "tracker_off" in states or (isinstance(chosen, list) and tracker not in chosen):
        return f"{title} was off by setting"
    if not session.processes:
        return "no vLLM process was recorded in this session"
    misfits = [hook for hook in hooks if hook.state in ("absent", "does_not_fit")]
    if misfits and "put_in" not in states:
        return f"{title} did not fit this vLLM: {misfits[0].name} ({misfits[0].reason})"
    if "switched_off" in states:
        off = next(hook for hook in hooks if hook.state == "switched_off")
        return f"hook {off.name} was switched off after failures ({off.reason})"
    role = TRACKER_ROLES[tracker]
    if not session.with_role(role):
        return f"no {'engine core' if role == 'EngineCore' else 'worker'} process was recorded"
    return ""


def _configured(analysis: Analysis, tracker: str, name: str) -> str:
    config = engine_config(analysis)
    reason = NOTHING_HAPPENED[name]
    if tracker == "cuda_graphs":
        if config.get("enforce_eager") is True:
            return f"{reason} (enforce_eager is on)"
        if str(config.get("cudagraph_mode")) == "NONE":
            return f"{reason} (cudagraph_mode is NONE)"
    if name == "kv_cache_evictions.csv" and config.get("enable_prefix_caching") is False:
        return f"{reason} (prefix caching is off)"
    return reason


def engine_config(analysis: Analysis) -> Mapping[str, object]:
    """The configuration of the first engine core, else of the first process that has one."""
    processes = [*analysis.session.with_role("EngineCore"), *analysis.session.processes]
    return next((process.engine_config for process in processes if process.engine_config), {})


def warning_notes(processes: Sequence[ProcessInfo]) -> list[str]:
    """Each warning once, with the roles of the processes that gave it; without them where all of several did."""
    roles: dict[str, list[str]] = {}
    for process in processes:
        for warning in dict.fromkeys(process.warnings):
            roles.setdefault(warning, []).append(process.role)
    return [
        warning if 1 < len(given) == len(processes) else f"{', '.join(dict.fromkeys(given))}: {warning}"
        for warning, given in roles.items()
    ]


def completeness_notes(analysis: Analysis, timeline: Counter[str]) -> list[str]:
    """What is missing or estimated, one sentence each."""
    notes = warning_notes(analysis.session.processes)
    capped = sorted({row.table for row in analysis.health.lost if row.reason == SIZE_CAP})
    if capped:
        notes.append(f"the size cap removed the oldest rows of {', '.join(capped)}; totals are exact over the session")
    failed = [row for row in analysis.health.lost if row.reason != SIZE_CAP]
    if failed:
        count, reasons = sum(row.rows for row in failed), ", ".join(sorted({row.reason for row in failed}))
        notes.append(f"{count} rows never reached the disk ({reasons}); counts made from rows lack these")
    notes += [
        f"{span.process.role}: no whole row of kv_steps, so its totals are unknown"
        for span in analysis.spans
        if span.table != STEPS.name
    ]
    if not analysis.kv.peak_is_exact:
        notes.append("several engines: KV usage and its peak are the sum of each engine's last known state")
    if timeline["cuda_event"] and timeline["without latency"]:
        notes.append(
            f"latency_sec is device time and was sampled: {timeline['cuda_event']} of {timeline['rows']} "
            "forward passes have it"
        )
    elif timeline["rows"] and timeline["without latency"]:
        notes.append("latency_sec is empty: no device time was read; host_sec is the time of the launch alone")
    return notes
