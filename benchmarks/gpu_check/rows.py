"""ProfileMate's own rows of one run, read by the tests' reader, which is not ProfileMate's."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpu_check.places import helper

Cells = dict[str, str]


@dataclass(frozen=True)
class Pass:
    """A serving forward pass, or other replays of a step, in the window."""

    time_ns: int
    mode: str
    graphs: int
    num_tokens: int = 0
    host_ns: int | None = None
    device_ns: int | None = None
    is_main: bool = True


class Rows:
    """The session of one engine process."""

    def __init__(self, sessions: Path) -> None:
        """Find the one session of the run."""
        self.session: Path = helper("streams").only_session(sessions)

    def table(self, name: str) -> list[Cells]:
        """All rows of a table."""
        return list(helper("streams").all_rows(self.session, name))

    def between(self, name: str, began_ns: int, ended_ns: int) -> list[Cells]:
        """Rows whose time lies in the window."""
        return [row for row in self.table(name) if began_ns <= int(row["time_ns"]) <= ended_ns]

    def passes(self, began_ns: int, ended_ns: int) -> list[Pass]:
        """What replayed graphs, or could have, in the window, in order of time."""
        device = {row["forward"]: int(row["device_ns"]) for row in self.table("forward_latencies")}
        main = [
            Pass(
                int(row["time_ns"]), row["runtime_mode"], int(row["graphs"]), int(row["num_tokens"] or 0),
                int(row["host_ns"]) if row["host_ns"] else None, device.get(row["forward"]),
            )
            for row in self.between("forward_passes", began_ns, ended_ns)
        ]  # fmt: skip
        other = [
            Pass(int(row["time_ns"]), row["runtime_mode"], int(row["graphs"]), is_main=False)
            for row in self.between("graph_other_replays", began_ns, ended_ns)
        ]
        return sorted(main + other, key=lambda one: one.time_ns)

    def hooks(self) -> list[dict[str, Any]]:
        """State of every hook in every process."""
        streams = helper("streams")
        return [hook for process in streams.processes(self.session) for hook in streams.record(process)["hooks"]]
