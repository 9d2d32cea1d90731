"""torch.compile with vLLM's own backend and inductor: the cache key, the cached artifacts and the graphs are the same with
and without ProfileMate, by either way in."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import environment
import pytest
import streams

RUN_COMPILED = environment.ROOT / "tests" / "engine" / "run_compiled.py"

EVERYTHING_ON = {"PROFILEMATE_CHECK_REPLAYS": "1", "PROFILEMATE_DEVICE_TIMING_EVERY": "1", "PROFILEMATE_VERBOSE": "1"}
PLUGIN = {"PROFILEMATE_ENABLE": "1", **EVERYTHING_ON}


class Start(NamedTuple):
    """How one engine is started: with ProfileMate through PYTHONPATH or not, and with which cache."""

    cache: str
    on_path: bool = False
    more: dict[str, str] = {}  # noqa: RUF012


ROUNDS: tuple[dict[str, Start], ...] = (
    {"bare": Start("bare"), "plugin": Start("plugin", more=PLUGIN)},
    {"path_after_bare": Start("bare", on_path=True), "bare_after_plugin": Start("plugin")},
)
"""Two engines at a time, each with a cache of its own: the first two compile, the others load what these stored."""


class Compiled(NamedTuple):
    """What one engine said, and the cache as it left it."""

    result: dict[str, Any]
    log: str
    cache: frozenset[str]
    key_factors: list[dict[str, Any]]
    graphs: list[str]
    sessions: Path

    @property
    def counts(self) -> dict[str, int]:
        """VLLM's own counter of compilations."""
        return dict(self.result["compilation"])


def begin(folder: Path, name: str, start: Start, model: Path) -> subprocess.Popen[str]:
    environ = environment.vllm(
        STANDIN_GRAPHS="1",
        VLLM_ENABLE_V1_MULTIPROCESSING="0",
        VLLM_CACHE_ROOT=str(folder / f"cache_{start.cache}"),
        PROFILEMATE_DIR=str(folder / f"sessions_{name}"),
        **start.more,
    )
    path = [environment.ROOT, environment.STANDIN] if start.on_path else [environment.STANDIN]
    environ["PYTHONPATH"] = os.pathsep.join(map(str, path))
    command = [sys.executable, str(RUN_COMPILED), str(folder / f"{name}.json"), "--model", str(model)]
    with (folder / f"{name}.log").open("w") as log:
        return subprocess.Popen(command, env=environ, cwd=folder, stdout=log, stderr=log, text=True)


def collect(folder: Path, name: str, start: Start) -> Compiled:
    cache = folder / f"cache_{start.cache}" / "torch_compile_cache"
    files = [path for path in sorted(cache.rglob("*")) if path.is_file()]
    factors = [json.loads(path.read_text()) for path in files if path.name == "cache_key_factors.json"]
    graphs = [path.read_text() for path in files if path.name == "computation_graph.py"]
    names = frozenset(str(path.relative_to(cache)) for path in files)
    result = json.loads((folder / f"{name}.json").read_text())
    log = (folder / f"{name}.log").read_text()
    return Compiled(result, log, names, factors, graphs, folder / f"sessions_{name}")


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> dict[str, Compiled]:
    """All engines; their compiler is the machine's own."""
    if shutil.which(os.environ.get("CXX", "g++")) is None:
        pytest.skip("inductor needs a C++ compiler, and this machine has none")
    folder = tmp_path_factory.mktemp("compiled")
    found: dict[str, Compiled] = {}
    for starts in ROUNDS:
        running = {name: begin(folder, name, start, tiny_model) for name, start in starts.items()}
        for name, process in running.items():
            code = process.wait(timeout=environment.HANGS_SECONDS)
            assert code == 0, (folder / f"{name}.log").read_text()[-3000:]
        found.update((name, collect(folder, name, start)) for name, start in starts.items())
    return found


def put_in(engine: Compiled) -> set[str]:
    """Hooks that are in place in the engine's process."""
    processes = streams.processes(streams.only_session(engine.sessions))
    records = [streams.record(process)["hooks"] for process in processes]
    return {hook["name"] for hooks in records for hook in hooks if hook["state"] == "put_in"}


