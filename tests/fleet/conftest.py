from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fleet_sessions import fleet_of_golden, quiet

from profilemate.fleet.dataset import Dataset
from profilemate.fleet.export import Wanted, export_all, sessions_below


@pytest.fixture(scope="session")
def golden_fleet(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, dict[str, Any]]:
    """Folder of sessions, data set, and what became of each session by its folder's name."""
    made = tmp_path_factory.mktemp("fleet")
    sessions = fleet_of_golden(made / "sessions")
    done = export_all(Dataset.make(made / "dataset"), sessions_below([sessions]), Wanted(), quiet)
    return sessions, made / "dataset", {one.path.name: one for one in done}
