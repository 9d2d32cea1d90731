"""Targets as they come in real servers: aliased, wrapped by others, reloaded, of other kinds than plain functions."""

from __future__ import annotations

import asyncio
import functools
import gc
import importlib
import inspect
import sys
import types
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from profilemate.probe import hook as hooks
from profilemate.probe import install
from profilemate.probe.cost import FIRST_INTERVALS
from profilemate.probe.hook import Hook, HookState

KINDS = {
    "ahead": hooks.AHEAD,
    "around": hooks.AROUND,
    "around_listed": hooks.AROUND_LISTED,
    "following": hooks.FOLLOWING,
    "following_none": hooks.FOLLOWING_NONE,
    "following_true": hooks.FOLLOWING_TRUE,
    "scope": hooks.SCOPE,
}
every_kind = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)


class Ours(Exception):
    """What our handlers raise."""


def explode(*_: Any) -> Any:
    raise Ours


def nothing(*_: Any) -> None:
    return None


def hook_of(target: str, kind: Any = hooks.FOLLOWING, after: Any = nothing, before: Any = nothing, **more: Any) -> Hook:
    arguments = more.pop("arguments", ("self", "items") if kind is hooks.AROUND_LISTED else ())
    return Hook(more.pop("name", target), "tracker", "module", target, kind, before, after, arguments, **more)


def put(module: Any, target: str, kind: Any = hooks.FOLLOWING, **more: Any) -> HookState:
    state = HookState(hook_of(target, kind, **more))
    hooks.put_in(state, module)
    return state


@pytest.fixture
def module() -> Any:
    """A module as vLLM's are, made anew for each test."""

    class Base:
        def work(self, items: Any = ()) -> Any:
            return list(items)

        def inherited(self) -> str:
            return "base"

    class Target(Base):
        def work(self, items: Any = ()) -> Any:
            return [*super().work(items), "target"]

        def fail(self, items: Any = ()) -> None:
            raise KeyError("vLLM's own")

        def keep(self, items: Any) -> Any:
            return items

    made: Any = types.ModuleType("made")
    made.Base, made.Target = Base, Target
    made.function = lambda items=(): ["function", *items]
    return made


# -- exceptions and references ------------------------------------------------------------------------------------------


@every_kind
@pytest.mark.parametrize("handler", [nothing, explode], ids=["quiet", "raising"])
def test_an_exception_keeps_its_context_cause_and_last_frame(module: Any, kind: Any, handler: Any) -> None:
    """Also where our own handlers raised before it and, for a scope, while it passes through."""
    bare = traceback_of(module.Target().fail, ["call"])
    put(module, "Target.fail", kind, before=handler, after=handler)
    hooked = traceback_of(module.Target().fail, ["call"])
    assert hooked[0] is bare[0] is KeyError
    assert hooked[1:3] == bare[1:3] == (None, "caller's")
    assert hooked[3][0] == bare[3][0] == "traceback_of" and hooked[3][-1] == bare[3][-1] == "fail"
    assert not {"explode", "nothing", "fail_"} & set(hooked[3])


def traceback_of(function: Any, arguments: list[Any]) -> tuple[Any, Any, str, list[str]]:
    """Type, cause, context and the names of the frames of what a call raises while another exception is handled."""
    try:
        raise RuntimeError("caller's")
    except RuntimeError:
        try:
            function(arguments)
        except Exception as error:
            frames, trace = [], error.__traceback__
            while trace:
                frames.append(trace.tb_frame.f_code.co_name)
                trace = trace.tb_next
            return type(error), error.__cause__, str(error.__context__), frames
    raise AssertionError("nothing was raised")


@every_kind
@pytest.mark.parametrize("error", [StopIteration, GeneratorExit, KeyboardInterrupt, SystemExit, asyncio.CancelledError])
def test_what_is_no_plain_exception_passes_as_well(module: Any, kind: Any, error: type[BaseException]) -> None:
    def fail(self: Any, items: Any = ()) -> None:
        raise error

    module.Target.fail = fail
    state = put(module, "Target.fail", kind, before=explode, after=explode)
    with pytest.raises(error) as caught:
        module.Target().fail([])
    assert caught.value.__context__ is None and state.state == "put_in"


