"""Settings in which sessions differ: vLLM's configuration as recorded, versions, processes, the machine, ProfileMate's own."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from profilemate.session.records import text

if TYPE_CHECKING:
    from profilemate.session.session import Session
from profilemate.session.views import engine_config

OF_THE_RUN = frozenset({"directory", "warnings"})
"""Settings of ProfileMate that say where, not how."""


@dataclass(frozen=True)
class Difference:
    """A setting that is not the same in all sessions; a session that does not have it has None."""

    area: str
    name: str
    values: tuple[str | None, ...]


def differences(sessions: Sequence[Session]) -> tuple[Difference, ...]:
    """In order of areas and names."""
    found = [dict(_settings(session)) for session in sessions]
    keys = sorted({key for some in found for key in some}, key=lambda key: (AREAS.index(key[0]), key[1]))
    rows = [Difference(area, name, tuple(some.get((area, name)) for some in found)) for area, name in keys]
    return tuple(row for row in rows if len(set(row.values)) > 1)


AREAS = ("vLLM", "versions", "processes", "machine", "ProfileMate")


def _settings(session: Session) -> Iterator[tuple[tuple[str, str], str]]:
    """Areas, names and values of one session."""
    for name, value in _flat(engine_config(session)):
        yield ("vLLM", name), value
    for process in reversed(session.processes):
        for name, value in process.versions.items():
            if value:
                yield ("versions", name), text(value)
    counts = Counter(process.role.split("_")[0] for process in session.processes)
    for role, count in sorted(counts.items()):
        yield ("processes", role), str(count)
    hosts = sorted({process.host for process in session.processes if process.host})
    yield ("machine", "host"), text(", ".join(hosts) or session.info.host)
    for name, value in _flat(session.info.settings):
        if name.split(".")[0] not in OF_THE_RUN:
            yield ("ProfileMate", name), value


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Nested objects with dots; lists as they are."""
    for name, value in settings.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{text(name)}.")
        else:
            yield prefix + text(name), text(value if isinstance(value, str) else json.dumps(value, default=str))
