"""The count of instructions: against what the compiler made, and the same again in another process."""

from __future__ import annotations

import dis
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

import pytest
from overhead import cli, instructions, places, registry
from overhead.samples import Measurement, Target

STRAIGHT = "def straight(a):\n    b = a + 1\n    c = [a, b]\n    return c\n"
LOOP = "def loop(n):\n    for one in range(n):\n        one\n"


def made(text: str, file: str) -> Callable[[Any], Any]:
    names: dict[str, Any] = {}
    exec(compile(text, file, "exec"), names)
    return next(value for value in names.values() if hasattr(value, "__code__"))


def counted(function: Callable[[Any], Any], value: Any, is_counted: Callable[[str], bool]) -> Counter[CodeType]:
    found: Counter[CodeType] = Counter()
    instructions.counting(function, found, is_counted)(value)
    return found


def test_straight_code_counts_as_the_compiler_made_it() -> None:
    function = made(STRAIGHT, "<profilemate a.hook>")
    assert counted(function, 1, instructions.is_ours) == {function.__code__: len(list(dis.get_instructions(function)))}


def test_each_turn_of_a_loop_counts() -> None:
    function = made(LOOP, "<profilemate a.hook>")
    few, more, most = (counted(function, turns, instructions.is_ours).total() for turns in (1, 2, 12))
    assert more > few and most - more == 10 * (more - few)


@pytest.mark.parametrize(
    ("file", "is_vllms", "is_ours"),
    [
        ("/x/site-packages/vllm/v1/core/block_pool.py", True, False),
        (f"{places.ROOT}/profilemate/trackers/kv_cache/hooks.py", False, True),
        ("<profilemate block_pool.touch>", False, True),
        (f"{places.ROOT}/tests/driver/drive.py", False, False),
        ("/x/site-packages/vllm_plugin/__init__.py", False, False),
    ],
)
def test_code_is_told_apart_by_its_file(file: str, is_vllms: bool, is_ours: bool) -> None:
    assert (instructions.is_vllms(file), instructions.is_ours(file)) == (is_vllms, is_ours)
    found = counted(made(STRAIGHT, file), 1, instructions.is_ours)
    assert bool(found) is is_ours


def test_clocks_go_on_by_looks_and_run_again_afterwards() -> None:
    from profilemate.probe import cost, process

    real = time.monotonic_ns, cost.perf_counter_ns
    with instructions.clocks_of_looks():
        first = [process.time.monotonic_ns(), cost.perf_counter_ns()]
        time.sleep(0.01)
        assert [process.time.monotonic_ns(), cost.perf_counter_ns()] == [
            look + instructions.A_LOOK_NS for look in first
        ]
        imported_within = ModuleType("profilemate.imported_within")
        exec("from time import monotonic_ns", vars(imported_within))
        sys.modules[imported_within.__name__] = imported_within
    try:
        assert (time.monotonic_ns, cost.perf_counter_ns) == real
        assert imported_within.monotonic_ns is time.monotonic_ns
    finally:
        del sys.modules[imported_within.__name__]


def measured(folder: Path) -> Measurement:
    folder.mkdir()
    places.make_importable()
    return cli.run_child(registry.find("step_instructions"), "tiny", folder)


def test_another_process_counts_the_same_and_the_targets_are_the_projects(tmp_path: Path) -> None:
    first, second = measured(tmp_path / "first"), measured(tmp_path / "second")
    assert [figure.name for figure in first.figures] == [figure.name for figure in second.figures]
    for one, again in zip(first.figures, second.figures, strict=True):
        assert (one.profiled, one.bare) == (again.profiled, again.bare), one.name
    bare = first.figures[0].bare[0]
    default, everything = (figure.profiled[0] - bare for figure in first.figures[:2])
    assert everything > default > 100 and bare > 1000
    parts = sum(figure.profiled[0] for figure in first.figures if figure.effect == "value")
    assert parts == pytest.approx(default, rel=0.01)
    assert [figure.target for figure in first.figures[:3]] == [
        Target(5.0, held_at=instructions.HELD_AT_PERCENT),
        Target(10.0, held_at=instructions.HELD_AT_ALL_PERCENT),
        Target(1.0, held_at=instructions.HELD_AT_TIMES),
    ]
