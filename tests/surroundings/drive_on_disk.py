"""The scheduler driver on a disk that fills up and is freed again, and that is stopped and goes on.

    drive_on_disk.py BALLAST STEPS [driver arguments]

At the steps in STEPS (as 100,300,500) the rest of BALLAST's disk is taken and given back in turn. The writer's clock runs
fast: a pause is a fiftieth of a second in place of a second, so that a run of some seconds sees many.
"""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "driver"))


def take_the_rest(ballast: Path) -> None:
    """Write until the disk is full, down to the last byte."""
    with ballast.open("wb", buffering=0) as file:
        for size in (1 << 16, 1 << 10, 1):
            try:
                while True:
                    file.write(b"x" * size)
            except OSError as error:
                assert error.errno == errno.ENOSPC, error


def main() -> int:
    """Run the driver."""
    import drive

    ballast = Path(sys.argv[1])
    changes = {int(step) for step in sys.argv[2].split(",") if step}
    if os.environ.get("PROFILEMATE_DIR"):
        from profilemate.probe import process, writer

        writer.FIRST_PAUSE_NS, writer.CALM_NS, process.FULL_FLUSH_NS = 20_000_000, 50_000_000, 20_000_000
    update = drive.Driver._update

    def update_and_change(driver: drive.Driver) -> None:
        update(driver)
        if driver.tally["steps"] in changes:
            changes.remove(driver.tally["steps"])
            if ballast.exists():
                ballast.unlink()
            else:
                take_the_rest(ballast)

    drive.Driver._update = update_and_change
    return drive.main(sys.argv[3:])


if __name__ == "__main__":
    sys.exit(main())
