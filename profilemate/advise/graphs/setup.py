"""What a session says about its graphs: the rules that hold, what was captured, and what each capture cost."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from profilemate.advise.graphs.replays import Replays, count_replays
from profilemate.advise.graphs.rules import FULL, NONE, PIECEWISE, V1, V2, Ladder, Rules
from profilemate.schema import names
from profilemate.session.views import GraphWorker, graph_workers
from profilemate.trackers.cuda_graphs import analyze
from profilemate.trackers.cuda_graphs.tally import MAIN

if TYPE_CHECKING:
    from profilemate.frames.session import Session
    from profilemate.trackers.cuda_graphs.analyze import Capture
    from profilemate.trackers.cuda_graphs.graph import Descriptor

SERVING = "serving"
DECODE_MODES = ("FULL_AND_PIECEWISE", "FULL_DECODE_ONLY")
MIXED_MODE = {"FULL": FULL, "PIECEWISE": PIECEWISE, "FULL_AND_PIECEWISE": PIECEWISE}


@dataclass(frozen=True)
class Setup:
    """One session's graphs. Captures are those of the main model that vLLM kept; estimate captures are not among them."""

    config: Mapping[str, Any]
    workers: tuple[GraphWorker, ...]
    replays: Replays
    captures: tuple[Capture, ...]
    decode_query_len: int | None
    """Tokens of a decoding request as the passes show them, for where no decode graph tells; None without such passes."""
    asked_sizes: tuple[int, ...] = ()
    """As given on the command line or in code; empty where vLLM's default was taken, or nothing is recorded."""

    @property
    def engines(self) -> int:
        """Data-parallel engines; each captures all graphs."""
        return len({worker.engine for worker in self.workers})

    @cached_property
    def first_engine(self) -> tuple[Capture, ...]:
        """Captures of one engine."""
        engine = min((capture.engine for capture in self.captures), default=0)
        return tuple(capture for capture in self.captures if capture.engine == engine)

    @cached_property
    def is_the_same_in_all_engines(self) -> bool:
        """Whether every engine captured the same descriptors."""
        by_engine: dict[int, set[Any]] = {}
        for capture in self.captures:
            by_engine.setdefault(capture.engine, set()).add(capture.descriptor)
        return len({frozenset(found) for found in by_engine.values()}) <= 1

    @cached_property
    def never_replayed(self) -> tuple[Descriptor, ...]:
        """Graphs captured for serving that no engine replayed."""
        kept = {one.descriptor for one in self.captures if one.purpose == SERVING}
        return tuple(sorted(kept - self.replays.by_graph.keys(), key=lambda graph: (graph.runtime_mode, graph.order)))

    @cached_property
    def present(self) -> Ladder:
        """What is captured now."""
        return Ladder(
            tuple(sorted({size_of(one) for one in self.first_engine if is_decode_graph(one)})),
            tuple(sorted({size_of(one) for one in self.first_engine if is_mixed_graph(one)})),
            self.rules.mixed_mode,
        )

    @cached_property
    def rules(self) -> Rules:
        """Rules as the captures show them; the configuration tells where there is no capture to tell."""
        decode = [one for one in self.first_engine if is_decode_graph(one)]
        mixed = {one.descriptor.runtime_mode for one in self.first_engine if is_mixed_graph(one)}
        configured = str(self.config.get("cudagraph_mode", NONE))
        cap = (whole(self.config.get("max_num_seqs")) or 0) * self.query_len
        could = any(self.query_len <= size <= cap for size in self.listed_sizes)
        return Rules(
            runner=V2 if any(has_v2_fields(one) for one in self.captures) else V1,
            full_decode=bool(decode) or (configured in DECODE_MODES and not could),
            mixed_mode=mixed.pop() if len(mixed) == 1 else NONE if self.captures else MIXED_MODE.get(configured, NONE),
            query_len=self.query_len,
            max_num_seqs=whole(self.config.get("max_num_seqs")) or 0,
            max_batched_tokens=whole(self.config.get("max_num_batched_tokens")),
            lora_cases=len({lora_case(one) for one in self.first_engine}) or 1,
        )

    @cached_property
    def query_len(self) -> int:
        """Tokens of a decoding request: of the decode graphs, else of the decode passes, else 1."""
        lengths = {
            one.descriptor.uniform_token_count or size_of(one) // one.descriptor.num_reqs
            for one in self.first_engine
            if is_decode_graph(one) and one.descriptor.num_reqs
        }
        return max(lengths, default=self.decode_query_len or 1)

    @property
    def listed_sizes(self) -> tuple[int, ...]:
        """Sizes of vLLM's configuration, after its own defaults and filters; empty where none is recorded."""
        return tuple(sorted(whole_numbers(self.config.get("cudagraph_capture_sizes"))))

    @cached_property
    def beyond_the_rules(self) -> str:
        """Why vLLM's choice of graphs cannot be worked out here; empty where it can."""
        graphs = [one.descriptor for one in self.captures]
        lengths = {graph.uniform_token_count for graph in graphs if graph.uniform_token_count}
        mixed = {one.descriptor.runtime_mode for one in self.captures if is_mixed_graph(one)}
        reasons = {
            "decode graphs of several query lengths (dynamic speculative decoding)": len(lengths) > 1,
            "decode graphs for any query length up to a bound": any(graph.max_query_len for graph in graphs),
            "graphs for micro-batches": any((graph.num_ubatches or 1) > 1 for graph in graphs),
            "graphs for any batch in two modes": len(mixed) > 1,
            "engines that captured different graphs": not self.is_the_same_in_all_engines,
        }
        return ", ".join(reason for reason, applies in reasons.items() if applies)


