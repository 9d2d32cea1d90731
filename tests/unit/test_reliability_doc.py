"""docs/reliability.md names tests that are there."""

from __future__ import annotations

import re

import environment
import pytest

DOCUMENT = environment.ROOT / "docs" / "reliability.md"
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", DOCUMENT.read_text())))


def test_the_document_names_tests() -> None:
    assert len(NAMED) > 60


@pytest.mark.parametrize(("path", "name"), NAMED, ids=lambda part: part.rpartition("/")[2])
def test_each_named_test_is_there(path: str, name: str) -> None:
    source = (environment.ROOT / path).read_text()
    assert not name or f"\ndef {name}(" in source
