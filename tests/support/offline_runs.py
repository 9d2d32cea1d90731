"""An offline `LLM` of tests/parallel/run_llm.py: what the script itself saw, and the session's files held against it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import environment
import parallel_runs as runs
import streams

SCRIPT = environment.ROOT / "tests" / "parallel" / "run_llm.py"


class Offline(NamedTuple):
    """One run. `sent` is the script's own count, `metrics` are vLLM's."""

    session: Path
    sent: dict[str, int]
    metrics: dict[str, float]
    client: str


def run(folder: Path, model: Path, prefix: Sequence[str], env: dict[str, str], **arguments: Any) -> Offline:
    """Run the script by the Python at the end of `prefix`, in a folder where no package of ours can be imported from."""
    (folder / "cwd").mkdir()
    command = [*prefix, str(SCRIPT), str(folder / "out.json"), str(model), json.dumps(arguments)]
    done = subprocess.run(
        command, env=env, cwd=folder / "cwd", capture_output=True, text=True, timeout=environment.HANGS_SECONDS,
        check=False,
    )  # fmt: skip
    log = folder / "log"
    assert done.returncode == 0, (log.read_text() if log.exists() else done.stderr)[-4000:]
    session = streams.only_session(folder / "sessions")
    streams.export(session)
    told = json.loads((folder / "out.json").read_text())
    return Offline(session, told["sent"], told["metrics"], told["client"])


def check(run: Offline) -> None:
    """Each request once, each step of the one engine once, and the prefix cache's totals as vLLM's own."""
    rows = runs.table(run.session, "request_lifecycle.csv")
    assert len(rows) == run.sent["requests"] == run.metrics["vllm:request_success"]
    for column in ("prompt_tokens", "output_tokens"):
        assert sum(int(row[column]) for row in rows) == run.sent[column] > 0
    cached = sum(int(row["cached_tokens"]) for row in rows)
    computed = run.sent["prompt_tokens"] - cached + run.sent["output_tokens"] - run.sent["requests"]
    for name in ("batch_utilization.csv", "forward_pass_timing.csv"):
        busy = [int(row["num_tokens"]) for row in runs.table(run.session, name) if row["num_tokens"] != "0"]
        assert len(busy) == run.metrics["vllm:iteration_tokens_total_count"] and sum(busy) == computed, name
    totals = runs.metadata(run.session)["summary"]["kv_cache"]
    assert totals["hit_tokens"] == run.metrics["vllm:prefix_cache_hits"] == cached > 0
    assert totals["query_tokens"] == run.metrics["vllm:prefix_cache_queries"]
    assert runs.metadata(run.session)["findings"] == []
