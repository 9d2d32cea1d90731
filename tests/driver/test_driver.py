"""Self-checks of the scheduler driver and its oracle; each configuration runs once, in its own process."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import environment
import pytest

HERE = Path(__file__).parent
NO_TIMES = ("loop_cpu_s", "loop_wall_s", "collector_mean_lifetime_s")

CONFIGURATIONS = {
    "default": ["--kv-cache-metrics"],
    "hybrid_async": ["--hybrid", "--async"],
    "reset": ["--reset-every", "150"],
    "no_caching": ["--no-caching", "--requests", "80"],
}

CLASS_HOOKS = """
import json, sys
sys.path.insert(0, {here!r})
import drive
from vllm.v1.core.block_pool import BlockPool
from vllm.v1.core.kv_cache_manager import KVCacheManager
from vllm.v1.core.sched.scheduler import Scheduler
seen = {{}}
def hook(cls, name, measure):
    original = getattr(cls, name)
    def wrapped(self, *args, **kwargs):
        result = original(self, *args, **kwargs)
        seen[name] = seen.get(name, 0) + measure(result)
        return result
    setattr(cls, name, wrapped)
hook(BlockPool, "get_new_blocks", len)
hook(BlockPool, "_maybe_evict_cached_block", int)
hook(BlockPool, "touch", lambda _: 1)
hook(BlockPool, "free_blocks", lambda _: 1)
hook(KVCacheManager, "allocate_slots", lambda blocks: blocks is None)
hook(Scheduler, "schedule", lambda _: 1)
hook(Scheduler, "update_from_output", lambda _: 1)
hook(Scheduler, "_preempt_request", lambda _: 1)
code = drive.main({arguments!r})
print(json.dumps(seen))
sys.exit(code)
"""


def load(name: str) -> ModuleType:
    """Import a sibling by path; its plain name may mean a standard library module in this process."""
    spec = importlib.util.spec_from_file_location(f"driver_{name}", HERE / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


traces = load("trace")
oracle = load("oracle")


@dataclass
class Run:
    """What one driver process printed, and its oracle's result."""

    tally: dict[str, Any]
    truth: dict[str, Any]
    seen: dict[str, int] = field(default_factory=dict)