@every_kind
def test_a_handler_that_raises_keeps_no_object_of_vllm_alive(module: Any, kind: Any) -> None:
    state = put(module, "Target.work", kind, before=explode, after=explode, arguments=("self", "items"))

    class Request:
        """Stands for one."""

    request = Request()
    gone = weakref.ref(request)
    target = module.Target()
    for _ in range(hooks.FAILURES_BEFORE_OFF):
        target.work([request])
    assert state.failures > 0 or kind is hooks.FOLLOWING_NONE
    del request
    gc.collect()
    assert gone() is None


def test_recursion_runs_the_handlers_of_each_call_in_turn(module: Any) -> None:
    def count(self: Any, items: int) -> int:
        return 0 if items == 0 else 1 + self.work(items - 1)

    module.Target.work = count
    seen: list[Any] = []

    def before(items: int) -> int:
        seen.append(items)
        return items

    def after(token: int, result: int, items: int) -> None:
        seen.append((token, result))

    put(module, "Target.work", hooks.AROUND, before=before, after=after, arguments=("items",))
    assert module.Target().work(3) == 3
    assert seen == [3, 2, 1, 0, (0, 0), (1, 1), (2, 2), (3, 3)]


def test_a_handler_that_calls_its_target_without_end_is_told_of_and_does_no_harm(module: Any) -> None:
    target = module.Target()
    state = put(module, "Target.work", hooks.FOLLOWING, after=lambda result: target.work([1]))
    assert [target.work([number]) for number in range(5)] == [[number, "target"] for number in range(5)]
    assert state.failures > 0 and "RecursionError" in state.reason


# -- aliases and subclasses ---------------------------------------------------------------------------------------------


def test_an_alias_of_the_class_is_covered_and_one_of_the_function_is_not(module: Any) -> None:
    """A function bound before us stays vLLM's own: the hook then is in place and has no call, which health reports."""
    class_alias, function_alias, bound = module.Target, module.Target.work, module.Target().work
    plain = module.function
    state, of_function = put(module, "Target.work"), put(module, "function")
    assert class_alias().work([1]) == [1, "target"] and state.calls == 1
    assert function_alias(module.Target(), [1]) == bound([1]) == [1, "target"] and state.calls == 1
    assert plain([1]) == ["function", 1] and (of_function.state, of_function.calls) == ("put_in", 0)
    module.function([1])
    assert of_function.calls == 1


def test_an_alias_made_while_hooked_goes_quiet_with_the_hook(module: Any) -> None:
    original, seen = vars(module.Target)["work"], []
    state = put(module, "Target.work", after=lambda result: seen.append(result))
    alias = module.Target.work
    hooks.take_out(state)
    assert vars(module.Target)["work"] is original
    assert alias(module.Target(), [1]) == [1, "target"] and seen == []


def test_a_subclass_that_calls_super_is_seen_and_one_that_does_not_is_not(module: Any) -> None:
    state = put(module, "Target.work")

    class CallsSuper(module.Target):  # type: ignore[misc]
        def work(self, items: Any = ()) -> Any:
            return super().work(items)

    class DoesNot(module.Target):  # type: ignore[misc]
        def work(self, items: Any = ()) -> Any:
            return []

    CallsSuper().work([1])
    assert state.calls == 1
    DoesNot().work([1])
    assert state.calls == 1


def test_a_method_that_only_a_base_class_has_is_not_taken_from_it(module: Any) -> None:
    state = put(module, "Target.inherited")
    assert state.state == "absent" and "inherited" not in vars(module.Target)


# -- others who wrap ----------------------------------------------------------------------------------------------------


