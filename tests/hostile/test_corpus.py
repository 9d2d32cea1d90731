"""Every command over every session of the corpus, in a process that has a gigabyte more than it needs to begin with.

The corpus are the makers of tests/support/hostile_sessions.py. `make fuzz` runs all of them with `report` and every figure
besides; here a part of them, each kind at least once.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import environment
import pytest
from hostile_sessions import MAKERS

SCRIPT = Path(__file__).with_name("run_cases.py")
ENVIRONMENT = {**environment.clean(), "PYTHONPATH": f"{environment.ROOT}/tests/support:{environment.ROOT}"}
ALL = os.environ.get("PROFILEMATE_FUZZ") == "1"
QUICK = (
    "escapes_everywhere", "formulas_everywhere", "odd_folder_names", "odd_file_names", "session_record_fifo",
    "process_record_endless", "process_record_nested", "process_record_many_lists", "process_record_not_numbers",
    "deep_settings", "wrong_types", "huge_configuration", "large_configuration_of_everything", "stored_metadata_of_other_types",
    "stored_names_that_lead_out", "stored_metadata_is_a_pipe", "streams_fifo", "streams_endless", "streams_binary",
    "streams_line", "streams_with_quotes", "every_number_is_the_largest", "other_tables",
    "exports_are_links", "exports_are_folders",
)  # fmt: skip
CASES = tuple(MAKERS) if ALL else QUICK


@pytest.fixture(scope="module")
def results() -> dict[str, dict[str, Any]]:
    """What came of each case; the one that ended the process is told by its beginning."""
    found: dict[str, dict[str, Any]] = {}
    left = list(CASES)
    while left:
        done = subprocess.run(
            [sys.executable, str(SCRIPT), *(["--slow"] if ALL else []), *left], env=ENVIRONMENT,
            capture_output=True, text=True, timeout=4 * environment.HANGS_SECONDS, check=False,
        )  # fmt: skip
        told = [json.loads(line) for line in done.stdout.splitlines()]
        found |= {line["case"]: line for line in told if "case" in line}
        begun = [line["begins"] for line in told if "begins" in line and line["begins"] not in found]
        assert told, done.stderr
        for name in begun:
            found[name] = {"case": name, "faults": [f"the process ended with {done.returncode}: {done.stderr[-1000:]}"]}
        left = [name for name in left if name not in found]
    return found


@pytest.mark.parametrize("name", CASES)
def test_commands_end_well_on_a_session_that_somebody_prepared(name: str, results: dict[str, dict[str, Any]]) -> None:
    """Exit code 0, 1 or 2, a sentence and no traceback, nothing raw on the terminal, nothing outside changed."""
    assert results[name]["faults"] == [], "\n".join(results[name]["faults"])