def start(command: list[str]) -> subprocess.Popen[str]:
    """Run a Python command in the background."""
    return subprocess.Popen(
        [sys.executable, *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=HERE.parent
    )


def finish(process: subprocess.Popen[str]) -> list[dict[str, Any]]:
    """Wait for it and read the JSON lines of its stdout."""
    out, err = process.communicate(timeout=environment.HANGS_SECONDS)
    assert process.returncode == 0, err[-3000:]
    return [json.loads(line) for line in out.splitlines()]


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    """All configurations, two processes at a time; `again` and `hooked` repeat the default one."""
    pytest.importorskip("vllm")
    folder = tmp_path_factory.mktemp("driver")
    script = str(HERE / "drive.py")
    commands = {
        name: [script, *arguments, "--oracle", str(folder / f"{name}.json")]
        for name, arguments in CONFIGURATIONS.items()
    }
    commands["again"] = [script, *CONFIGURATIONS["default"], "--oracle", str(folder / "again.json")]
    arguments = [*CONFIGURATIONS["default"], "--oracle", str(folder / "hooked.json")]
    commands["hooked"] = ["-c", CLASS_HOOKS.format(here=str(HERE), arguments=arguments)]
    commands["bare"] = [script, *CONFIGURATIONS["default"]]
    found: dict[str, Run] = {}
    names = list(commands)
    for pair in (names[index : index + 2] for index in range(0, len(names), 2)):
        processes = {name: start(commands[name]) for name in pair}
        for name, process in processes.items():
            lines = finish(process)
            path = folder / f"{name}.json"
            truth = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
            found[name] = Run(lines[0], truth, lines[1] if len(lines) > 1 else {})
    return found


@pytest.fixture(params=list(CONFIGURATIONS))
def each(runs: dict[str, Run], request: pytest.FixtureRequest) -> Run:
    """One configuration after the other."""
    return runs[request.param]


def test_all_requests_finish(each: Run) -> None:
    assert each.tally["finished"] == each.tally["requests"] == each.truth["requests"] > 0
    assert each.tally["scheduled_tokens"] == each.tally["prefill_tokens"] + each.tally["decode_tokens"]


def test_every_request_gets_its_tokens(runs: dict[str, Run]) -> None:
    expected = sum(entry.output_length for entry in traces.synthetic_trace(7, 200))
    assert {runs[name].tally["output_tokens"] for name in ("default", "hybrid_async", "reset")} == {expected}


def test_mirror_scan_and_vllm_agree(each: Run) -> None:
    assert each.truth["mismatches"] == [] and each.truth["mismatch_count"] == 0
    assert each.truth["unmirrored"] == {}


def test_blocks_balance(each: Run) -> None:
    truth = each.truth
    assert truth["allocated"] + truth["touched_from_free"] - truth["freed"] == truth["used_at_end"] == 0
    assert truth["allocated"] + truth["touched"] == truth["references_dropped"]
    assert truth["used_at_end"] + truth["cached_at_end"] + truth["empty_at_end"] == truth["total_blocks"]


def test_rows(each: Run) -> None:
    truth = each.truth
    rows = truth["rows"]
    assert len(rows) == truth["steps"] == truth["schedules"] == each.tally["steps"]
    assert all(used + cached + empty == truth["total_blocks"] for used, cached, empty, _ in rows)
    assert all(peak >= max(before[0], used) for before, (used, _, _, peak) in pairwise(rows))
    assert max(peak for *_, peak in rows) == truth["peak_used"] <= truth["total_blocks"]


def test_peak_can_lie_within_a_step(runs: dict[str, Run]) -> None:
    rows = runs["default"].truth["rows"]
    assert any(peak > max(before[0], used) for before, (used, _, _, peak) in pairwise(rows))


def test_prefix_totals(each: Run) -> None:
    assert each.truth["prefix"] == each.truth["prefix_recorded"]
    assert each.truth["prefix"]["requests"] in (0, each.truth["requests"])


def test_default_has_pressure(runs: dict[str, Run]) -> None:
    truth = runs["default"].truth
    assert truth["preemptions"] > 0 and truth["failed_allocations"] >= truth["preemptions"]
    assert truth["evicted"] > 500 and truth["allocated"] > 2000
    assert truth["touched"] > truth["touched_from_free"] > 0
    assert truth["prefix"]["hits"] > 0


def test_prompt_tokens_are_computed_or_hit(runs: dict[str, Run]) -> None:
    run = runs["default"]
    prefix = run.truth["prefix"]
    computed_first = prefix["queries"] - prefix["hits"]
    computed_again = prefix["preempted_queries"] - prefix["preempted_hits"]
    decodes = run.tally["output_tokens"] - run.tally["requests"] - run.truth["preemptions"]
    assert run.tally["scheduled_tokens"] >= computed_first + decodes
    assert run.tally["scheduled_tokens"] <= computed_first + computed_again + run.tally["output_tokens"]


def test_evictions(each: Run) -> None:
    events = each.truth["evictions"]
    assert len(events) == each.truth["evicted"] <= each.truth["allocated"]
    assert all(event["lifetime_s"] >= event["idle_s"] >= 0 for event in events)
    assert all(before["time"] <= after["time"] for before, after in pairwise(events))


def test_touched_blocks_idle_for_less_than_they_live(runs: dict[str, Run]) -> None:
    events = runs["default"].truth["evictions"]
    assert any(event["lifetime_s"] > event["idle_s"] for event in events)
    assert any(event["lifetime_s"] == event["idle_s"] for event in events)


def test_vllm_collector_counts_reuses_not_evictions(runs: dict[str, Run]) -> None:
    run = runs["default"]
    assert run.tally["collector_evictions"] == run.truth["allocated"] - run.truth["distinct_blocks"]
    assert run.tally["collector_evictions"] > run.truth["evicted"]


def test_counts_repeat(runs: dict[str, Run]) -> None:
    one, two = runs["default"], runs["again"]
    assert all(one.tally[key] == two.tally[key] for key in one.tally if key not in NO_TIMES)
    assert all(one.truth[key] == two.truth[key] for key in one.truth if key != "evictions")
    assert [event["block"] for event in one.truth["evictions"]] == [event["block"] for event in two.truth["evictions"]]


def test_oracle_changes_nothing(runs: dict[str, Run]) -> None:
    bare, watched = runs["bare"].tally, runs["default"].tally
    assert all(bare[key] == watched[key] for key in bare if key not in NO_TIMES)


def test_hooks_on_the_classes_see_everything(runs: dict[str, Run]) -> None:
    seen, truth = runs["hooked"].seen, runs["hooked"].truth
    assert {key: truth[key] for key in truth if key != "evictions"} == {
        key: value for key, value in runs["default"].truth.items() if key != "evictions"
    }
    assert seen["get_new_blocks"] == truth["allocated"]
    assert seen["_maybe_evict_cached_block"] == truth["evicted"]
    assert seen["allocate_slots"] == truth["failed_allocations"]
    assert seen["schedule"] == seen["update_from_output"] == truth["steps"]
    assert seen["_preempt_request"] == truth["preemptions"]
    assert seen["touch"] > 0 and seen["free_blocks"] > 0


def test_hybrid_meets_null_blocks_and_async_preempts(runs: dict[str, Run]) -> None:
    run = runs["hybrid_async"]
    assert run.tally["scheduler"] == "AsyncScheduler"
    assert run.truth["null_entries"] > 0 == runs["default"].truth["null_entries"]
    assert run.truth["preemptions"] > 0 and run.truth["evicted"] > 0


def test_no_caching_has_no_evictions(runs: dict[str, Run]) -> None:
    truth = runs["no_caching"].truth
    assert truth["evicted"] == truth["touched"] == truth["prefix"]["requests"] == truth["cached_at_end"] == 0
    assert truth["allocated"] > truth["total_blocks"]


def test_resets_empty_the_cache(runs: dict[str, Run]) -> None:
    run, default = runs["reset"], runs["default"]
    assert run.truth["resets"] == run.tally["resets"] > 0
    assert run.truth["resets_failed"] == run.tally["resets_failed"] > 0
    most_empty = [max(empty for _, _, empty, _ in each.truth["rows"][150:]) for each in (run, default)]
    assert most_empty[0] > run.truth["total_blocks"] / 2 > most_empty[1]
    assert run.truth["prefix"]["hits"] < default.truth["prefix"]["hits"]


# -- the trace and the oracle by themselves, without vLLM ----------------------------------------------


def test_synthetic_trace_is_seeded_and_shares_prefixes() -> None:
    one, two, other = (traces.synthetic_trace(seed, 50) for seed in (1, 1, 2))
    assert one == two and one != other
    starts = [tuple(entry.prompt[:16]) for entry in one]
    assert 1 < len(set(starts)) < len(starts)
    assert all(before.arrival_step <= after.arrival_step for before, after in pairwise(one))


def test_chunks_differ_and_repeat() -> None:
    chunks = {tuple(traces.chunk_tokens(number, 16)) for number in (0, 1, 32_000, 32_001, 64_000)}
    assert len(chunks) == 5
    assert traces.expand([3, 3], 4, 7) == (traces.chunk_tokens(3, 4) * 2)[:7]


def test_mooncake_trace_is_read_and_scaled(tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    row = {"timestamp": 100, "input_length": 1024, "output_length": 80, "hash_ids": [5, 6]}
    path.write_text("\n".join(json.dumps({**row, "timestamp": time}) for time in (0, 100, 200)), encoding="utf-8")
    first, second = traces.mooncake_trace(path, 2)
    assert first.prompt == second.prompt == traces.chunk_tokens(5, 16) + traces.chunk_tokens(6, 16)
    assert (first.arrival_step, second.arrival_step, second.output_length) == (0, 2, 10)


class FakePool:
    """The least of a BlockPool: blocks 1 to 3 are free, block 0 is the null block."""

    hash_block_size = 16
    num_gpu_blocks = 4

    def __init__(self) -> None:
        self.blocks = [SimpleNamespace(block_id=number, ref_cnt=0, block_hash=None) for number in range(4)]
        self.null_block = self.blocks[0]
        self.free_block_queue = FakeQueue()

    def get_num_free_blocks(self) -> int:
        return self.free_block_queue.num_free_blocks

    def get_new_blocks(self, count: int) -> list[Any]:
        taken = [block for block in self.blocks[1:] if block.ref_cnt == 0][:count]
        self.free_block_queue.num_free_blocks -= count
        for block in taken:
            self._maybe_evict_cached_block(block)
            block.ref_cnt = 1
        return taken

    def _maybe_evict_cached_block(self, block: Any) -> bool:
        dropped = block.block_hash is not None
        block.block_hash = None
        return dropped

    def touch(self, blocks: Any) -> None: ...
    def free_blocks(self, blocks: Any) -> None: ...
    def evict_blocks(self, blocks: Any) -> None: ...
    def cache_full_blocks(self) -> None: ...
    def reset_prefix_cache(self) -> bool:
        return False


class FakeQueue:
    """A free counter."""

    def __init__(self) -> None:
        self.num_free_blocks = 3


class FakeScheduler:
    """A scheduler that does nothing, over a FakePool; it is its own KV cache manager."""

    def __init__(self) -> None:
        self.block_pool = FakePool()
        self.kv_cache_manager = self

    def schedule(self) -> None: ...
    def update_from_output(self) -> None: ...
    def add_request(self) -> None: ...
    def allocate_slots(self) -> None: ...
    def make_prefix_cache_stats(self) -> None: ...
    def record_prefix_cache_stats(self) -> None: ...


@pytest.fixture
def watched() -> tuple[FakeScheduler, Any]:
    """A fake scheduler with two of three blocks in use, and its oracle."""
    scheduler = FakeScheduler()
    watcher = oracle.attach(scheduler)
    scheduler.block_pool.get_new_blocks(2)
    scheduler.update_from_output()
    return scheduler, watcher


def test_oracle_is_content_with_an_honest_pool(watched: tuple[FakeScheduler, Any]) -> None:
    result = watched[1].result()
    assert result["mismatch_count"] == 0
    assert (result["allocated"], result["peak_used"], result["rows"]) == (2, 2, [(2, 0, 1, 2)])


def test_oracle_notices_a_lost_reference(watched: tuple[FakeScheduler, Any]) -> None:
    watched[0].block_pool.blocks[1].ref_cnt = 0
    watched[0].update_from_output()
    assert watched[1].result()["mismatch_count"] > 0


def test_oracle_notices_a_hash_from_nowhere(watched: tuple[FakeScheduler, Any]) -> None:
    watched[0].block_pool.blocks[3].block_hash = b"x"
    watched[0].update_from_output()
    assert "block 3" in watched[1].result()["mismatches"][0]


def test_oracle_notices_an_eviction_its_mirror_does_not_know(watched: tuple[FakeScheduler, Any]) -> None:
    watched[0].block_pool.blocks[3].block_hash = b"x"
    watched[0].block_pool.get_new_blocks(1)
    assert "evicted" in watched[1].result()["mismatches"][0]


def test_oracle_sees_the_counter_change_without_any_method(watched: tuple[FakeScheduler, Any]) -> None:
    queue = watched[0].block_pool.free_block_queue
    queue.num_free_blocks -= 1
    queue.num_free_blocks += 1
    watched[0].update_from_output()
    assert watched[1].result()["peak_used"] == 3
    assert watched[1].result()["rows"][-1] == (2, 0, 1, 3)
