"""The guard around every hook, and hooks that go in, do not fit, and come out again."""

from __future__ import annotations

import inspect
import pickle
import types
from typing import Any

import pytest

from profilemate.probe import hook as hooks
from profilemate.probe.hook import Hook, HookState

SEEN: list[Any] = []


class Target:
    """Stands for a vLLM class."""

    def work(self, items: Any, scale: int = 2, *, flag: bool = False) -> Any:
        """Documented."""
        SEEN.append(("original", items, scale, flag))
        return [item * scale for item in items]

    def fail(self) -> None:
        raise KeyError("vLLM's own")

    def maybe(self, value: Any) -> Any:
        return value

    @property
    def usage(self) -> float:
        return 0.5


MODULE = types.SimpleNamespace(Target=Target, function=lambda: 1)
ORIGINAL = dict(vars(Target))


@pytest.fixture(autouse=True)
def originals() -> Any:
    SEEN.clear()
    yield
    for name in ("work", "fail", "maybe"):
        setattr(Target, name, ORIGINAL[name])


def put(target: str, kind: Any, before: Any = None, after: Any = None, *arguments: str, **more: Any) -> HookState:
    state = HookState(Hook("name", "tracker", "module", target, kind, before, after, arguments, **more))
    hooks.put_in(state, MODULE)
    return state


def explode(*_: Any) -> Any:
    raise ValueError("ours")


KINDS = {
    "around": hooks.AROUND,
    "ahead": hooks.AHEAD,
    "following": hooks.FOLLOWING,
    "following_true": hooks.FOLLOWING_TRUE,
    "scope": hooks.SCOPE,
}


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_a_handler_that_raises_changes_nothing_and_is_off_after_five(kind: Any) -> None:
    state = put("Target.work", kind, explode, explode)
    for _ in range(10):
        assert Target().work([1, 2], flag=True) == [2, 4]
    assert SEEN == [("original", [1, 2], 2, True)] * 10
    assert state.failures == 5 and state.state == "switched_off"
    assert "ValueError: ours" in state.reason
    assert state.calls == 10


class UnspeakableError(Exception):
    """One whose text cannot be had."""

    def __str__(self) -> str:
        raise ValueError("no words")


def test_an_exception_without_words_is_told_by_its_kind_and_place() -> None:
    try:
        raise UnspeakableError
    except UnspeakableError:
        told = hooks._description()
    assert "test_hook.py" in told and "UnspeakableError: <exception str() failed>" in told


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_the_originals_exception_is_the_callers(kind: Any) -> None:
    calls = []
    state = put("Target.fail", kind, lambda *a: calls.append("before"), lambda *a: calls.append("after"))
    with pytest.raises(KeyError, match="vLLM's own") as caught:
        Target().fail()
    assert caught.value.__cause__ is None and caught.value.__context__ is None
    assert state.failures == 0
    assert ("after" in calls) == (kind is hooks.SCOPE)


def test_a_one_shot_iterator_becomes_the_list_that_both_see() -> None:
    seen = []
    put("Target.work", hooks.AROUND_LISTED, lambda target, found: seen.append(found), lambda *a: None, "self", "items")
    assert Target().work(reversed([1, 2, 3])) == [6, 4, 2]
    assert Target().work(items=iter([4])) == [8]
    assert seen == [[3, 2, 1], [4]]


def test_a_failing_handler_does_not_eat_the_iterator() -> None:
    put("Target.work", hooks.AROUND_LISTED, explode, explode, "items")
    assert Target().work(iter([1, 2])) == [2, 4]


@pytest.mark.parametrize(("value", "called"), [(None, True), (0, False), ([], False)])
def test_following_none_sees_only_none(value: Any, called: bool) -> None:
    calls = []
    put("Target.maybe", hooks.FOLLOWING_NONE, None, lambda *a: calls.append(1))
    assert Target().maybe(value) == value
    assert bool(calls) == called


@pytest.mark.parametrize(
    ("args", "kwargs", "expected"),
    [(([1], 5), {}, 5), (([1],), {"scale": 7}, 7), (([1],), {}, 2), ((), {"items": [1], "scale": 9}, 9)],
)
def test_an_argument_is_read_by_name_however_it_is_passed(args: Any, kwargs: Any, expected: int) -> None:
    read = []
    put("Target.work", hooks.AHEAD, read.append, None, "scale")
    Target().work(*args, **kwargs)
    assert read == [expected]


MISFITS = {
    "Target.gone": "absent",
    "Gone.work": "absent",
    "Target.usage": "does_not_fit",
    "Target.work": "does_not_fit",
}


@pytest.mark.parametrize("target", MISFITS)
def test_what_does_not_fit_is_left_alone_and_says_why(target: str) -> None:
    state = put(target, hooks.FOLLOWING, None, explode, "no_such_parameter")
    assert state.state == MISFITS[target]
    assert state.reason
    assert dict(vars(Target))["work"] is ORIGINAL["work"]


def test_hooking_twice_wraps_once_and_undoing_restores_the_object() -> None:
    first = put("Target.work", hooks.FOLLOWING, None, lambda *a: None)
    wrapped = Target.work
    second = put("Target.work", hooks.FOLLOWING, None, lambda *a: None)
    assert Target.work is wrapped and not second.places
    hooks.take_out(first)
    assert vars(Target)["work"] is ORIGINAL["work"]


def test_undoing_under_someone_elses_wrapper_only_goes_quiet() -> None:
    calls = []
    state = put("Target.work", hooks.FOLLOWING, None, lambda *a: calls.append(1))
    ours = Target.work

    def theirs(self: Any, *args: Any, **kwargs: Any) -> Any:
        return ours(self, *args, **kwargs)

    Target.work = theirs  # type: ignore[method-assign]
    hooks.take_out(state)
    assert Target.work is theirs and Target().work([1]) == [2] and calls == []


def test_the_wrapper_looks_like_the_original() -> None:
    ORIGINAL["work"]._torchdynamo_disable = True
    try:
        put("Target.work", hooks.FOLLOWING, None, lambda *a: None)
        assert (Target.work.__name__, Target.work.__doc__) == ("work", "Documented.")
        assert inspect.signature(Target.work) == inspect.signature(ORIGINAL["work"])
        assert not hasattr(Target.work, "_torchdynamo_disable")
        assert pickle.loads(pickle.dumps(Target)) is Target
        assert pickle.loads(pickle.dumps(Target().work)).__func__ is Target.work
    finally:
        del ORIGINAL["work"]._torchdynamo_disable
