"""The command line of `make gpu-check`."""

from __future__ import annotations

import argparse
import datetime
import os
import shlex
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gpu_check import archive, machine, record
from gpu_check.compare import Check
from gpu_check.places import RESULT
from gpu_check.stages import DEFAULT_STAGES, STAGES, Sides, Target, target_for, tell
from gpu_check.surroundings import EngineFailed, OutOfTime, Surroundings

HELD, NOT_HELD, COULD_NOT_RUN, NO_GPU = 0, 1, 2, 3
SECONDS = 570.0
MACHINE_FIELDS = ("driver", "cuda", "torch", "python", "compute_capability", "memory_bytes")
EPILOG = """exit code: 0 everything held, 1 something did not, 2 something could not run, 3 this machine has no GPU

examples:
  python3 benchmarks/gpu_check
      everything, result in benchmarks/gpu.json
  python3 benchmarks/gpu_check --only v1,v2 --work /tmp/gpu-check --json "$OUT/gpu.json" --keep "$OUT"
      a part of it, on a borrowed machine
  python3 benchmarks/gpu_check --merge gpu.json
      take a result from there into benchmarks/gpu.json
"""


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="gpu_check",
        description="ProfileMate's graph and KV oracles on a real GPU. Needs PyTorch and vLLM, and no network.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--only", type=_stages, default=DEFAULT_STAGES, metavar="STAGES",
        help=f"comma-separated, out of {', '.join(STAGES)} (default: {','.join(DEFAULT_STAGES)})")  # fmt: skip
    add("--json", type=Path, default=RESULT, metavar="FILE", help="merge the result into it (benchmarks/gpu.json)")
    add(
        "--keep",
        type=Path,
        metavar="DIR",
        help="also keep each stage's traces, sessions and logs there, one archive each",
    )
    add("--work", type=Path, metavar="DIR", help="where engines run; its compile caches serve the next call too")
    add("--seconds", type=float, default=SECONDS, help="no engine starts that would end later than this (%(default)s)")
    add("--attention-backend", default="auto", metavar="NAME", help="vLLM's attention backend (%(default)s)")
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument(
        "--merge", type=Path, metavar="FILE", help="run nothing: merge the results of FILE into --json"
    )
    instead.add_argument("--again", type=Path, metavar="FILE", help="run nothing: judge an archive of --keep once more")
    return parser.parse_args(argv)


def _stages(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    unknown = [name for name in names if name not in STAGES]
    if unknown or not names:
        raise argparse.ArgumentTypeError(
            f"{', '.join(unknown) or 'nothing'} is no stage; there are {', '.join(STAGES)}"
        )
    return names


def main(argv: Sequence[str] | None = None) -> int:
    """Run the check; the exit code says how it went."""
    options = parse(argv)
    try:
        record.load(options.json)  # a file that nothing can be merged into is told before the GPU is used
        if options.merge is not None:
            return merge(options.merge, options.json)
        if options.again is not None:
            return again(options.again, options.json)
        return check(options)
    except machine.NoGpu as error:
        print(f"gpu-check: {error}")
        return NO_GPU
    except (machine.CannotRun, EngineFailed, ValueError, OSError) as error:
        print(f"gpu-check: {error}", file=sys.stderr)
        return COULD_NOT_RUN


def merge(source: Path, target: Path) -> int:
    """Take the results of another machine in."""
    if not source.exists():
        raise ValueError(f"there is no {source}")
    new = record.load(source)
    record.save(target, new)
    for card, stages in new["cards"].items():
        print(f"{card}: {', '.join(sorted(stages))} merged into {target.name}")
    return HELD


def again(source: Path, target: Path) -> int:
    """Judge what an archive holds, with this version's checks."""
    with archive.opened(source) as kept:
        return judge(kept.stage, kept.sides, kept.about, target)


def check(options: argparse.Namespace) -> int:
    """Look at the machine, then run the stages one after the other; each result is kept as soon as it is there."""
    deadline = time.monotonic() + options.seconds
    here = machine.find(env={**os.environ, "PROFILEMATE_ENABLE": "0"})
    base = (options.work or Path(tempfile.mkdtemp(prefix="gpu-check-"))).resolve()
    base.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix="run-", dir=base))
    around = Surroundings(work, base / "cache", deadline)
    tell(f"{here['card']}, driver {here['driver']}, PyTorch {here['torch']}; logs in {work}")
    if around.mend_numba():
        tell("numba does not import here; a stand-in takes its place")
    target = target_for(here["memory_bytes"], work, options.attention_backend)
    return max(run_stage(name, options, here, target, around) for name in options.only)


def run_stage(
    name: str, options: argparse.Namespace, here: dict[str, Any], target: Target, around: Surroundings
) -> int:
    """Run a stage's engines and judge them. One that fails, for whatever reason, does not take the next one along."""
    began = time.monotonic()
    try:
        sides = STAGES[name].measure(STAGES[name], target, around)
        about = {
            "card": here["card"],
            "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            "command": command(name, options),
            "machine": {key: here.get(key) for key in MACHINE_FIELDS},
            "seconds": round(time.monotonic() - began, 1),
        }
        if options.keep is not None:
            archive.keep(options.keep, name, sides, about)
        return judge(name, sides, about, options.json)
    except (OutOfTime, EngineFailed) as error:
        print(f"{name}: could not be run: {error}", flush=True)
    except Exception:
        print(f"{name}: could not be judged:\n{traceback.format_exc()}", flush=True)
    return COULD_NOT_RUN


def judge(name: str, sides: Sides, about: dict[str, Any], target: Path) -> int:
    """The checks of one stage: a table on stdout, the numbers into the file."""
    checks = STAGES[name].judge(STAGES[name], sides)
    holds = all(check.holds is not False for check in checks)
    result = {
        **{key: value for key, value in about.items() if key != "card"},
        "vllm": sides.with_us[0].result["vllm"],
        "holds": holds,
        "checks": {check.name: {"holds": check.holds, "says": check.says, **check.numbers} for check in checks},
    }
    record.save(target, {"format": record.FORMAT, "cards": {about["card"]: {name: result}}})
    print(table(name, checks), flush=True)
    return HELD if holds else NOT_HELD


def command(name: str, options: argparse.Namespace) -> str:
    """What was asked for, without the paths of the machine."""
    words = ["python3", "benchmarks/gpu_check", "--only", name]
    if options.attention_backend != "auto":
        words += ["--attention-backend", options.attention_backend]
    return shlex.join(words)


WORDS = {True: "holds", False: "FAILS", None: "-"}


def table(name: str, checks: Sequence[Check]) -> str:
    """The checks of one stage, for people."""
    lines = [f"{name}:"]
    lines += [f"  {WORDS[check.holds]:<6} {check.name:<30} {check.says}" for check in checks]
    return "\n".join(lines)
