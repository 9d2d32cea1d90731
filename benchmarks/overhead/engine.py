"""A whole engine in one process, hooks in and out by turns: the precise companion of the two servers.

Scheduler, worker and front end share one thread, so CPU time has no spinning in it, and the same engine with the same memory
answers the same prompts on both sides. Once it computes on the CPU, which gives a ratio; once its graphs are the stand-in's,
whose replays do nothing, so that all that is left is the host's side of a step.
"""

from __future__ import annotations

import os
import random
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from overhead.samples import Benchmark, Figure, Measurement
from overhead.scheduler_step import STEP_US
from overhead.turns import rounds, say, turn_about

REQUESTS = 8
PROMPT_TOKENS, OUTPUT_TOKENS = (16, 200), (16, 64)
OPTIONS: dict[str, Any] = {
    "load_format": "dummy",
    "max_model_len": 2048,
    "block_size": 32,
    "num_gpu_blocks_override": 512,
    "max_num_seqs": 8,
    "gpu_memory_utilization": 0.3,
    "disable_log_stats": False,
}
GRAPHS = {
    "mode": 3,
    "backend": "eager",
    "cudagraph_mode": "FULL_AND_PIECEWISE",
    "cudagraph_capture_sizes": [1, 2, 4, 8, 16, 32],
}


class Size(NamedTuple):
    """How much is run. The first rounds warm up and are not counted."""

    rounds: int
    seconds: float = 60
    warm_up: int = 4


SIZES = {"full": Size(240), "quick": Size(40), "tiny": Size(2, warm_up=1)}


class Switch:
    """Takes all hooks out of their places and puts the same ones in again."""

    def __init__(self) -> None:
        """Know the hooks that are in now. Where two share a target, the outer one stands there."""
        from profilemate.probe import install

        self.places: list[tuple[Any, str, Any, Any]] = [
            (place.owner, place.name, place.original, vars(place.owner)[place.name])
            for state in install.states.values()
            for place in state.places
            if not hasattr(place.original, "profilemate_hook")
        ]
        if not self.places:
            raise RuntimeError("no hook is in")

    def turn(self, on: bool) -> None:
        """Hooks in, or vLLM's own functions."""
        for owner, name, original, wrapper in self.places:
            setattr(owner, name, wrapper if on else original)


class Batch(NamedTuple):
    """Some requests answered."""

    tokens_per_second: float
    cpu_us_per_step: float


class Engine:
    """VLLM's offline engine in this process."""

    def __init__(self, model: Path, options: dict[str, Any]) -> None:
        """Build it with every hook in."""
        from vllm import LLM

        self.llm = LLM(str(model), **OPTIONS, **options)
        self.steps = 0
        self.tokens = random.Random(1)
        client: Any = self.llm.llm_engine.engine_core
        core = client.engine_core
        step = core.step_fn

        def count_and_step() -> Any:
            self.steps += 1
            return step()

        core.step_fn = count_and_step

    def answer(self, seed: int) -> Batch:
        """Answer a batch: prompts and answers as long as any other's of the same seed, but of new tokens.

        The same tokens again would be found in the prefix cache, and the second turn of a round would have less to do.
        """
        from vllm import SamplingParams

        dice = random.Random(seed)
        prompts: list[Any] = []
        params: list[Any] = []
        for _ in range(REQUESTS):
            length = dice.randint(*PROMPT_TOKENS)
            prompts.append({"prompt_token_ids": self.tokens.choices(range(10, 4000), k=length)})
            params.append(SamplingParams(max_tokens=dice.randint(*OUTPUT_TOKENS), ignore_eos=True, temperature=0))
        steps, cpu, wall = self.steps, time.process_time(), time.perf_counter()
        outputs = self.llm.generate(prompts, params, use_tqdm=False)
        took, spent, steps = time.perf_counter() - wall, time.process_time() - cpu, self.steps - steps
        tokens = sum(len(output.outputs[0].token_ids) for output in outputs)
        return Batch(tokens / took, 1e6 * spent / steps)


def answer_in_turns(title: str, engine: Engine, size: Size) -> dict[bool, list[Batch]]:
    """Pairs of batches, in changing order."""
    switch = Switch()
    batches: dict[bool, list[Batch]] = {False: [], True: []}
    for number in rounds(title, size.warm_up + size.rounds, size.seconds):
        for on in turn_about(number):
            switch.turn(on)
            batch = engine.answer(number)
            if number >= size.warm_up:
                batches[on].append(batch)
    switch.turn(True)
    return batches


def check_session(folder: Path) -> None:
    """What was timed must have been recorded, and no hook may have failed."""
    import streams

    session = streams.only_session(folder)
    if not streams.all_rows(session, "engine_steps") or not streams.all_rows(session, "forward_passes"):
        raise RuntimeError("the engine's steps were not recorded")
    failed = [row for row in streams.all_rows(session, "health") if row["failures"] != "0"]
    if failed:
        raise RuntimeError(f"a hook failed: {failed[-1]}")


def measure(title: str, options: dict[str, Any], figures: Callable[..., list[Figure]], size: str) -> Measurement:
    """Build the engine and let it answer by turns."""
    import tiny_model

    from profilemate.probe import install

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["PROFILEMATE_DIR"] = str(folder / "sessions")
        model = tiny_model.write_tiny_llama(folder / "tiny-llama")
        say(f"{title}: the engine starts")
        install.begin()
        engine = Engine(model, options)
        batches = answer_in_turns(title, engine, SIZES[size])
        check_session(folder / "sessions")
    return Measurement(figures(batches[True], batches[False]), {"batch": f"{REQUESTS} requests at once"})


def cpu_per_step(on: list[Batch], off: list[Batch]) -> Figure:
    """What a step costs more."""
    return Figure(
        "per engine step",
        "us of CPU",
        "difference",
        [batch.cpu_us_per_step for batch in on],
        [batch.cpu_us_per_step for batch in off],
    )


def computing(on: list[Batch], off: list[Batch]) -> list[Figure]:
    """Figures of an engine that computes."""
    rates = [batch.tokens_per_second for batch in on], [batch.tokens_per_second for batch in off]
    return [Figure("output tokens per second", "1/s", "ratio", *rates), cpu_per_step(on, off)]


def replaying(on: list[Batch], off: list[Batch]) -> list[Figure]:
    """Figures of an engine whose replays do nothing."""
    figure = cpu_per_step(on, off)
    share = [100 * (ours - bare) / STEP_US for ours, bare in zip(figure.profiled, figure.bare, strict=True)]
    return [figure, Figure("share of a 5 ms step", "%", "value", share)]


ENVIRONMENT = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_LOGGING_LEVEL": "ERROR"}
COMPUTING = Benchmark(
    "engine_computing",
    "A whole engine in one process, computing on the CPU",
    partial(measure, "engine_computing", {"enforce_eager": True}, computing),
    ENVIRONMENT,
    for_gate=False,
)
REPLAYING = Benchmark(
    "engine_replaying",
    "A whole engine in one process, replaying graphs that do nothing",
    partial(measure, "engine_replaying", {"compilation_config": GRAPHS}, replaying),
    {**ENVIRONMENT, "STANDIN_GRAPHS": "1"},
    for_gate=False,
)
