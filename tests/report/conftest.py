"""The golden session that has everything, and its page."""

from __future__ import annotations

import shutil
from pathlib import Path

import environment
import pytest

from profilemate.cli.main import main

GOLDEN = environment.ROOT / "tests" / "golden" / "sessions"


@pytest.fixture(scope="session")
def whole_session(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the golden session in which every tracker saw something."""
    return Path(shutil.copytree(GOLDEN / "everything", tmp_path_factory.mktemp("whole") / "session"))


@pytest.fixture(scope="session")
def whole_page(whole_session: Path) -> Path:
    """Its report."""
    assert main(["report", str(whole_session)]) == 0
    return whole_session / "report.html"