def wrapped_by_another(function: Any) -> Any:
    """A wrapper of somebody else's, made in the usual way: it takes over the attributes of what it wraps."""

    @functools.wraps(function)
    def theirs(*args: Any, **kwargs: Any) -> Any:
        return [*function(*args, **kwargs), "theirs"]

    return theirs


def test_a_wrapper_that_was_there_before_us_comes_back(module: Any) -> None:
    module.Target.work = wrapped_by_another(module.Target.work)
    theirs = vars(module.Target)["work"]
    seen: list[Any] = []
    state = put(module, "Target.work", hooks.AHEAD, before=seen.append, arguments=("items",))
    assert module.Target().work([1]) == [1, "target", "theirs"] and seen == [[1]]
    hooks.take_out(state)
    assert vars(module.Target)["work"] is theirs


def test_a_wrapper_that_came_after_us_stays_and_ours_goes_quiet(module: Any) -> None:
    """Also one that looks like ours, as functools.wraps makes it."""
    seen: list[Any] = []
    state = put(module, "Target.work", after=seen.append)
    module.Target.work = wrapped_by_another(module.Target.work)
    theirs = vars(module.Target)["work"]
    assert module.Target().work([1]) == [1, "target", "theirs"] and len(seen) == 1
    hooks.take_out(state)
    assert vars(module.Target)["work"] is theirs
    assert module.Target().work([1]) == [1, "target", "theirs"] and len(seen) == 1


def test_after_that_a_second_start_sees_each_call_once(module: Any) -> None:
    first = put(module, "Target.work")
    module.Target.work = wrapped_by_another(module.Target.work)
    hooks.take_out(first)
    seen: list[Any] = []
    second = put(module, "Target.work", after=seen.append)
    assert second.state == "put_in"
    assert module.Target().work([1]) == [1, "target", "theirs"] and len(seen) == 1


# -- targets that changed -----------------------------------------------------------------------------------------------


def async_function() -> Any:
    async def work(self: Any, items: Any = ()) -> Any:
        return items

    return work


def generator_function() -> Any:
    def work(self: Any, items: Any = ()) -> Any:
        yield from items

    return work


def async_generator_function() -> Any:
    async def work(self: Any, items: Any = ()) -> Any:
        yield items

    return work


NOT_PLAIN = {
    "property": property(lambda self: [1]),
    "staticmethod": staticmethod(lambda items: items),
    "classmethod": classmethod(lambda cls, items: items),
    "C function": len,
    "partial": functools.partial(sorted, key=str),
    "class": dict,
    "cached property": functools.cached_property(lambda self: 1),
    "lru_cache": functools.lru_cache(lambda self, items=(): items),
    "coroutine": async_function(),
    "generator": generator_function(),
    "async generator": async_generator_function(),
}


@pytest.mark.parametrize("found", NOT_PLAIN.values(), ids=NOT_PLAIN)
def test_a_target_that_is_no_plain_function_is_left_alone_and_says_what_it_is(module: Any, found: Any) -> None:
    """Of a coroutine or generator a handler would see the beginning and take it for the end."""
    module.Target.work = found
    state = put(module, "Target.work", hooks.AROUND)
    assert vars(module.Target)["work"] is found
    assert state.state == "does_not_fit" and "Target.work" in state.reason


SIGNATURES = {
    "more arguments": (lambda self, items, new=1, *, other=2: (items, new, other), "put_in"),
    "keyword only": (lambda self, *, items=(): items, "put_in"),
    "in another place": (lambda self, new, items: items, "put_in"),
    "renamed": (lambda self, things: things, "does_not_fit"),
    "gone": (lambda self: None, "does_not_fit"),
    "swallowed": (lambda self, *args, **kwargs: None, "does_not_fit"),
}


