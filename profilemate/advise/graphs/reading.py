"""All that the topics about graphs need of a session, or a sentence about what is missing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from profilemate.advise.graphs.batches import Batches, classify, decode_query_len, read_observed
from profilemate.advise.graphs.setup import Setup, read_setup

if TYPE_CHECKING:
    from profilemate.frames.session import Session


@dataclass(frozen=True)
class GraphData:
    """Captures, rules and passes of one session. `missing` says why nothing can be said; empty where something can."""

    setup: Setup
    batches: Batches
    missing: str = ""

    @property
    def are_off(self) -> bool:
        """Whether the server was run without graphs."""
        return not self.setup.captures and (
            bool(self.setup.config.get("enforce_eager")) or self.setup.config.get("cudagraph_mode") == "NONE"
        )


_known: WeakKeyDictionary[Any, GraphData] = WeakKeyDictionary()


def read(session: Session) -> GraphData:
    """Read one session, once for all topics."""
    if session not in _known:
        _known[session] = _read(session)
    return _known[session]


def _read(session: Session) -> GraphData:
    observed, lost = read_observed(session)
    setup = read_setup(session, decode_query_len(observed))
    batches = classify(observed, lost, setup.rules, setup.present)
    return GraphData(setup, batches, _missing(setup, batches))


def _missing(setup: Setup, batches: Batches) -> str:
    if not setup.workers:
        return "no worker process was recorded"
    if not batches.groups:
        return "there is no forward pass with the columns of the tracker cuda_graphs"
    if not setup.rules.max_num_seqs:
        return "the configuration has no max_num_seqs"
    return ""
