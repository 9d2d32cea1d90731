"""One version: its hooks by its source text, and by running it where that was asked for."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from compat import signatures, stubs, versions
from profilemate.probe import fit
from profilemate.probe.hook import Hook, misfit
from profilemate.probe.install import is_optional

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
HANGS_SECONDS = 900

WORKS, NOT_THERE, NOT_FITTING = "works", "not in this version", "does not fit"
NEEDLESS = "absent: not needed"

COMPARED = (
    "step", "scheduled_tokens", "allocated", "evicted", "touched", "released", "freed", "peak", "failed_allocations",
    "preemptions",
)  # fmt: skip
"""Columns of the last row of engine_steps."""


def vllm_hooks() -> list[Hook]:
    """Every hook that goes into vLLM; those in torch are the same for all versions."""
    return [hook for hook in fit.all_hooks() if hook.module.startswith("vllm")]


def targets() -> list[tuple[str, str]]:
    """Modules and names that decide where hooks go."""
    hooks = vllm_hooks()
    return [(hook.module, hook.target) for hook in hooks] + [
        (hook.module, hook.unless) for hook in hooks if hook.unless
    ]


def static_fit(hook: Hook, recorded: dict[str, Any]) -> tuple[str, str]:
    """State and reason of a hook in a version by its recorded signatures, decided by the code that decides in a server."""
    reason = misfit(hook, signatures.pretend_module(hook.module, recorded))
    return state_of(hook, reason), reason


def state_of(hook: Hook, reason: str) -> str:
    """In the words of docs/compatibility.md."""
    if not reason or reason.startswith(NEEDLESS):
        return WORKS
    return NOT_THERE if reason.startswith("absent") else NOT_FITTING


def is_loss(hook: Hook, state: str) -> bool:
    """Whether something is missed that every version is expected to have."""
    return state == NOT_FITTING or (state == NOT_THERE and not is_optional(hook))


UNTOLD_WITHOUT = {"preemptions": "scheduler.preempt_request"}
"""Counts that are empty, not zero, where a version lacks what the hook is on."""


@dataclass
class Driven:
    """What running a version showed. `wrong` are sentences; empty if ours equals the truth."""

    truth: dict[str, Any] = field(default_factory=dict)
    graphs: dict[str, str] = field(default_factory=dict)
    fits: dict[str, str] = field(default_factory=dict)
    untold: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)


def drive(version: str, files: Path) -> Driven:
    """Run `drive_version.py` on a version in a process of its own, and hold its session against the truth."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:  # an export may still write into it
        folder = Path(scratch)
        out, sessions = folder / "out.json", folder / "sessions"
        done = subprocess.run(
            [sys.executable, str(HERE / "drive_version.py"), str(out)],
            env=environment(version, files, folder, sessions), cwd=folder, capture_output=True, text=True,
            timeout=HANGS_SECONDS, check=False,
        )  # fmt: skip
        if not out.exists():
            return Driven(wrong=[f"the driver ended with {done.returncode}: {done.stderr.strip()[-400:]}"])
        told = json.loads(out.read_text())
        rows = {
            name: session_rows(sessions, name) for name in ("engine_steps", "forward_passes", "graph_other_replays")
        }
    return judged(told, rows, files)


def environment(version: str, files: Path, folder: Path, sessions: Path) -> dict[str, str]:
    """Of a process that finds this version before the installed one, and ProfileMate before both."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PROFILEMATE_", "VLLM_", "PYTHONPATH"))
    }
    paths = [
        ROOT, stubs.make(folder / "stubs", version), *([files] if version != versions.installed() else []), HERE.parent,
        ROOT / "tests" / "driver", ROOT / "demo" / "standin",
    ]  # fmt: skip
    return {
        **kept, "PYTHONPATH": os.pathsep.join(map(str, paths)), "PROFILEMATE_ENABLE": "1", "PROFILEMATE_DIR": str(sessions),
        "PROFILEMATE_TRACKERS": "all", "VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1",
        "VLLM_HOST_IP": "127.0.0.1",
    }  # fmt: skip


def disagreements(recorded: dict[str, Any], fits: dict[str, str]) -> list[str]:
    """Hooks of which the source text says something else than the imported module; one that cannot be imported says nothing."""
    found = []
    for hook in vllm_hooks():
        reason = fits.get(hook.name, "not imported")
        by_text = static_fit(hook, recorded)[0]
        if not reason.startswith("not imported") and state_of(hook, reason) != by_text:
            found.append(f"{hook.name}: {by_text} by its source text, but {reason or 'it was put in'}")
    return found


def session_rows(sessions: Path, table: str) -> list[dict[str, str]]:
    """Rows of a stream, read with nothing of ProfileMate's own reader."""
    found: list[dict[str, str]] = []
    for path in sorted(sessions.glob(f"session_*/processes/*/{table}.csv")):
        with path.open(newline="") as file:
            found += csv.DictReader(file)
    return found


def judged(told: dict[str, Any], rows: dict[str, list[dict[str, str]]], files: Path) -> Driven:
    """Compare counts with the truth."""
    driven = Driven(truth=told["scheduler"] or {}, fits=told["fits"])
    if Path(told["vllm"]) != files / "vllm":
        driven.wrong.append(f"another vLLM was imported: {told['vllm']}")
    if told["scheduler_failed"]:
        driven.wrong.append(f"the scheduler could not be driven: {told['scheduler_failed']}")
    elif not rows["engine_steps"]:
        driven.wrong.append("no engine step was recorded")
    else:
        last = rows["engine_steps"][-1]
        for name in COMPARED:
            ours = last.get(name, "")
            if not ours and told["fits"].get(UNTOLD_WITHOUT.get(name, ""), "").startswith("absent"):
                driven.untold.append(name)
            elif ours != str(driven.truth.get(name, 0)):
                driven.wrong.append(f"{name}: recorded {ours or 'nothing'}, truth {driven.truth.get(name, 0)}")
    judge_graphs(driven, told, rows)
    return driven


def judge_graphs(driven: Driven, told: dict[str, Any], rows: dict[str, list[dict[str, str]]]) -> None:
    """Each holder is one forward pass in order; together they must have the replays that the graph driver saw."""
    if told["graphs_failed"]:
        driven.wrong.append(f"CUDA graphs could not be driven: {told['graphs_failed']}")
        return
    for name, one in told["graphs"].items():
        driven.graphs[name] = one["state"] or one["failed"] or f"{one['replays']} replays"
        if one["failed"]:
            driven.wrong.append(f"{name} could not be driven: {one['failed']}")
    seen = sum(int(row["graphs"] or 0) for row in [*rows["forward_passes"], *rows["graph_other_replays"]])
    truth = sum(one["replays"] for one in told["graphs"].values())
    if seen != truth:
        driven.wrong.append(f"graph replays: recorded {seen}, truth {truth}")
