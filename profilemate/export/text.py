"""The summary for people, from metadata.json's content: also of a session whose detail is gone."""

from __future__ import annotations

from typing import Any

from profilemate.session.records import items_of, table_of, text

NAMED = 6
WIDEST_NAME = 46
COSTLIEST = 3


def _count(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else "unknown"


def _share(part: Any, whole: Any) -> str:
    if not isinstance(part, (int, float)) or not whole:
        return "unknown"
    return f"{100 * part / whole:.1f} %"


def _seconds(value: Any) -> str:
    return f"{value:.3f} s" if isinstance(value, (int, float)) else "unknown"


def _names(items: list[Any]) -> str:
    named = ", ".join(text(item) for item in items[:NAMED])
    return named + (f" and {len(items) - NAMED} more" if len(items) > NAMED else "")


def summary_lines(record: dict[str, Any]) -> list[str]:
    """All of it, some ten to forty lines."""
    summary = table_of(record.get("summary"))
    graphs, kv = table_of(summary.get("cuda_graphs")), table_of(summary.get("kv_cache"))
    return [
        *session_lines(record),
        "",
        "CUDA graphs",
        *indented(graph_lines(graphs)),
        *indented(top_lines(graphs)),
        "",
        "KV cache",
        *indented(kv_lines(kv)),
        "",
        "Health of the recording",
        *indented(health_lines(record)),
        "",
        "Time in ProfileMate's own code, estimated from the calls that were timed",
        *indented(own_cost_lines(summary)),
    ]


def short_lines(record: dict[str, Any]) -> list[str]:
    """The most important ten lines, for the end of a run."""
    summary = table_of(record.get("summary"))
    graphs = graph_lines(table_of(summary.get("cuda_graphs")))[:3]
    kv = kv_lines(table_of(summary.get("kv_cache")))[:4]
    health = health_lines(record)
    more = [f"{len(health) - 1} more remarks: profilemate summary"] if len(health) > 2 else health[1:2]
    return [session_lines(record)[0], *indented([*graphs, *kv, *health[:1], *more])]


def indented(lines: list[str]) -> list[str]:
    """Two spaces in front."""
    return [f"  {line}" for line in lines]


def session_lines(record: dict[str, Any]) -> list[str]:
    """Which session, and its processes."""
    session = table_of(record.get("session"))
    processes = [table_of(process) for process in items_of(record.get("processes"))]
    versions = {table_of(process.get("versions")).get("vllm") for process in processes} - {None, ""}
    vllm = f", vLLM {', '.join(sorted(text(version) for version in versions))}" if versions else ""
    roles = _names([process.get("role") for process in processes]) if processes else "none recorded"
    return [
        f"{text(session.get('session_id'))}, begun {text(session.get('created'))} on {text(session.get('host'))}{vllm}",
        f"Processes: {roles}",
    ]


def graph_lines(graphs: dict[str, Any]) -> list[str]:
    """Coverage, padding and what was captured in vain."""
    passes = table_of(graphs.get("forward_passes"))
    total = passes.get("total")
    if not total and not graphs.get("graphs_captured"):
        return ["no serving forward pass and no captured graph was recorded"]
    modes = ", ".join(
        f"{name} {_count(passes.get(key))} ({_share(passes.get(key), total)})"
        for name, key in (("full graph", "full_graph"), ("piecewise", "piecewise_graph"), ("no graph", "no_graph"))
    )
    lines = [f"forward passes {_count(total)}: {modes}"]
    padded = graphs.get("padded_tokens")
    lines.append(
        f"padding: {_share(graphs.get('padding_tokens'), padded)} of {_count(padded)} tokens in replayed graphs"
        if padded
        else "padding: no graph was replayed"
    )
    never = items_of(graphs.get("never_replayed"))
    lines.append(
        f"captured {_count(graphs.get('graphs_captured'))} graphs in {_seconds(graphs.get('capture_seconds'))}, "
        f"never replayed {len(never)}"
    )
    if never:
        lines.append(
            f"never replayed: {'; '.join(text(name) for name in never[:NAMED])}"
            + (" ..." if len(never) > NAMED else "")
        )
    if graphs.get("other_replays"):
        lines.append(f"drafter, encoder and micro-batch replays: {_count(graphs.get('other_replays'))}")
    faults = table_of(passes.get("faults"))
    if faults:
        lines.append("not plain passes: " + ", ".join(f"{text(name)} {_count(n)}" for name, n in faults.items()))
    return lines + _phase_lines(items_of(graphs.get("phases")))


def _phase_lines(phases: list[Any]) -> list[str]:
    checked = [table_of(phase) for phase in phases if table_of(phase).get("unexplained") is not None]
    if not checked:
        return []
    words = ", ".join(f"{text(phase.get('phase'))} {_count(phase.get('unexplained'))}" for phase in checked)
    return [f"replays that no hook explained, by phase: {words}"]


def top_lines(graphs: dict[str, Any]) -> list[str]:
    """A table of the most replayed graphs."""
    top = [table_of(usage) for usage in items_of(graphs.get("top"))]
    if not top:
        return []
    total = graphs.get("replays")
    lines = [f"{'most replayed graphs':<{WIDEST_NAME}} {'replays':>10} {'share':>8} {'padding':>8}"]
    for usage in top:
        padded = usage.get("padded_tokens") or 0
        padding = _share(padded - (usage.get("unpadded_tokens") or 0), padded)
        count = usage.get("replay_count")
        lines.append(
            f"{text(usage.get('graph')):<{WIDEST_NAME}} {_count(count):>10} {_share(count, total):>8} {padding:>8}"
        )
    return lines


def kv_lines(kv: dict[str, Any]) -> list[str]:
    """Peak, hit rate, evictions, preemptions."""
    if kv.get("peak_blocks") is None and kv.get("blocks_in_use") is None:
        return ["no engine step was recorded"]
    exact = "" if kv.get("peak_is_exact") else ", sum of the engines' last known states"
    peak_of = f"{_count(kv.get('peak_blocks'))} of {_count(kv.get('peak_total_blocks'))} blocks"
    hits = f"{_count(kv.get('hit_tokens'))} of {_count(kv.get('query_tokens'))} tokens"
    return [
        f"peak {peak_of} ({_share(kv.get('peak_blocks'), kv.get('peak_total_blocks'))}) "
        f"at {_seconds(kv.get('peak_time_sec'))}{exact}",
        f"prefix cache hit rate {_share(kv.get('hit_tokens'), kv.get('query_tokens'))} ({hits})",
        f"evictions {_count(kv.get('evicted'))}, mean lifetime {_seconds(kv.get('mean_lifetime_sec'))}, "
        f"mean idle {_seconds(kv.get('mean_idle_sec'))}",
        f"preemptions {_count(kv.get('preemptions'))}, failed allocations {_count(kv.get('failed_allocations'))}, "
        f"prefix cache resets {_count(kv.get('resets'))}",
        f"engine steps {_count(kv.get('steps'))}; blocks allocated {_count(kv.get('allocated'))}, "
        f"re-used {_count(kv.get('touched'))}, freed {_count(kv.get('freed'))}, "
        f"in use {_count(kv.get('blocks_in_use'))} as of {_seconds(kv.get('as_of_sec'))}",
    ]


def health_lines(record: dict[str, Any]) -> list[str]:
    """Whether the numbers can be trusted, beginning with a verdict."""
    health = table_of(table_of(record.get("summary")).get("health"))
    misfits, failed = items_of(health.get("did_not_fit")), items_of(health.get("failed"))
    lost, never = items_of(health.get("lost_rows")), items_of(health.get("never_called"))
    rows = sum(table_of(row).get("rows") or 0 for row in lost)
    lines = [
        f"hooks in place {_count(health.get('hooks_in_place'))}, did not fit {len(misfits)}, failed {len(failed)}, "
        f"rows lost or removed {_count(rows)}, as of {_seconds(health.get('as_of_sec'))}"
    ]
    lines += [
        f"did not fit: {text(table_of(h).get('name'))} ({text(table_of(h).get('reason'))[:160]})" for h in misfits
    ]
    lines += [
        f"failed {_count(table_of(h).get('failures'))} times, {text(table_of(h).get('state'))}: "
        f"{text(table_of(h).get('name'))}"
        for h in failed
    ]
    lines += [f"rows missing: {_count(table_of(row).get('rows'))} of {text(table_of(row).get('table'))} "
              f"({text(table_of(row).get('reason'))})" for row in lost]  # fmt: skip
    if never:
        lines.append(f"in place but never called: {_names(never)}")
    unused = table_of(health.get("not_in_use"))
    if unused:
        lines.append(f"parts of vLLM that this run did not use: {_names(list(unused))}")
    for key in ("findings", "notes", "faults"):
        lines += [text(sentence) for sentence in items_of(record.get(key))]
    return lines


def own_cost_lines(summary: dict[str, Any]) -> list[str]:
    """Per process: the whole, its share of the run, per engine step, and the hooks that took most."""
    costs = [table_of(cost) for cost in items_of(summary.get("own_cost"))]
    return [line for cost in costs for line in _process_cost_lines(cost)] or ["not known: no process told its calls"]


def _percent(share: Any) -> str:
    return f"{100 * share:.3g} %" if isinstance(share, (int, float)) else "unknown"


def _process_cost_lines(cost: dict[str, Any]) -> list[str]:
    step = cost.get("microseconds_per_step")
    per_step = f", {step:.1f} us per engine step" if isinstance(step, (int, float)) else ""
    hooks = [table_of(hook) for hook in items_of(cost.get("hooks"))]
    lines = [
        f"{text(cost.get('role'))}: {_seconds(cost.get('seconds'))} in {_seconds(cost.get('run_seconds'))} "
        f"({_percent(cost.get('share'))}){per_step}"
    ]
    if per_step:
        lines += [
            f"  {_seconds(hook.get('seconds')):>9}  {text(hook.get('name'))}: {_count(hook.get('calls'))} calls, "
            f"{_count(hook.get('timed_calls'))} timed"
            for hook in hooks[:COSTLIEST]
        ]
    return lines


def kv_summary_lines(record: dict[str, Any]) -> list[str]:
    """kv_cache_summary.txt."""
    kv = table_of(table_of(record.get("summary")).get("kv_cache"))
    engines = [table_of(engine) for engine in items_of(kv.get("engines"))]
    lines = ["KV cache summary", session_lines(record)[0], "", *kv_lines(kv), ""]
    for key in ("total_blocks", "peak_blocks", "allocated", "touched", "touched_free", "released", "freed", "evicted",
                "timed_evictions", "failed_allocations", "preemptions", "resets", "query_requests", "query_tokens",
                "hit_tokens", "preempted_query_tokens", "preempted_hit_tokens", "operations", "steps",
                "busy_steps", "output_steps", "scheduled_tokens", "prompt_tokens"):  # fmt: skip
        lines.append(f"{key}: {kv.get(key) if kv.get(key) is not None else 'unknown'}")
    if len(engines) > 1:
        lines += [
            f"engine {engine.get('engine')}: peak {_count(engine.get('peak_blocks'))} of "
            f"{_count(engine.get('total_blocks'))} blocks, {_count(engine.get('steps'))} steps"
            for engine in engines
        ]
    return lines + [text(note) for note in items_of(record.get("notes")) if "kv_cache" in text(note)]