@pytest.mark.parametrize(("function", "expected"), SIGNATURES.values(), ids=SIGNATURES)
def test_a_changed_signature_is_read_by_name_or_refused(module: Any, function: Any, expected: str) -> None:
    module.Target.work = function
    seen: list[Any] = []
    state = put(module, "Target.work", hooks.AHEAD, before=seen.append, arguments=("items",))
    assert state.state == expected
    if expected != "put_in":
        assert vars(module.Target)["work"] is function and "items" in state.reason
        return
    more = {"new": 3} if "new" in inspect.signature(function).parameters else {}
    assert module.Target().work(items=[5], **more) == function(None, items=[5], **more)
    assert seen == [[5]]


# -- modules ------------------------------------------------------------------------------------------------------------

SOURCE = """
class Target:
    def work(self):
        return {answer}
"""
ALIASED = "from hooked_first import Target\n"


@pytest.fixture
def started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """ProfileMate's installer with two hooks on one class, which a second module imports; the results that they saw."""
    seen: list[Any] = []
    (tmp_path / "hooked_first.py").write_text(SOURCE.format(answer=1))
    (tmp_path / "hooked_second.py").write_text(ALIASED)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    pair = tuple(
        hook_of("Target.work", after=seen.append, name=name)._replace(module=name)
        for name in ("hooked_first", "hooked_second")
    )
    monkeypatch.setattr(install, "probe_hooks", lambda: pair)
    monkeypatch.setattr(install, "tracker_hooks", lambda name: ())
    yield seen
    install.remove_all()
    for name in ("hooked_first", "hooked_second"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize("order", [("hooked_first", "hooked_second"), ("hooked_second", "hooked_first")])
def test_two_hooks_on_one_object_come_out_in_any_order(started: list[Any], order: tuple[str, str]) -> None:
    """One class, reached through two modules: what went in last must come out first."""
    modules = [importlib.import_module(name) for name in order]
    original = vars(modules[0].Target)["work"]
    install.begin()
    for state in install.states.values():
        hooks.take_out(state)
        state.state = "waiting"
    modules[0].Target.work = original
    for name, module in zip(order, modules, strict=True):
        install.module_ready(name, module)
    modules[0].Target().work()
    assert started == [1, 1]
    install.remove_all()
    assert vars(modules[0].Target)["work"] is original


def test_a_reloaded_module_is_hooked_again_and_comes_out_clean(started: list[Any], tmp_path: Path) -> None:
    install.begin()
    module = importlib.import_module("hooked_first")
    before = module.Target
    assert before().work() == 1 and started == [1]
    (tmp_path / "hooked_first.py").write_text(SOURCE.format(answer=2))
    importlib.reload(module)
    assert module.Target is not before
    assert module.Target().work() == 2
    assert started == [1, 2]
    assert type(module.__loader__).__name__ == "SourceFileLoader" and "exec_module" not in vars(module.__loader__)
    assert module.__spec__ is not None and module.__spec__.loader is module.__loader__
    install.remove_all()
    assert not hasattr(vars(module.Target)["work"], "profilemate_hook")
    assert not hasattr(vars(before)["work"], "profilemate_hook")


def test_hooks_put_in_again_are_timed_as_long_as_the_first_time(started: list[Any]) -> None:
    timed = []
    for _ in range(2):
        install.begin()
        importlib.import_module("hooked_first")
        intervals = 0
        while install.sampler.on:
            install.THIS.flush_step((), 0)
            intervals += 1
        install.THIS.flush_step((), 0)  # well before the next timed one
        timed.append(intervals)
        install.remove_all()
    assert timed == [FIRST_INTERVALS + 1] * 2


def test_a_module_that_fails_to_import_and_is_imported_again_is_hooked(started: list[Any], tmp_path: Path) -> None:
    path = tmp_path / "hooked_first.py"
    path.write_text("raise OSError('busy')")
    install.begin()
    with pytest.raises(OSError, match="busy"):
        importlib.import_module("hooked_first")
    path.write_text(SOURCE.format(answer=3))
    importlib.invalidate_caches()
    assert importlib.import_module("hooked_first").Target().work() == 3
    assert started == [3]
