"""However many processes a session has, each file is read as often: a scan of the whole for each process once took minutes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from figure_sessions import rich_session

import profilemate
from profilemate.advise.run import findings
from profilemate.figures import BY_NAME, draw
from profilemate.frames.session import Session

FEW, MANY = 2, 12
MOST_OVER_PROPORTION = 1.25
"""Sessions of another size take other ways in places; a read for each process would be a ratio of six."""


def draw_all(session: Session) -> None:
    for name in BY_NAME:
        draw(session, name)


@pytest.mark.parametrize("use", [draw_all, findings], ids=["figures", "advice"])
def test_of_many_engines_as_much_is_read_for_each_as_of_few(use: Callable[[Session], object], tmp_path: Path) -> None:
    times_read = []
    for engines in (FEW, MANY):
        path = rich_session(tmp_path / str(engines), 24, engines=engines).path
        session, read_bytes = profilemate.open(path), []
        session.on_read = read_bytes.append
        use(session)
        times_read.append(sum(read_bytes) / sum(file.stat().st_size for file in path.rglob("*.csv")))
    few, many = times_read
    assert 1 < many < MOST_OVER_PROPORTION * few
