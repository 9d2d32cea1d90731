"""docs/compatibility.md, made from what is kept of each version."""

from __future__ import annotations

from typing import Any

from compat.check import COMPARED, NOT_FITTING, NOT_THERE, WORKS, static_fit, vllm_hooks
from compat.versions import VERSIONS

MARKS = {WORKS: "✓", NOT_THERE: "·", NOT_FITTING: "✗"}

HEAD = """# Which vLLM versions

`make compat` makes this page. For each version it takes the Python files of the published wheel, and

1. reads from the source text what each hook's target takes (`tools/compat/signatures.json`), and lets the code that decides in
   a server say whether the hook goes in: the second table. A unit test does the same without a download;
2. runs that version's own Scheduler and KVCacheManager over a trace of 40 requests and 150 blocks, its CUDAGraphWrapper, its
   BreakableCUDAGraphWrapper and the V2 runner's `run_fullgraph` over a stand-in for the graph driver, with every tracker on,
   and compares what was recorded with counts that share no code with ProfileMate: the first table.

Counts differ between versions, so each is compared with the truth of its own run. "Not told" is a count that is empty in that
version's sessions, with the truth in brackets. A version that is not here runs with whatever
hooks fit: `profilemate doctor` and every session name those that do not.

"""

DRIVEN_HEAD = "## Counts of a run, against the truth of the same run\n\n"
HOOKS_HEAD = f"""
## Hooks

✓ {WORKS}, · {NOT_THERE}, ✗ {NOT_FITTING}. A hook that another one makes needless in a version counts as working.

"""


def render(recorded: dict[str, Any], driven: dict[str, Any]) -> str:
    """The whole page."""
    return HEAD + DRIVEN_HEAD + _driven_table(driven) + HOOKS_HEAD + _hook_table(recorded)


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |\n"


def _driven_table(driven: dict[str, Any]) -> str:
    columns = [name for name in COMPARED if name != "failed_allocations"]
    head = [
        "vLLM",
        "recorded",
        *(name.replace("_", " ") for name in columns),
        "CUDAGraphWrapper",
        "breakable",
        "run_fullgraph",
    ]
    text = _row(head) + _row(["---"] * len(head))
    for version in VERSIONS:
        one = driven.get(version)
        if one is None:
            continue
        counts = [_count(one, name) for name in columns]
        verdict = "differs: " + "; ".join(one["wrong"]) if one["wrong"] else "equals the truth"
        graphs = [one["graphs"].get(name, "") for name in ("cuda_graph_wrapper", "breakable_wrapper", "run_fullgraph")]
        text += _row([version, verdict, *counts, *(NOT_THERE if graph == "absent" else graph for graph in graphs)])
    return text


def _count(one: dict[str, Any], name: str) -> str:
    if not one["truth"]:
        return ""
    count = str(one["truth"].get(name, 0))
    return f"not told ({count})" if name in one.get("untold", ()) else count


def _hook_table(recorded: dict[str, Any]) -> str:
    known = [version for version in VERSIONS if version in recorded]
    text = _row(["hook", "tracker", *known]) + _row(["---"] * (len(known) + 2))
    for hook in sorted(vllm_hooks(), key=lambda one: (one.tracker, one.name)):
        marks = [MARKS[static_fit(hook, recorded[version])[0]] for version in known]
        text += _row([f"`{hook.name}`", hook.tracker, *marks])
    return text
