"""State beside an object lives as long as that, keeps it not alive, and is never another's."""

from __future__ import annotations

import gc

from profilemate.probe.per_object import PerObject


class Thing:
    """What vLLM might have."""


def test_state_goes_with_its_object() -> None:
    states: PerObject[str] = PerObject()
    thing, other = Thing(), Thing()
    key = id(thing)
    assert states.keep(thing, "first") == "first" and states.keep(other, "other") == "other"
    assert states[key] == "first" and states.owner_of(key) is thing
    del thing
    gc.collect()
    assert key not in states and states.owner_of(key) is None and list(states.values()) == ["other"]


def test_state_kept_anew_stands_for_the_newer_one() -> None:
    states: PerObject[str] = PerObject()
    thing = Thing()
    states.keep(thing, "first")
    states.keep(thing, "second")
    gc.collect()
    assert states[id(thing)] == "second"


def test_a_forked_child_forgets_all() -> None:
    states: PerObject[str] = PerObject()
    thing = Thing()
    states.keep(thing, "parent's")
    states.clear()
    assert not states and states.owner_of(id(thing)) is None
    states.keep(thing, "child's")
    assert states[id(thing)] == "child's"