def read_setup(session: Session, decode_query_len: int | None = None) -> Setup:
    """Read configuration, captures and exact replay counts."""
    captures = analyze.read_captures(session)
    kept = tuple(one for one in captures if one.owner == MAIN and one.descriptor.num_tokens is not None)
    records = (process.engine_config.get(names.ASKED_SIZES) for process in session.processes)
    asked = next((found for record in records if (found := whole_numbers(record))), ())
    workers = graph_workers(session)
    config = {**session.config, **(workers[0].process.engine_config if workers else {})}
    return Setup(config, workers, count_replays(session), kept, decode_query_len, asked)


def whole_numbers(value: Any) -> tuple[int, ...]:
    """The positive whole numbers of a list, as it is ordered; none of anything else."""
    return tuple(one for one in value if whole(one) is not None) if isinstance(value, list) else ()


LARGEST_SIZE = 1 << 31
"""No batch has so many tokens; sums of larger ones would not fit the programme."""


def whole(value: Any) -> int | None:
    """A positive whole number that may be a size, or None."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 < value < LARGEST_SIZE else None


def size_of(capture: Capture) -> int:
    """Tokens of its graph."""
    return capture.descriptor.num_tokens or 0


def is_decode_graph(capture: Capture) -> bool:
    """FULL, for batches in which each request has the decode query length."""
    graph = capture.descriptor
    return graph.runtime_mode == FULL and graph.is_uniform and (graph.num_ubatches or 1) == 1


def is_mixed_graph(capture: Capture) -> bool:
    """For any batch: PIECEWISE, or FULL under cudagraph_mode FULL."""
    graph = capture.descriptor
    return not graph.is_uniform and graph.max_query_len is None and (graph.num_ubatches or 1) == 1


def has_v2_fields(capture: Capture) -> bool:
    """Captured by the V2 runner: its descriptors alone have these fields."""
    graph = capture.descriptor
    return graph.num_ubatches is not None or graph.uniform_token_count is not None


def lora_case(capture: Capture) -> tuple[bool, int]:
    """Which adapters it was captured for."""
    return capture.descriptor.uses_lora, capture.descriptor.num_active_loras or 0


@dataclass(frozen=True)
class Prices:
    """What a descriptor of a mode costs by size, from one engine's captures; sizes between them are interpolated."""

    sizes: tuple[int, ...]
    seconds: tuple[float, ...]
    bytes: tuple[float, ...]
    """Empty where the device told no memory."""

    def seconds_of(self, size: int) -> float:
        """Time inside the captures of one descriptor."""
        return interpolated(size, self.sizes, self.seconds)

    def bytes_of(self, size: int) -> float:
        """Device memory of one descriptor; 0 where it is not known."""
        return interpolated(size, self.sizes, self.bytes)


def prices(captures: Iterable[Capture]) -> Prices:
    """Means over the descriptors of each size (there are several with LoRA)."""
    by_size: dict[int, list[Capture]] = {}
    for capture in captures:
        by_size.setdefault(size_of(capture), []).append(capture)
    sizes = tuple(sorted(by_size))
    known = all(capture.memory_bytes is not None for some in by_size.values() for capture in some)
    return Prices(
        sizes,
        tuple(mean([(one.duration_ns or 0) / 1e9 for one in by_size[size]]) for size in sizes),
        tuple(mean([float(one.memory_bytes or 0) for one in by_size[size]]) for size in sizes) if known else (),
    )


@dataclass(frozen=True)
class LadderPrice:
    """What a ladder's captures cost one engine. `memory_bytes` is None where the device told no memory."""

    graphs: int
    seconds: float
    memory_bytes: float | None


def price_of(setup: Setup, ladder: Ladder) -> LadderPrice:
    """An estimate for sizes that were not captured; for those that were, what their captures took."""
    decode = prices(one for one in setup.first_engine if is_decode_graph(one))
    mixed = prices(one for one in setup.first_engine if is_mixed_graph(one))
    parts = [(decode, ladder.decode), (mixed, ladder.mixed)]
    cases = setup.rules.lora_cases
    known = all(price.bytes for price, sizes in parts if sizes)
    return LadderPrice(
        graphs=cases * ladder.graphs,
        seconds=cases * sum(price.seconds_of(size) for price, sizes in parts for size in sizes),
        memory_bytes=cases * sum(price.bytes_of(size) for price, sizes in parts for size in sizes) if known else None,
    )


def mean(values: list[float]) -> float:
    """The arithmetic mean; there is at least one value."""
    return sum(values) / len(values)


def interpolated(at: float, places: tuple[int, ...], values: tuple[float, ...]) -> float:
    """Between two places by a straight line; beyond the ends the value there; 0 without any."""
    if not values:
        return 0.0
    above = next((n for n, place in enumerate(places) if place >= at), len(places))
    if above in (0, len(places)):
        return values[0] if above == 0 else values[-1]
    left, right = places[above - 1], places[above]
    share = (at - left) / (right - left)
    return values[above - 1] + share * (values[above] - values[above - 1])
