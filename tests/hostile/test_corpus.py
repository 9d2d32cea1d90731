"""Every command over every session of the corpus, in a process that has a gigabyte more than it needs to begin with.

The corpus are the makers of tests/support/hostile_sessions.py. `make fuzz` runs all of them; here a part of them, each kind at
least once.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

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
    "exports_are_links", "exports_are_folders", "streams_folder", "many_sizes", "every_number_is_nothing",
    "every_number_is_the_least", "every_number_of_everything_is_below_nothing",
)  # fmt: skip
CASES = tuple(MAKERS) if ALL else QUICK
DYING = """
import json, os, sys
for name in sys.argv[1:]:
    print(json.dumps({"begins": name}), flush=True)
    if name == "deadly":
        sys.stderr.write("out of memory")
        sys.stderr.flush()
        os._exit(7)
    print(json.dumps({"case": name, "faults": []}), flush=True)
"""


class Cases:
    """What comes of each case, told as it comes: some take half a minute. The one that ends the process is told too."""

    def __init__(self, names: tuple[str, ...], errors: Path) -> None:
        self.left = list(names)
        self.faults: dict[str, list[str]] = {}
        self.errors = errors
        self.process: subprocess.Popen[str] | None = None

    def faults_of(self, name: str) -> list[str]:
        """Wait for a case. Cases come in their order."""
        while name not in self.faults:
            self.process = self.process or self._start()
            self._read(self.process)
        return self.faults[name]

    def stop(self) -> None:
        """No more cases."""
        if self.process is not None:
            self.process.kill()
            self.process.communicate()

    def _start(self) -> subprocess.Popen[str]:
        with self.errors.open("w") as errors:
            return subprocess.Popen(
                [sys.executable, str(SCRIPT), *self.left],
                env=ENVIRONMENT,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )

    def _read(self, process: subprocess.Popen[str]) -> None:
        """The next case of a process, or its end, which is the fault of the case that it had begun."""
        assert process.stdout is not None
        watchdog = threading.Timer(environment.HANGS_SECONDS, process.kill)
        watchdog.start()
        lines = [json.loads(line) for line in itertools.islice(process.stdout, 2)]
        watchdog.cancel()
        if len(lines) == 2:
            self._note(lines[1]["case"], lines[1]["faults"])
            return
        code, said = process.wait(), self.errors.read_text()[-1000:]
        assert lines, said
        self._note(lines[0]["begins"], [f"the process ended with {code}: {said}"])
        self.process = None

    def _note(self, name: str, faults: list[str]) -> None:
        self.faults[name] = faults
        self.left.remove(name)


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cases]:
    """All of them, in as few processes as it takes."""
    found = Cases(CASES, tmp_path_factory.mktemp("corpus") / "errors")
    yield found
    found.stop()


@pytest.mark.parametrize("name", CASES)
def test_commands_end_well_on_a_session_that_somebody_prepared(name: str, cases: Cases) -> None:
    """Exit code 0, 1 or 2, a sentence and no traceback, nothing raw on the terminal, nothing outside changed."""
    faults = cases.faults_of(name)
    assert faults == [], "\n".join(faults)


def test_a_case_that_ends_the_process_is_told_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "script.py"
    script.write_text(DYING)
    monkeypatch.setitem(globals(), "SCRIPT", script)
    cases = Cases(("good", "deadly", "last"), tmp_path / "errors")
    assert cases.faults_of("good") == []
    assert cases.faults_of("deadly") == ["the process ended with 7: out of memory"]
    assert cases.faults_of("last") == []
    cases.stop()
