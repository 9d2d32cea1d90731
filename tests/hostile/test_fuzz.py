"""Golden sessions changed at random: every command ends with a sentence, and both readers of streams say the same.

A few examples here, always the same; `make fuzz` looks for more (PROFILEMATE_FUZZ=1, PROFILEMATE_FUZZ_EXAMPLES).
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import golden
import hostile_commands as commands
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from mutations import KINDS, Mutation

LONG = os.environ.get("PROFILEMATE_FUZZ") == "1"
PARTS = 10 if LONG else 1
"""So many tests, each with its part of the examples: else nothing is told for an hour."""
EXAMPLES = -(-int(os.environ.get("PROFILEMATE_FUZZ_EXAMPLES", "200")) // PARTS) if LONG else 8
BASES = ("server", "everything", "cap_reached", "trimmed", "two_engines", "killed", "script_names")
NUMBERS = st.integers(0, 1 << 20)
MUTATIONS = st.lists(
    st.builds(Mutation, st.sampled_from(sorted(KINDS)), NUMBERS, NUMBERS, NUMBERS), min_size=1, max_size=4
)


@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.filterwarnings("ignore")
@settings(
    max_examples=EXAMPLES, deadline=None, derandomize=not LONG, database=None, print_blob=True,
    phases=(Phase.explicit, Phase.generate, *([Phase.shrink] if LONG else [])),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)  # fmt: skip
@given(base=st.sampled_from(BASES), mutations=MUTATIONS, is_slow=st.integers(0, 9))
def test_commands_end_well_on_a_changed_session(part: int, base: str, mutations: list[Mutation], is_slow: int) -> None:
    """Part by part: each draws its own."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        (Path(folder) / "in").mkdir()
        session = golden.copy(base, Path(folder) / "in", "session_20260101_000000")
        for mutation in mutations:
            mutation.apply(session)
        slow = commands.SLOW if LONG and is_slow == 0 else ()
        assert commands.faults_on(session, (*commands.QUICK, *commands.SLOWER, *slow, *commands.LAST)) == []