def test_profilemate_was_there_and_only_where_it_was_wanted(engines: dict[str, Compiled]) -> None:
    wanted = {"v1_runner.execute_model", "graph_wrapper.call", "block_pool.get_new_blocks", "torch.capture_begin"}
    assert wanted <= put_in(engines["path_after_bare"])
    assert {*wanted, "torch.replay"} <= put_in(engines["plugin"])
    assert not engines["bare"].sessions.exists() and not engines["bare_after_plugin"].sessions.exists()
    assert len(streams.all_rows(streams.only_session(engines["plugin"].sessions), "forward_passes")) > 0


def test_every_variable_that_vllm_hashes_is_the_same(engines: dict[str, Compiled]) -> None:
    bare = engines["bare"].result["factors"]
    assert len(bare) > 50
    for name, engine in engines.items():
        assert engine.result["factors"] == bare, name


def folders_named_by_a_hash(engine: Compiled) -> set[str]:
    return {part for name in engine.cache for part in Path(name).parts[:2] if re.fullmatch("[0-9a-f]{10,}", part)}


def test_the_cache_folders_and_their_key_factors_are_the_same(engines: dict[str, Compiled]) -> None:
    """One folder for vLLM's backend and one for its ahead-of-time artifact; a second run adds none."""
    bare = engines["bare"]
    assert len(folders_named_by_a_hash(bare)) == 2 and len(bare.key_factors) == 1
    assert {"env", "config_hash", "code_hash", "compiler_hash"} <= set(bare.key_factors[0])
    for name, engine in engines.items():
        assert folders_named_by_a_hash(engine) == folders_named_by_a_hash(bare), name
        assert engine.key_factors == bare.key_factors, name


def torch_keys(engine: Compiled) -> set[str]:
    """Files of inductor's caches, each named by its content, and the keys of AOTAutograd's: entries hold timings too."""
    found = {Path(name) for name in engine.cache if "/inductor_cache/" in name and not name.endswith(".lock")}
    return {str(path.parent if "aotautograd" in path.parts else path) for path in found}


def test_torch_computes_the_same_keys_and_the_same_code(engines: dict[str, Compiled]) -> None:
    bare, plugin = torch_keys(engines["bare"]), torch_keys(engines["plugin"])
    assert any("/aotautograd/" in name for name in bare) and any(name.endswith(".cpp") for name in bare)
    assert bare == plugin


def test_graphs_and_graph_breaks_are_the_same(engines: dict[str, Compiled]) -> None:
    bare, plugin = engines["bare"], engines["plugin"]
    assert bare.counts["num_inductor_compiles"] > 0 and bare.counts["num_compiled_artifacts_saved"] > 0
    assert plugin.counts == bare.counts
    assert plugin.graphs == bare.graphs and len(bare.graphs) == 1
    assert plugin.result["dynamo"] == bare.result["dynamo"]
    assert bare.result["dynamo"]["stats"]["unique_graphs"] == 1 and bare.result["dynamo"]["graph_break"] == {}


@pytest.mark.parametrize("name", ["path_after_bare", "bare_after_plugin"])
def test_either_loads_what_the_other_stored(engines: dict[str, Compiled], name: str) -> None:
    engine, stored = engines[name], engines["bare"].counts
    assert "Directly load AOT compilation from path" in engine.log
    assert engine.counts["num_aot_artifacts_loaded"] == stored["num_aot_artifacts_saved"] == 1
    assert engine.counts["num_compiled_artifacts_loaded"] == stored["num_compiled_artifacts_saved"]
    assert engine.counts["num_aot_compiles"] == engine.counts["num_inductor_compiles"] == 0
    assert not engine.result["dynamo"].get("stats")


def test_every_request_is_answered_in_full(engines: dict[str, Compiled]) -> None:
    assert [engine.result["answered"] for engine in engines.values()] == [[8, 6]] * len(engines)
