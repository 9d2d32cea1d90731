"""The function that is made for a target: it takes what the target takes and hands on exactly what it was given."""

from __future__ import annotations

import functools
import inspect
from typing import Any

import pytest

from profilemate.probe import wrapper as wrappers
from profilemate.probe.wrapper import AHEAD, AROUND_LISTED, FOLLOWING, wrap

MARK = object()


def plain(self: Any, request: Any, tokens: int = 3, blocks: Any = MARK) -> Any:
    return self, request, tokens, blocks


def keyword_only(self: Any, *, request: Any, tokens: int = 3) -> Any:
    return self, request, tokens


def positional_only(self: Any, request: Any = 1, /, tokens: int = 3) -> Any:
    return self, request, tokens


def variadic(self: Any, request: Any, *rest: Any, tokens: int = 3, **more: Any) -> Any:
    return self, request, rest, tokens, more


def only_variadic(*args: Any, **kwargs: Any) -> Any:
    return args, kwargs


def decorated(function: Any) -> Any:
    """As torch.inference_mode does: a wrapper that passes everything on."""

    @functools.wraps(function)
    def inner(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return inner


def decorated_method(function: Any) -> Any:
    @functools.wraps(function)
    def inner(self: Any, *args: Any, **kwargs: Any) -> Any:
        return function(self, *args, **kwargs)

    return inner


def injecting(function: Any) -> Any:
    """A decorator that adds an argument of its own: its told signature is not what it takes."""

    @functools.wraps(function)
    def inner(self: Any, tokens: int = 3) -> Any:
        return function(self, "injected", tokens)

    return inner


CALLS = [
    (plain, (1, 2), {}),
    (plain, (1, 2, 3, 4), {}),
    (plain, (1,), {"blocks": None, "request": 2}),
    (keyword_only, (1,), {"request": 2}),
    (keyword_only, (1,), {"tokens": 5, "request": 2}),
    (positional_only, (1,), {}),
    (positional_only, (1, 2), {"tokens": 6}),
    (variadic, (1, 2, 3, 4), {"tokens": 9, "extra": 1}),
    (variadic, (1,), {"request": 2}),
    (only_variadic, (1, 2), {"a": 3}),
    (only_variadic, (), {}),
    (decorated(plain), (1, 2), {"blocks": 3}),
    (decorated_method(plain), (1, 2), {}),
    (injecting(plain), (1,), {"tokens": 4}),
]


@pytest.mark.parametrize(("function", "args", "kwargs"), CALLS)
@pytest.mark.parametrize("kind", [AHEAD, FOLLOWING, wrappers.FOLLOWING_NONE, wrappers.AROUND, wrappers.SCOPE])
def test_the_original_gets_what_the_caller_gave(function: Any, args: Any, kwargs: Any, kind: Any) -> None:
    made = wrap(function, kind, (), lambda *a: None, lambda *a: None, pytest.fail, "name")
    assert made.function(*args, **kwargs) == function(*args, **kwargs)
    assert made.calls() == 1


@pytest.mark.parametrize("function", [plain, keyword_only, positional_only, variadic])
def test_a_wrong_call_is_refused_in_the_same_words(function: Any) -> None:
    made = wrap(function, FOLLOWING, (), None, lambda *a: None, pytest.fail, "name").function
    made.__name__, made.__qualname__ = function.__name__, function.__qualname__
    messages = []
    for called in (function, made):
        with pytest.raises(TypeError) as caught:
            called(1, 2, 3, 4, 5, 6, surprise=1) if function is not variadic else called()
        messages.append(str(caught.value))
    assert messages[0] == messages[1]


PICKS = [
    (plain, "request", (1, 2), {}, 2),
    (plain, "tokens", (1, 2), {}, 3),
    (plain, "self", (1, 2), {}, 1),
    (plain, "blocks", (1, 2), {}, MARK),
    (keyword_only, "tokens", (1,), {"request": 2, "tokens": 7}, 7),
    (variadic, "self", (8, 2), {}, 8),
    (only_variadic, "self", (8, 2), {}, 8),
    (decorated(plain), "self", (8, 2), {}, 8),
    (decorated(plain), "request", (1, 2), {}, 2),
    (decorated(plain), "request", (1,), {"request": 2}, 2),
    (decorated(plain), "tokens", (1, 2), {}, 3),
    (decorated(plain), "tokens", (1, 2, 9), {}, 9),
    (decorated_method(plain), "request", (1, 2), {}, 2),
    (decorated_method(plain), "tokens", (1, 2), {"tokens": 5}, 5),
    (decorated(keyword_only), "tokens", (1,), {"request": 2}, 3),
]


@pytest.mark.parametrize(("function", "name", "args", "kwargs", "expected"), PICKS)
def test_a_handler_gets_the_argument_by_name(function: Any, name: str, args: Any, kwargs: Any, expected: Any) -> None:
    seen: list[Any] = []
    made = wrap(function, AHEAD, (name,), seen.append, None, pytest.fail, "name").function
    made(*args, **kwargs)
    assert seen == [expected]


LISTED = [
    (plain, (1, iter("ab")), {}),
    (plain, (1,), {"request": iter("ab")}),
    (decorated(plain), (1, iter("ab")), {}),
    (decorated(plain), (1,), {"request": iter("ab")}),
    (decorated_method(plain), (1, iter("ab"), 5), {}),
]


@pytest.mark.parametrize(("function", "args", "kwargs"), LISTED)
def test_an_iterator_is_read_once_and_seen_by_all(function: Any, args: Any, kwargs: Any) -> None:
    seen: list[Any] = []
    made = wrap(
        function, AROUND_LISTED, ("self", "request"), lambda s, found: seen.append(found),
        lambda token, result, s, found: seen.append(found), pytest.fail, "name",
    ).function  # fmt: skip
    result = made(*args, **kwargs)
    assert result[1] == ["a", "b"] and seen == [["a", "b"], ["a", "b"]]
    assert seen[0] is result[1]


def test_a_list_is_passed_on_as_it_is() -> None:
    made = wrap(plain, AROUND_LISTED, ("self", "request"), lambda *a: None, lambda *a: None, pytest.fail, "n").function
    blocks = [1, 2]
    assert made(0, blocks)[1] is blocks


@pytest.mark.parametrize(
    ("function", "name", "fits"),
    [
        (plain, "request", True),
        (plain, "gone", False),
        (variadic, "gone", False),
        (decorated(plain), "tokens", True),
        (decorated(plain), "gone", False),
        (only_variadic, "tokens", False),
        (injecting(plain), "tokens", True),
        (injecting(plain), "request", False),
    ],
)
def test_what_a_target_does_not_take_is_missing(function: Any, name: str, fits: bool) -> None:
    assert (wrappers.missing(function, (name,)) == []) == fits


def test_defaults_are_the_very_objects_of_the_target() -> None:
    made = wrap(plain, FOLLOWING, (), None, lambda *a: None, pytest.fail, "name").function
    assert made(1, 2)[3] is MARK
    assert inspect.signature(made) == inspect.signature(plain).replace(
        parameters=[
            p.replace(annotation=inspect.Parameter.empty) for p in inspect.signature(plain).parameters.values()
        ],
        return_annotation=inspect.Signature.empty,
    )
