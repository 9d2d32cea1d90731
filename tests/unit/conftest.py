"""Fixtures for tests on session folders written by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
from sample_rows import add_server
from session_builder import SessionBuilder

from profilemate.export import readme_files
from profilemate.session.session import Session


@pytest.fixture
def session(tmp_path: Path) -> SessionBuilder:
    """A session without processes."""
    return SessionBuilder(tmp_path)


@pytest.fixture
def server(session: SessionBuilder) -> SessionBuilder:
    """The session of a small server, exported."""
    add_server(session)
    readme_files.write(Session(session.path))
    return session
