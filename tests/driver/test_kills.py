"""kill -9 at random moments of vLLM's own scheduler: no step that finished is lost, and no file is unreadable.

`make soak` does it 200 times. Moments are drawn anew at every run; a failure names the seed, and PM_KILLS_SEED repeats it.
"""

from __future__ import annotations

import os
import random

import killed_drivers
import pytest

SEED = int(os.environ.get("PM_KILLS_SEED") or random.SystemRandom().randrange(1_000_000))
KILLS = int(os.environ.get("PM_KILLS") or 40)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[killed_drivers.Remains]:
    return killed_drivers.run(tmp_path_factory.mktemp("kills"), KILLS, SEED)


def test_no_finished_step_is_lost_and_no_file_is_unreadable(found: list[killed_drivers.Remains]) -> None:
    faults = [fault for one in found for fault in one.faults()]
    assert faults == [], f"PM_KILLS_SEED={SEED}"


def test_the_kills_met_runs_at_many_different_steps(found: list[killed_drivers.Remains]) -> None:
    """What the other test says is about something: most kills left finished steps, at many different counts of them."""
    counts = {len(one.finished) for one in found if one.finished}
    assert len(counts) > KILLS // 4 and max(counts) > 20, f"PM_KILLS_SEED={SEED}: {killed_drivers.json_text(found)}"
    assert sum(one.session is not None for one in found) > KILLS // 2, f"PM_KILLS_SEED={SEED}"
