"""`--fail-if`: a condition on a number, read from text and held against a comparison.

NAME OP VALUE      OP is > >= < or <=
ttft_p95 > +10%    with a sign: the change of the last session against the first, in percent of the first
hit_rate < -2pt    of shares: in points of percent
tpot_p50 > +2ms    in a unit: the difference itself
ttft_p95 > 1.5s    without a sign: the last session's own value
hit_rate < 40%     of shares: in percent
"""

from __future__ import annotations

import difflib
import operator
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from profilemate.compare.catalogue import BY_NAME
from profilemate.compare.change import Change, judged
from profilemate.compare.number import SHARE, Number
from profilemate.compare.shown import change_text, value_text
from profilemate.session.errors import SessionError

OPERATORS: dict[str, Callable[[float, float], bool]] = {
    ">=": operator.ge, "<=": operator.le, ">": operator.gt, "<": operator.lt,
}  # fmt: skip
TIMES = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
POINTS = ("pt", "points")
VALUE, PERCENT, ABSOLUTE = "value", "percent", "absolute"
"""What a bound is held against: the last session's value, its change in percent, its change in the number's own unit."""

HOLDS, CANNOT_TELL, DOES_NOT = "holds", "cannot tell", "does not hold"

NAME_PART = re.compile(r"\s*([A-Za-z_][A-Za-z0-9_]*)\s*")
OPERATOR_PART = re.compile(r"(>=|<=|>|<)\s*")
NUMBER_PART = re.compile(r"([+-]?)\s*(\d+(?:\.\d*)?|\.\d+)(?:[eE]([+-]?\d+))?\s*")


@dataclass(frozen=True)
class Condition:
    """`bound` is in the number's own unit, or a part of one for PERCENT."""

    text: str
    number: Number
    operator: str
    kind: str
    bound: float

    def passes(self, observed: float) -> bool:
        """Whether a value is beyond the bound."""
        return OPERATORS[self.operator](observed, self.bound)


@dataclass(frozen=True)
class Outcome:
    """What became of a condition, and a sentence for it."""

    condition: Condition
    state: str
    says: str


def parse(text: str) -> Condition:
    """Raises SessionError that says where the text went wrong, or which names are near."""
    name = NAME_PART.match(text)
    if not name:
        raise _wrong(text, 0, "the name of a number")
    number = BY_NAME.get(name[1])
    if number is None:
        near = difflib.get_close_matches(name[1], BY_NAME, n=4, cutoff=0.4)
        said = f"near it: {', '.join(near)}; " if near else ""
        raise SessionError(
            f"--fail-if {text!r}: there is no number {name[1]!r}; {said}`profilemate compare --list` has all"
        )
    sign = OPERATOR_PART.match(text, name.end())
    if not sign:
        raise _wrong(text, name.end(), "one of > >= < <=")
    value = NUMBER_PART.match(text, sign.end())
    if not value:
        raise _wrong(text, sign.end(), "a value such as +10%, -5pt, 1.5s")
    unit = text[value.end() :].strip()
    size = float(f"{value[1]}{value[2]}e{value[3] or 0}")
    kind, bound = _bound(number, bool(value[1]), size, unit, text, value.end())
    return Condition(text, number, sign[1], kind, bound)


def _bound(number: Number, is_change: bool, size: float, unit: str, text: str, place: int) -> tuple[str, float]:
    own = ABSOLUTE if is_change else VALUE
    if number.scale == SHARE:
        if unit in POINTS and is_change:
            return ABSOLUTE, size / 100
        if unit == "%":
            return (PERCENT if is_change else VALUE), size / 100
        raise _wrong(text, place, f"% after the value: {number.name} is a share (a change of it can be in pt as well)")
    if unit == "%":
        if is_change:
            return PERCENT, size / 100
        raise _wrong(text, place, f"a sign before the percent (+10%), or a value of {number.name} in {_units(number)}")
    if number.unit == "s" and unit in TIMES:
        return own, size * TIMES[unit]
    if number.unit != "s" and unit in ("", number.unit):
        return own, size
    raise _wrong(text, place, f"{'% or ' if is_change else ''}{_units(number)} after the value")


def _units(number: Number) -> str:
    if number.unit == "s":
        return "s, ms, us or ns"
    return f"{number.unit} or nothing" if number.unit else "nothing"


def _wrong(text: str, place: int, wanted: str) -> SessionError:
    found = f"{text[place:].strip()!r} stands there" if text[place:].strip() else "it ends there"
    return SessionError(f"--fail-if {text!r}: at character {place + 1} there should be {wanted}; {found}")


def outcomes(conditions: Sequence[Condition], changes: Sequence[Change], ignore_noise: bool = False) -> list[Outcome]:
    """Each condition against the changes of the last session.

    A condition on a change holds where the change passes the bound and is beyond the noise. The numbers were named before
    anybody looked, so their p-values are adjusted among themselves alone.
    """
    by_name = {change.number.name: change for change in changes}
    named = dict.fromkeys(one.number.name for one in conditions if one.kind != VALUE)
    told = dict(zip(named, judged([by_name[name] for name in named]), strict=True))
    return [_outcome(one, told.get(one.number.name, by_name[one.number.name]), ignore_noise) for one in conditions]


def _outcome(condition: Condition, change: Change, ignore_noise: bool) -> Outcome:
    number, after = condition.number, change.after.value
    if condition.kind == VALUE:
        if after is None:
            return Outcome(
                condition, CANNOT_TELL, f"{condition.text}: cannot be told, the last session has no {number.name}"
            )
        state = HOLDS if condition.passes(after) else DOES_NOT
        return Outcome(condition, state, f"{condition.text}: {state}, {number.name} is {value_text(number, after)}")
    observed = change.relative if condition.kind == PERCENT else change.points
    if observed is None:
        why = "it was 0 before" if change.points is not None else change.why or "it was not recorded in both"
        return Outcome(condition, CANNOT_TELL, f"{condition.text}: cannot be told, {why}")
    went = f"{number.name} went from {value_text(number, change.before.value)} to {value_text(number, after)}"
    went += f" ({change_text(change)})"
    if not condition.passes(observed):
        return Outcome(condition, DOES_NOT, f"{condition.text}: {DOES_NOT}, {went}")
    if ignore_noise:
        return Outcome(condition, HOLDS, f"{condition.text}: holds, {went}; the noise was not looked at")
    if change.p is None:
        return Outcome(condition, CANNOT_TELL, f"{condition.text}: cannot be told, {went}, but {change.why}")
    p = change.adjusted if change.adjusted is not None else change.p
    if change.beyond_noise:
        return Outcome(condition, HOLDS, f"{condition.text}: holds, {went}, beyond the noise (p {p:.2g})")
    return Outcome(condition, DOES_NOT, f"{condition.text}: {DOES_NOT}, {went}, which is within the noise (p {p:.2g})")
