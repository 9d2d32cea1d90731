"""A stage's engine processes in one file, so that its checks can be made again where there is no GPU."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from gpu_check.stages import Sides
from gpu_check.surroundings import load_run

ABOUT = "about.json"


class Kept(NamedTuple):
    """What an archive holds: the stage's name, its sides, and the fields of the result that the machine gave."""

    stage: str
    sides: Sides
    about: dict[str, Any]


def keep(folder: Path, stage: str, sides: Sides, about: dict[str, Any]) -> Path:
    """Write `<stage>.tar.gz` into the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{stage}.tar.gz"
    note = sides.with_us[0].folder / ABOUT
    note.write_text(json.dumps({"stage": stage, "about": about}), encoding="utf-8")
    with tarfile.open(path, "w:gz") as tar:
        tar.add(note, ABOUT)
        for side, runs in zip(Sides._fields, sides, strict=True):
            for number, run in enumerate(runs):
                tar.add(run.folder, f"{side}/{number}", filter=_nameless)
    return path


@contextmanager
def opened(path: Path) -> Iterator[Kept]:
    """An archive, unpacked for as long as the block lasts."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        with tarfile.open(path, "r:gz") as tar:
            tar.extractall(folder, filter="data")
        note = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        sides = Sides(*([load_run(run) for run in sorted((folder / side).iterdir())] for side in Sides._fields))
        yield Kept(note["stage"], sides, note["about"])


def _nameless(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """Without the owner's name."""
    member.uname = member.gname = ""
    return member
