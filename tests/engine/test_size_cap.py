"""A session driven past its cap: replays per graph are still vLLM's own counts, and what is gone is named."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import environment
import streams
import warm

RUN_ENGINE = environment.ROOT / "tests" / "engine" / "run_engine.py"
GRAPHS = {
    "mode": 3,
    "backend": "eager",
    "cudagraph_mode": "FULL_AND_PIECEWISE",
    "cudagraph_capture_sizes": [1, 2, 4, 8, 16, 32],
}


def test_past_the_size_cap_usage_is_still_exact(tmp_path: Path, tiny_model: Path) -> None:
    env = environment.profiled(
        tmp_path / "sessions",
        environment.STANDIN,
        STANDIN_GRAPHS="1",
        VLLM_ENABLE_V1_MULTIPROCESSING="0",
        PROFILEMATE_SESSION_CAP="200000",
    )
    command = [str(RUN_ENGINE), str(tmp_path / "oracle.json"), "--model", str(tiny_model)]
    command += ["--compilation", json.dumps(GRAPHS), "--rounds", "120"]
    done = warm.run(command, env=env)
    assert done.returncode == 0, done.stderr[-2000:]
    session = streams.only_session(tmp_path / "sessions")
    export = [sys.executable, "-m", "profilemate", "export", str(session)]
    subprocess.run(
        export,
        cwd=environment.ROOT,
        env=environment.clean(),
        check=True,
        capture_output=True,
        timeout=environment.HANGS_SECONDS,
    )
    stats = json.loads((tmp_path / "oracle.json").read_text())["stats"]
    gaps = {row["table"] for row in streams.all_rows(session, "gaps") if row["reason"] == "size_cap"}
    assert "forward_passes" in gaps
    assert len(streams.all_rows(session, "forward_passes")) < len(stats)
    replays: Counter[tuple[str, int]] = Counter()
    unpadded: Counter[tuple[str, int]] = Counter()
    with (session / "cuda_graph_usage.csv").open() as file:
        for row in csv.DictReader(file):
            key = row["runtime_mode"], int(row["num_tokens"])
            replays[key] += int(row["replay_count"])
            unpadded[key] += int(row["unpadded_tokens"])
    theirs: Counter[tuple[str, int]] = Counter()
    theirs_unpadded: Counter[tuple[str, int]] = Counter()
    for mode, tokens, padded in stats:
        if mode != "NONE":
            theirs[mode, padded] += 1
            theirs_unpadded[mode, padded] += tokens
    assert +replays == theirs
    assert +unpadded == theirs_unpadded
    assert "forward_passes" in (session / "metadata.json").read_text()
    summary = json.loads((session / "forward_pass_summary.json").read_text())
    phases = [summary[phase] for phase in ("prefill", "decode", "mixed") if phase in summary]
    assert sum(phase["count"] for phase in phases) == len(stats) > sum(phase["timed"] for phase in phases) > 0
    assert sum(phase["tokens"] for phase in phases) == sum(tokens for _, tokens, _ in stats)
    assert any("times of the" in note for note in summary["notes"])
